"""What applying a file changes, as it is shown and counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.money import plain

SECRET = "(secret)"  # noqa: S105 - stands in for one


def readable(value: Any) -> str:
    """A field's value on one line."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return plain(value)
        case float():
            return f"{value:g}"
        case datetime():
            return value.isoformat(timespec="minutes")
        case list() | tuple():
            return f"[{', '.join(readable(each) for each in value)}]"
        case dict():
            return "{" + ", ".join(f"{name}: {readable(each)}" for name, each in value.items()) + "}"
        case _:
            return str(value)


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that becomes something else. Secrets come as ``SECRET``."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.after == SECRET:
            return self.name
        return f"{self.name} {readable(self.before)} -> {readable(self.after)}"


@dataclass(frozen=True, slots=True)
class Change:
    """One object made (+), changed (~) or removed (-)."""

    sign: str
    kind: str
    name: str
    fields: tuple[FieldChange, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.sign} {self.kind} {self.name}"
        if self.fields:
            text += ": " + ", ".join(str(each) for each in self.fields)
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key that was made here; its secret is shown once."""

    name: str
    secret: str = field(repr=False)


@dataclass
class Outcome:
    """All that applying a file did, or would do."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    made: list[MadeKey] = field(default_factory=list)

    def count(self, sign: str) -> int:
        """How many changes of one kind."""
        return sum(change.sign == sign for change in self.changes)
