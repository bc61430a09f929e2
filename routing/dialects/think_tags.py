"""Thinking that leaks into the text as ``<think>...</think>``, where a model's server does not take it out.

Only at the very beginning of an answer: anywhere else the tags are the model's text. A closing tag without
an opening one is text too, since in a stream the thinking before it has gone to the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

OPEN: Final = "<think>"
CLOSE: Final = "</think>"


class _Place(Enum):
    BEFORE = auto()
    INSIDE = auto()
    # Behind the closing tag, where blank lines are no text yet.
    BETWEEN = auto()
    AFTER = auto()


@dataclass(slots=True)
class ThinkTags:
    """Splits the text of one choice, however it is cut."""

    _place: _Place = _Place.BEFORE
    # What may be the beginning of a tag.
    _held: str = ""

    def split(self, text: str) -> tuple[str, str]:
        """``(content, thinking)`` of a further piece of text."""
        if self._place is _Place.AFTER:
            return text, ""
        text, self._held = self._held + text, ""
        thinking = ""
        if self._place is _Place.BEFORE:
            begun = text.lstrip()
            if len(begun) < len(OPEN) and OPEN.startswith(begun):
                self._held = text
                return "", ""
            if not begun.startswith(OPEN):
                self._place = _Place.AFTER
                return text, ""
            self._place, text = _Place.INSIDE, begun[len(OPEN) :]
        if self._place is _Place.INSIDE:
            thinking, closed, text = text.partition(CLOSE)
            if not closed:
                kept = len(thinking) - _partial(thinking)
                thinking, self._held = thinking[:kept], thinking[kept:]
                return "", thinking
            self._place = _Place.BETWEEN
        text = text.lstrip("\r\n")
        if text:
            self._place = _Place.AFTER
        return text, thinking

    def end(self) -> tuple[str, str]:
        """What was held back when the text ends."""
        held, self._held = self._held, ""
        return ("", held) if self._place is _Place.INSIDE else (held, "")


def _partial(text: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of the closing tag."""
    for size in range(min(len(CLOSE) - 1, len(text)), 0, -1):
        if CLOSE.startswith(text[-size:]):
            return size
    return 0
