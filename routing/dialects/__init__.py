"""How each kind of provider wants to be spoken to. One small module a kind that differs."""

from __future__ import annotations

from routing.dialects.base import Dialect
from routing.kinds import KINDS

# Every kind is reached through its OpenAI-compatible endpoint; a kind with needs of its own gets a class.
_DIALECTS: dict[str, Dialect] = {name: Dialect(kind) for name, kind in KINDS.items()}


def dialect(kind: str) -> Dialect:
    """The dialect of a provider kind; KeyError for an unknown one."""
    return _DIALECTS[kind]


__all__ = ("Dialect", "dialect")
