"""The names of the ways in which a model group orders its deployments (``routing.policy`` does it)."""

from __future__ import annotations

STRATEGIES = ("priority", "weighted", "cheapest", "fastest", "least_busy")


def strategy_choices() -> list[tuple[str, str]]:
    """Choices for a model field."""
    return [(name, name.replace("_", " ")) for name in STRATEGIES]
