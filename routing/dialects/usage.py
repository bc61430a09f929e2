"""Where a chunk or an answer carries its usage object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def find_usage(holder: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage object of a chunk or an answer: beside the choices, inside one of them, or in Groq's own
    member. None if there is none, or only a placeholder of zeros. Never a sum of several.
    """
    places: list[Any] = [holder.get("usage")]
    choices = holder.get("choices")
    if isinstance(choices, list):
        places += [choice.get("usage") for choice in choices if isinstance(choice, dict)]
    own = holder.get("x_groq")
    if isinstance(own, dict):
        places.append(own.get("usage"))
    for usage in places:
        if isinstance(usage, dict) and any(_counted(usage.get(name)) for name in _COUNTS):
            return usage
    return None


# A total alone is what embedding services report.
_COUNTS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens")


def _counted(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
