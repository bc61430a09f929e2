"""When a budget's period begins and ends, by the calendar of an organization's time zone. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

PERIODS = ("day", "week", "month", "total")
# Where "in total" begins, and the start of every wallet.
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class UnknownTimeZone(ValueError):
    """A name that is no time zone; the message names it."""


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The time zone called ``name``. Raises ``UnknownTimeZone``."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UnknownTimeZone(f"{name!r} is not a time zone, such as Europe/Berlin or UTC.") from None


def midnight(day: date, time_zone: str) -> datetime:
    """The first moment of ``day`` in ``time_zone``, in UTC.

    Where clocks skip midnight, it is where the offset before the skip has it; where midnight comes
    twice, the first.
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone(time_zone)).astimezone(UTC)


def _first_day(period: str, day: date) -> date:
    """The first day of the period that ``day`` lies in."""
    if period == "week":
        return day - timedelta(days=day.weekday())
    if period == "month":
        return day.replace(day=1)
    return day


def _next_first_day(period: str, first: date) -> date:
    """The first day of the period after the one that begins on ``first``."""
    if period == "week":
        return first + timedelta(days=7)
    if period == "month":
        return (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    return first + timedelta(days=1)


def period_bounds(period: str, at: datetime, time_zone: str) -> tuple[datetime, datetime | None]:
    """Start (included) and end (excluded) of the period around ``at``, both in UTC.

    ``period`` is one of ``PERIODS``; a day, week (from Monday) or month of the calendar in
    ``time_zone``, whose days have 23 to 25 hours when clocks change. "total" has no end: None.
    Raises ``ValueError`` for another period or a naive ``at``, ``UnknownTimeZone``.
    """
    if period not in PERIODS:
        raise ValueError(f"{period!r} is not a period; use one of {', '.join(PERIODS)}.")
    if at.tzinfo is None:
        raise ValueError("A moment needs a time zone.")
    if period == "total":
        return BEGINNING, None
    first = _first_day(period, at.astimezone(zone(time_zone)).date())
    start, end = midnight(first, time_zone), midnight(_next_first_day(period, first), time_zone)
    # A clock set back over midnight shows a date again after its day has ended.
    while at >= end:
        first = _next_first_day(period, first)
        start, end = end, midnight(_next_first_day(period, first), time_zone)
    # A clock set forward over midnight shows a date before its midnight would have been.
    while at < start:
        first = _first_day(period, first - timedelta(days=1))
        start, end = midnight(first, time_zone), start
    return start, end
