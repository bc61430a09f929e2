"""Exports: any table of a tenant's usage as CSV, JSONL or XLSX."""
