"""The configuration file: read, checked, compared with the database, applied, and written back."""
