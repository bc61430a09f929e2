"""The table a drill ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row: the figures by column, in order, and what is wrong (empty: nothing)."""

    figures: dict[str, str]
    wrong: list[str]

    @property
    def word(self) -> str:
        """How the row ends."""
        return "BROKEN" if self.wrong else "held"


def table(rows: Sequence[Verdict]) -> list[str]:
    """The rows in columns under a heading, then every violation in full. All rows have the same columns."""
    if not rows:
        return []
    lines = [[*rows[0].figures, "verdict"]]
    lines += [[*row.figures.values(), row.word] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    shown.insert(1, "  ".join("-" * width for width in widths))
    for row in rows:
        shown += [f"VIOLATION {next(iter(row.figures.values()))}: {each}" for each in row.wrong]
    return shown
