"""Strings and numbers that are valid for a JSON Schema."""

import math
from collections.abc import Callable
from typing import Any

from routing.simulator.dice import Dice
from routing.simulator.pattern import matching

_MAX_LENGTH = 10_000

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")

_FORMATS: dict[str, Callable[[Dice], str]] = {
    "date": lambda dice: f"2026-{dice.below(12) + 1:02}-{dice.below(28) + 1:02}",
    "time": lambda dice: f"{dice.below(24):02}:{dice.below(60):02}:00Z",
    "date-time": lambda dice: f"2026-{dice.below(12) + 1:02}-{dice.below(28) + 1:02}T12:00:00Z",
    "duration": lambda dice: f"PT{dice.below(59) + 1}M",
    "email": lambda dice: f"{dice.pick(WORDS)}@example.com",
    "idn-email": lambda dice: f"{dice.pick(WORDS)}@example.com",
    "hostname": lambda dice: f"{dice.pick(WORDS)}.example.com",
    "idn-hostname": lambda dice: f"{dice.pick(WORDS)}.example.com",
    "ipv4": lambda dice: f"192.0.2.{dice.below(254) + 1}",
    "ipv6": lambda dice: f"2001:db8::{dice.below(0xFFFF):x}",
    "uri": lambda dice: f"https://example.com/{dice.pick(WORDS)}",
    "url": lambda dice: f"https://example.com/{dice.pick(WORDS)}",
    "iri": lambda dice: f"https://example.com/{dice.pick(WORDS)}",
    "uri-reference": lambda dice: f"/{dice.pick(WORDS)}",
    "json-pointer": lambda dice: f"/{dice.pick(WORDS)}",
    "regex": lambda _dice: "^a+$",
    "uuid": lambda dice: (
        f"{dice.token(8)}-{dice.token(4)}-4{dice.token(3)}-8{dice.token(3)}-{dice.token(12)}"
    ),
    "binary": lambda _dice: "c2lt",
    "byte": lambda _dice: "c2lt",
}


def make_string(schema: dict[str, Any], dice: Dice) -> str:
    """A string for a schema of type string."""
    shortest = min(bound(schema, "minLength", 0), _MAX_LENGTH)
    longest = bound(schema, "maxLength", _MAX_LENGTH)
    if isinstance(schema.get("pattern"), str):
        text = matching(schema["pattern"], dice, shortest=shortest, longest=longest)
        if text is not None:
            return text
    named = schema.get("format")
    if isinstance(named, str) and (maker := _FORMATS.get(named)) is not None:
        return maker(dice)
    text = dice.pick(WORDS)
    while len(text) < shortest:
        text += dice.pick(WORDS)
    return text[: max(shortest, min(longest, max(shortest, 5)))]


def make_number(schema: dict[str, Any], dice: Dice, *, whole: bool) -> int | float:
    """A number for a schema of type number, or of type integer if `whole`."""
    low, high = _number(schema, "minimum"), _number(schema, "maximum")
    above, under = _number(schema, "exclusiveMinimum"), _number(schema, "exclusiveMaximum")
    # OpenAPI 3.0 writes exclusiveMinimum as a boolean beside minimum.
    if schema.get("exclusiveMinimum") is True:
        above = low
    if schema.get("exclusiveMaximum") is True:
        under = high
    step = _number(schema, "multipleOf")
    if step is None and whole:
        step = 1
    if step is not None and step > 0:
        return _multiple(step, (low, high, above, under), dice, whole=whole)
    bottom = max((value for value in (low, above) if value is not None), default=None)
    top = min((value for value in (high, under) if value is not None), default=None)
    if bottom is None and top is None:
        return dice.below(1000) / 10
    if bottom is not None and top is not None:
        return bottom if bottom == top else bottom + (top - bottom) / 2
    return bottom + 1 if bottom is not None else (top or 0) - 1


def _multiple(
    step: float,
    bounds: tuple[float | None, float | None, float | None, float | None],
    dice: Dice,
    *,
    whole: bool,
) -> int | float:
    """A multiple of `step` within the bounds: minimum, maximum and the two exclusive ones."""
    low, high, above, under = bounds
    if whole and not float(step).is_integer():
        step = 1  # no schema in the wild asks for whole multiples of a fraction
    least = None if low is None else math.ceil(low / step)
    if above is not None:
        least = max(least if least is not None else -(10**18), math.floor(above / step) + 1)
    most = None if high is None else math.floor(high / step)
    if under is not None:
        most = min(most if most is not None else 10**18, math.ceil(under / step) - 1)
    if least is None and most is None:
        times = dice.below(100)
    elif least is None:
        times = (most or 0) - dice.below(10)
    elif most is None:
        times = least + dice.below(10)
    else:
        times = least + dice.below(max(1, min(most - least + 1, 1000)))
    value = times * step
    return int(value) if whole else value


def bound(schema: dict[str, Any], name: str, default: int) -> int:
    """A limit that is a whole number of at least 0, or `default`."""
    value = schema.get(name, default)
    return int(value) if isinstance(value, int | float) and value >= 0 else default


def _number(schema: dict[str, Any], name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
