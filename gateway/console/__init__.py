"""The console: pages for the people of an organization."""
