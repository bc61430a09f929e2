"""The JSON API beside the console: usage, reports and keys, for people who are signed in."""
