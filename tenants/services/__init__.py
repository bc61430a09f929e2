"""Writes of tenants: one function a verb, each atomic and with its audit entry."""
