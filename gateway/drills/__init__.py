"""Drills: load and accidents put to a whole gateway on scratch databases, and a verdict on the money."""
