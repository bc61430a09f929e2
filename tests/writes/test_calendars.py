"""Periods follow the calendar of the organization's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.calendars import UnknownTimeZone, period_bounds

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # clocks once went back at 00:01, so midnight came twice
    "America/Sao_Paulo",  # clocks once skipped midnight
    "Africa/Cairo",
    "Asia/Beirut",  # clocks skip midnight each spring
    "Africa/Casablanca",
    "Asia/Kathmandu",  # 5:45 ahead
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Pacific/Apia",  # 2011-12-30 never was
    "Pacific/Chatham",
]
FIRST = datetime(1975, 1, 1, tzinfo=UTC)
moments = st.integers(0, 85 * 365 * 86_400_000).map(lambda each: FIRST + timedelta(milliseconds=each))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "at", "zone", "start", "end"),
    [
        ("day", "2026-07-01 12:00", "UTC", "2026-07-01 00:00", "2026-07-02 00:00"),
        # Berlin's clocks go forward on 2026-03-29 at 01:00 UTC: the day begins at +1, ends at +2, 23 hours.
        ("day", "2026-03-29 12:00", "Europe/Berlin", "2026-03-28 23:00", "2026-03-29 22:00"),
        # They go back on 2026-10-25 at 01:00 UTC: from +2 to +1, 25 hours.
        ("day", "2026-10-25 12:00", "Europe/Berlin", "2026-10-24 22:00", "2026-10-25 23:00"),
        # The week from Monday 2026-03-23 to Sunday the 29th has 167 hours.
        ("week", "2026-03-29 21:59", "Europe/Berlin", "2026-03-22 23:00", "2026-03-29 22:00"),
        ("week", "2026-03-29 22:00", "Europe/Berlin", "2026-03-29 22:00", "2026-04-05 22:00"),
        ("month", "2026-03-15 00:00", "Europe/Berlin", "2026-02-28 23:00", "2026-03-31 22:00"),
        ("month", "2026-10-31 22:59", "Europe/Berlin", "2026-09-30 22:00", "2026-10-31 23:00"),
        ("month", "2026-12-31 23:30", "Europe/Berlin", "2026-12-31 23:00", "2027-01-31 23:00"),
        ("month", "2028-02-29 12:00", "UTC", "2028-02-01 00:00", "2028-03-01 00:00"),
        # 20:00 UTC is the next day in Kathmandu, which is 5:45 ahead.
        ("day", "2026-07-01 20:00", "Asia/Kathmandu", "2026-07-01 18:15", "2026-07-02 18:15"),
        # Sao Paulo skipped from 2018-11-03 24:00 (-3) to 01:00 (-2): that Sunday began at 03:00 UTC.
        ("day", "2018-11-04 12:00", "America/Sao_Paulo", "2018-11-04 03:00", "2018-11-05 02:00"),
        # Beirut skips from 00:00 (+2) to 01:00 (+3) on 2024-03-31: 23 hours.
        ("day", "2024-03-31 12:00", "Asia/Beirut", "2024-03-30 22:00", "2024-03-31 21:00"),
        # Cairo skips from 00:00 (+2) to 01:00 (+3) on 2024-04-26, and goes from 24:00 (+3) back to 23:00 (+2)
        # at the end of 2024-10-31, which has 25 hours.
        ("day", "2024-04-26 12:00", "Africa/Cairo", "2024-04-25 22:00", "2024-04-26 21:00"),
        ("day", "2024-10-31 21:30", "Africa/Cairo", "2024-10-30 21:00", "2024-10-31 22:00"),
        # Toronto's clocks went from 23:30 (-5) to 00:30 (-4) on 1919-03-30: the day ends at midnight as it was.
        ("day", "1919-03-31 04:45", "America/Toronto", "1919-03-30 05:00", "1919-03-31 05:00"),
        # St John's: 2010-11-07 00:01 (-2:30) became 23:01 (-3:30); the first midnight began the day.
        ("day", "2010-11-07 03:00", "America/St_Johns", "2010-11-07 02:30", "2010-11-08 03:30"),
    ],
)
def test_bounds_worked_out_by_hand(period: str, at: str, zone: str, start: str, end: str) -> None:
    assert period_bounds(period, utc(at), zone) == (utc(start), utc(end))


def test_in_total_begins_with_1970_and_never_ends() -> None:
    assert period_bounds("total", utc("2026-07-01 12:00"), "Europe/Berlin") == (utc("1970-01-01 00:00"), None)


@given(st.sampled_from(["day", "week", "month"]), moments, st.sampled_from(ZONES))
def test_a_moment_lies_in_its_period_and_every_moment_of_it_has_the_same_bounds(
    period: str, at: datetime, zone: str
) -> None:
    start, end = period_bounds(period, at, zone)
    assert end is not None
    assert start <= at < end
    assert period_bounds(period, start, zone) == (start, end)
    assert period_bounds(period, end - timedelta(microseconds=1), zone) == (start, end)


@given(st.sampled_from(["day", "week", "month"]), moments, st.sampled_from(ZONES))
def test_the_next_period_begins_where_this_one_ends(period: str, at: datetime, zone: str) -> None:
    _, end = period_bounds(period, at, zone)
    assert end is not None
    assert period_bounds(period, end, zone)[0] == end


@given(moments, st.sampled_from(ZONES))
def test_a_week_is_seven_days_give_or_take_the_clocks(at: datetime, zone: str) -> None:
    start, end = period_bounds("week", at, zone)
    assert end is not None
    assert timedelta(days=5, hours=23) <= end - start <= timedelta(days=7, hours=2)


@given(moments, st.sampled_from(ZONES))
def test_a_day_that_began_with_a_clock_change_is_its_date_in_the_zone(at: datetime, zone: str) -> None:
    start, end = period_bounds("day", at, zone)
    assert end is not None
    # The middle of the day shows one date, whatever the clocks did at its edges.
    shown = (start + (end - start) / 2).astimezone(ZoneInfo(zone)).date()
    assert start.astimezone(ZoneInfo(zone)).date() == shown
    assert timedelta(hours=22) <= end - start <= timedelta(hours=26)


def test_what_is_no_period_zone_or_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="fortnight"):
        period_bounds("fortnight", utc("2026-07-01 12:00"), "UTC")
    with pytest.raises(UnknownTimeZone, match="Mars/Olympus"):
        period_bounds("day", utc("2026-07-01 12:00"), "Mars/Olympus")
    with pytest.raises(ValueError, match="time zone"):
        period_bounds("day", datetime(2026, 7, 1), "UTC")  # noqa: DTZ001 - a naive moment is the case
