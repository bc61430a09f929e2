"""Writes of billing: one function a verb, each atomic and with its audit entry."""
