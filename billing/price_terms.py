"""The terms of a price as they are stored, read into rates.

A price row has a column for each class, ``minimum``, and two lists of JSON objects whose amounts are
decimal strings: ``tiers`` (``{"above": 200000, "input": "2.50", ...}``: what a tier does not name costs
what it costs below) and ``peaks`` (``{"start": "09:00", "end": "12:00", "time_zone": "Asia/Shanghai",
"days": ["mon"], "multiplier": "2"}``; no ``days``: every day).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import time
from decimal import Decimal, InvalidOperation
from typing import Any

from billing.calendars import zone
from billing.peak_hours import DAYS, PeakHours
from billing.pricing import CLASSES, ZERO, Rates

COLUMNS = (*CLASSES, "minimum", "tiers", "peaks")
_COMMON = ("input", "cached_input", "cache_write", "output")


def rates_of(price_id: int, terms: Mapping[str, Any]) -> Rates:
    """The rates of a price row, by the names of ``COLUMNS``; what is missing is not set. Raises ValueError,
    saying which term is wrong."""
    given = {name: terms.get(name) for name in CLASSES}
    base = Rates(
        price_id,
        given["input"],
        given["cached_input"],
        given["cache_write"],
        given["output"],
        rare={name: rate for name, rate in given.items() if rate is not None and name not in _COMMON},
        minimum=terms.get("minimum") or ZERO,
    )
    if not (terms.get("tiers") or terms.get("peaks")):
        return base
    tiers: list[tuple[int, Rates]] = []
    for stored in terms.get("tiers") or ():
        above, rates = _tier(base, stored)
        if tiers and above <= tiers[-1][0]:
            raise ValueError("tiers: they must ascend.")
        tiers.append((above, rates))
    peaks = tuple(_peak(stored) for stored in terms.get("peaks") or ())
    return replace(base, tiers=tuple(tiers), peaks=peaks)


def _amount(value: object, name: str) -> Decimal:
    try:
        amount = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or amount < 0:
        raise ValueError(f"{name}: it must be a decimal that is not negative, in quotes.")
    return amount


def _tier(base: Rates, stored: Mapping[str, Any]) -> tuple[int, Rates]:
    above = stored.get("above")
    if type(above) is not int or above < 1:
        raise ValueError("tiers: above must be a number of tokens.")
    named = {name: _amount(value, f"tiers: {name}") for name, value in stored.items() if name != "above"}
    if not named or not set(named) <= set(CLASSES):
        raise ValueError("tiers: each must name classes of a price.")
    common = {name: rate for name, rate in named.items() if name in _COMMON}
    rare = {name: rate for name, rate in named.items() if name not in _COMMON}
    return above, replace(base, **common, rare={**base.rare, **rare})  # type: ignore[arg-type]  # mypy sees one type for all fields


def _clock(value: object, name: str) -> time:
    try:
        found = time.fromisoformat(str(value))
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None:
        raise ValueError(f'peaks: {name} must be a time of the day, such as "09:00".')
    return found


def _peak(stored: Mapping[str, Any]) -> PeakHours:
    if unknown := set(stored) - {"start", "end", "time_zone", "days", "multiplier"}:
        raise ValueError(f"peaks: {min(unknown)} is not known.")
    days = stored.get("days") or DAYS
    if not set(days) <= set(DAYS):
        raise ValueError(f"peaks: days are {', '.join(DAYS)}.")
    return PeakHours(
        _clock(stored.get("start"), "start"),
        _clock(stored.get("end"), "end"),
        zone(str(stored.get("time_zone") or "UTC")),
        frozenset(DAYS.index(day) for day in days),
        _amount(stored.get("multiplier"), "peaks: multiplier"),
    )
