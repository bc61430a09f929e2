"""Make a string that matches a regular expression of the kind JSON Schemas use."""

import importlib
import re
from typing import Any

from routing.simulator.dice import Dice

_MAX_REPEAT_EXTRA = 3
_MAX_LENGTH = 10_000
_MAX_SEARCHED = 64  # characters; with the next limit it keeps the worst search short
_MAX_SEARCHED_REPEATS = 6
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_NAMED_GROUP = re.compile(r"\(\?<(?![=!])")
_PRINTABLE = [chr(code) for code in range(33, 127)]
_CATEGORIES = {
    "CATEGORY_DIGIT": [str(digit) for digit in range(10)],
    "CATEGORY_WORD": [*"abcdefghijklmnopqrstuvwxyz", *"0123456789"],
    "CATEGORY_SPACE": [" "],
    "CATEGORY_NOT_DIGIT": [*"abcdefghij"],
    "CATEGORY_NOT_WORD": ["-", ".", "!"],
    "CATEGORY_NOT_SPACE": [*"abcdefghij"],
}


def matching(pattern: str, dice: Dice, *, shortest: int = 0, longest: int | None = None) -> str | None:
    """A string in which `pattern` is found, `shortest` to `longest` characters long, or None
    when a few tries gave none.

    Text is written to fit the pattern. Only look-arounds and word boundaries need a search to be
    sure, and that is not done with patterns which could make a search last.
    """
    try:
        source = _NAMED_GROUP.sub("(?P<", pattern)
        compiled = re.compile(source)
        # The standard library's own parser has no public name.
        tree: Any = importlib.import_module("re._parser").parse(source)
    except (re.error, OverflowError, RecursionError):
        return None
    doubtful, repeats, nested = _survey(tree, within=False)
    if doubtful and (nested or repeats > _MAX_SEARCHED_REPEATS):
        return None

    def fits(text: str) -> bool:
        if len(text) < shortest or (longest is not None and len(text) > longest):
            return False
        return not doubtful or (len(text) <= _MAX_SEARCHED and compiled.search(text) is not None)

    for extra in (0, 1, 2, _MAX_REPEAT_EXTRA, shortest):
        writer = _Writer(dice)
        writer.write(tree, min(extra, _MAX_LENGTH))
        text = "".join(writer.parts)
        if len(text) < shortest and not source.endswith("$"):
            text += "x" * (shortest - len(text))
        if fits(text):
            return text
    if doubtful:
        return next((text for text in ("0", "1", "a", "A", "word", "2026-01-01") if fits(text)), None)
    return None


def _survey(tree: Any, *, within: bool) -> tuple[bool, int, bool]:
    """Whether the written text may fail to match, the number of repetitions, and whether one
    lies in another."""
    doubtful, repeats, nested = False, 0, False
    for code, argument in tree:
        name = str(code)
        parts: list[Any] = []
        inside = within
        if name == "AT":
            doubtful |= str(argument) not in (
                "AT_BEGINNING",
                "AT_END",
                "AT_BEGINNING_STRING",
                "AT_END_STRING",
            )
        elif name in ("ASSERT", "ASSERT_NOT"):
            doubtful, parts = True, [argument[1]]
        elif name == "BRANCH":
            parts = argument[1]
        elif name == "SUBPATTERN":
            parts = [argument[-1]]
        elif name in _REPEATS:
            repeats, nested, inside, parts = repeats + 1, nested or within, True, [argument[2]]
        elif name not in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "GROUPREF"):
            doubtful = nested = True
        for part in parts:
            below = _survey(part, within=inside)
            doubtful, repeats, nested = doubtful or below[0], repeats + below[1], nested or below[2]
    return doubtful, repeats, nested


class _Writer:
    """Collects text node by node, up to a length."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.parts: list[str] = []
        self.groups: dict[int, str] = {}
        self.steps = 0

    def write(self, tree: Any, extra: int) -> None:
        """Append text for each node of a parsed expression. `extra` is how far above its
        minimum a repetition goes."""
        for code, argument in tree:
            name = str(code)
            self.steps += 1
            if self.steps > _MAX_LENGTH:
                return
            if name == "LITERAL":
                self.parts.append(chr(argument))
            elif name == "NOT_LITERAL":
                self.parts.append("b" if argument == ord("a") else "a")
            elif name == "ANY":
                self.parts.append(self.dice.pick("abcdefghij"))
            elif name == "IN":
                self.parts.append(_one_of(argument, self.dice))
            elif name == "BRANCH":
                self.write(self.dice.pick(argument[1]), extra)
            elif name == "SUBPATTERN":
                start = len(self.parts)
                self.write(argument[-1], extra)
                if argument[0] is not None:
                    self.groups[argument[0]] = "".join(self.parts[start:])
            elif name in _REPEATS:
                least, most, body = argument
                for _ in range(min(int(most), int(least) + extra, _MAX_LENGTH)):
                    if self.steps > _MAX_LENGTH:
                        return
                    self.write(body, min(extra, _MAX_REPEAT_EXTRA))
            elif name == "GROUPREF":
                self.parts.append(self.groups.get(argument, ""))
            # Anchors and look-arounds write nothing; the caller checks the result.


def _one_of(items: Any, dice: Dice) -> str:
    """One character of a set such as `[A-Z0-9_]` or `[^"]`."""
    allowed: list[str] = []
    ranges: list[tuple[int, int]] = []
    negated = False
    for code, argument in items:
        name = str(code)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            ranges.append((argument, argument))
        elif name == "RANGE":
            ranges.append(argument)
        elif name == "CATEGORY":
            allowed.extend(_CATEGORIES.get(str(argument), ["a"]))
    if negated:
        banned = {*allowed}
        free = [
            mark
            for mark in ("a", *_PRINTABLE, " ")
            if mark not in banned and not any(low <= ord(mark) <= high for low, high in ranges)
        ]
        return free[0] if free else "\u00e9"
    for low, high in ranges:
        codes = range(low, min(high, low + 255) + 1)
        allowed.extend(chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF)  # no lone surrogates
    return dice.pick(allowed) if allowed else "a"
