"""Hours of the day in which a price is another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class PeakHours:
    """From ``start`` to ``end`` (excluded) by the clock of ``zone``, all rates times ``multiplier``.

    An end at or before the start is on the next day. ``days`` (0: Monday) are those on which the hours
    start.
    """

    start: time
    end: time
    zone: ZoneInfo
    days: frozenset[int]
    multiplier: Decimal

    def covers(self, moment: datetime) -> bool:
        """Whether ``moment`` (aware) is in these hours."""
        local = moment.astimezone(self.zone)
        clock = local.time()
        if self.start < self.end:
            return self.start <= clock < self.end and local.weekday() in self.days
        if clock >= self.start:
            return local.weekday() in self.days
        return clock < self.end and (local - timedelta(days=1)).weekday() in self.days
