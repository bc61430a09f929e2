"""The requests that have a tag, found by way of the hours in which the sums by tag know it.

Events have no index of their tags: one would cost every request that is shipped. The hours that cannot
hold the tag are passed over instead, and a page reads at most ``MOST_HOURS`` of those that can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Q, Window
from django.db.models.functions import RowNumber
from django_scopes import scope

from billing.access import events_between, usage_page
from billing.models import DirtyBucket, TagRollup, TagValue, UsageEvent
from billing.sums import HOUR, hour_floor, snapshot
from billing.tag_rollups import MOST_NAMES
from tenants.models import Organization

# Hours whose requests one page looks through.
MOST_HOURS = 24
OFFERED = 10
INSTANT = timedelta(microseconds=1)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_VALUE = re.compile(r"[^\x00-\x1f\x7f,]{1,100}")


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag as clients give it in ``X-Weir-Tags``; without a value it means the requests that lack it."""

    name: str
    value: str = ""

    @classmethod
    def read(cls, text: str) -> Tag:
        """``feature=search``, or ``feature=`` for the requests without it. Raises ``ValueError``."""
        name, equals, value = (part.strip() for part in text.partition("="))
        if not _NAME.fullmatch(name) or not equals or (value and not _VALUE.fullmatch(value)):
            raise ValueError(f"“{text[:150]}” is no tag. Write it as feature=search.")
        return cls(name, value)

    def __str__(self) -> str:
        return f"{self.name}={self.value}"

    @property
    def condition(self) -> Q:
        """The same as a condition on events."""
        return Q(tags__contains={self.name: self.value}) if self.value else ~Q(tags__has_key=self.name)


@dataclass(frozen=True, slots=True)
class Found:
    """Requests, the newest first."""

    events: list[UsageEvent]
    # What began before this was not looked at; None: everything was, or there are enough of them.
    reached: datetime | None = None


def tagged_page(
    organization: Organization,
    tag: Tag,
    *,
    start: datetime,
    end: datetime,
    where: Q,
    after: tuple[datetime, str] | None,
    size: int,
) -> Found:
    """At most ``size`` requests with ``tag``, as ``billing.access.usage_page`` has them, the newest first."""
    condition = where & tag.condition
    with scope(organization=organization), snapshot():
        hours = _hours(organization, tag, start, end if after is None else min(end, after[0] + INSTANT))
        if hours is None:
            return Found(
                usage_page(organization, start=start, end=end, where=condition, after=after, size=size)
            )
        more, hours = len(hours) > MOST_HOURS, hours[:MOST_HOURS]
        if not hours:
            return Found([])
        parts = [
            events_between(
                organization, start=max(first, start), end=min(until, end), where=condition, after=after
            )[:size]
            for first, until in _together(hours)
        ]
        rows = parts[0]
        if len(parts) > 1:
            rows = rows.union(*parts[1:], all=True).order_by("-started_at", "-request_id")[:size]
        events = list(rows)
    return Found(events, hours[-1] if more and len(events) < size else None)


def tags_offered(organization: Organization) -> list[str]:
    """Tags to choose from: of each name the first ``OFFERED`` values that the reports know."""
    place = Window(RowNumber(), partition_by=F("name"), order_by=F("value").asc())
    with scope(organization=organization):
        known = TagValue.objects.filter(organization=organization).annotate(place=place)
        offered = known.filter(place__lte=OFFERED).order_by("name", "value").values_list("name", "value")
        return [f"{name}={value}" for name, value in offered]


def _hours(organization: Organization, tag: Tag, start: datetime, end: datetime) -> list[datetime] | None:
    """The hours of ``[start, end)`` that can have requests with ``tag``, the newest first, one more than a
    page looks through at most; None where only the requests can tell."""
    known = TagValue.objects.filter(organization=organization)
    if not tag.value:
        return None
    within = Q(organization=organization, hour__gte=hour_floor(start), hour__lt=end)
    under = None
    if known.filter(name=tag.name, value=tag.value).exists():
        under = tag.value
    elif known.filter(name=tag.name).exists():
        # Beyond the bound of values: summed under the empty one.
        under = ""
    elif known.values("name").distinct().count() >= MOST_NAMES:
        return None
    # Hours that are not summed again yet may have anything.
    hours = set(DirtyBucket.objects.filter(within).values_list("hour", flat=True).distinct())
    if under is not None:
        summed = TagRollup.objects.filter(within, name=tag.name, value=under).order_by("-hour")
        hours.update(summed.values_list("hour", flat=True).distinct()[: MOST_HOURS + 1])
    return sorted(hours, reverse=True)


def _together(hours: list[datetime]) -> list[tuple[datetime, datetime]]:
    """``hours``, the newest first, as stretches of time."""
    stretches: list[tuple[datetime, datetime]] = []
    for hour in hours:
        if stretches and hour + HOUR == stretches[-1][0]:
            stretches[-1] = (hour, stretches[-1][1])
        else:
            stretches.append((hour, hour + HOUR))
    return stretches
