"""Sums of days and months, so that a report need not read every hour of every key.

A span is a day or a month of the organization's calendar. Its sums are kept by three choices of columns
(``SLICES``), recomputed from the hours as absolute values, and hold from ``start`` to ``until``. A span
whose hours changed since is no longer ``fresh``; reports then read its hours. Where a day does not begin on
a full UTC hour there are no spans.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django_scopes import scope

from billing import tag_spans
from billing.calendars import UnknownTimeZone, period_bounds, zone
from billing.models import UsageSpan
from tenants.models import Organization

logger = logging.getLogger(__name__)

DAY, MONTH = "day", "month"
# An hour counts as over this long after its end; requests that end later make the span be built again.
SETTLED_AFTER = timedelta(minutes=10)
# Columns of the sums, as SQL that picks them from rows of the hours. A user is whom a request was made
# for, as billing.reports has it.
_UNNAMED = "CASE WHEN end_user = '' THEN {} END"
SLICES: dict[str, dict[str, str]] = {
    "key": {"team_id": "team_id", "member_id": "member_id", "key_id": "key_id"},
    "model": {"team_id": "team_id", "model_group": "model_group", "deployment": "deployment"},
    "user": {
        "end_user": "end_user",
        "member_id": _UNNAMED.format("member_id"),
        "key_id": _UNNAMED.format("CASE WHEN member_id IS NULL THEN key_id END"),
    },
}
MEASURES = (
    "requests",
    "errors",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "charge",
)
_MEASURES = ", ".join(MEASURES)
_SUMS = ", ".join(f"sum({name})" for name in MEASURES)

_SPOIL = """
UPDATE billing_usagespan SET fresh = false
WHERE organization_id = %(organization)s AND start <= %(hour)s AND start > %(hour)s - interval '32 days'
    AND until > %(hour)s AND fresh
"""
_EXPECT = """
INSERT INTO billing_usagespan (organization_id, kind, start, "end", until, fresh)
VALUES (%(organization)s, %(kind)s, %(start)s, %(end)s, %(start)s, false)
ON CONFLICT (organization_id, kind, start, "end") DO NOTHING
"""
# A day that goes on is behind once another hour is over, a month once another day is whole.
_PENDING = f"""
SELECT id, organization_id FROM billing_usagespan s
WHERE start < %(settled)s AND (
    NOT fresh
    OR kind = 'day' AND until < least("end", %(settled)s)
    OR kind = 'month' AND until < "end" AND EXISTS (
        SELECT FROM billing_usagespan d WHERE d.organization_id = s.organization_id AND d.kind = 'day'
            AND d.start = s.until AND d.start < s."end" AND d.fresh AND d.until = d."end"
    )
    OR {tag_spans.LACKING}
)
"""  # noqa: S608  # words of ours
_SOME = " AND (%(organization)s::bigint IS NULL OR organization_id = %(organization)s) ORDER BY kind, start LIMIT %(limit)s"
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('billing.rollups:' || %(organization)s, 0))"
_CLEAR = "DELETE FROM billing_usagespansum WHERE span_id = %(span)s"
_DONE = "UPDATE billing_usagespan SET until = %(until)s, fresh = true WHERE id = %(span)s"
# The first day of a month that is not whole yet.
_UNFINISHED = """
SELECT min(start) FROM billing_usagespan
WHERE organization_id = %(organization)s AND kind = 'day' AND start >= %(start)s AND "end" <= %(end)s
    AND (NOT fresh OR until < "end")
"""


def _from_hours(slice_name: str) -> str:
    columns = SLICES[slice_name]
    return (
        f"INSERT INTO billing_usagespansum (span_id, slice, {', '.join(columns)}, {_MEASURES})"  # noqa: S608  # names of ours
        f" SELECT %(span)s, '{slice_name}', {', '.join(columns.values())}, {_SUMS} FROM billing_usagerollup"
        " WHERE organization_id = %(organization)s AND hour >= %(start)s AND hour < %(until)s"
        f" GROUP BY {', '.join(columns.values())}"
    )


def _from_days(slice_name: str) -> str:
    columns = ", ".join(SLICES[slice_name])
    return (
        f"INSERT INTO billing_usagespansum (span_id, slice, {columns}, {_MEASURES})"  # noqa: S608  # as above
        f" SELECT %(span)s, '{slice_name}', {columns}, {_SUMS} FROM billing_usagespansum"
        " WHERE slice = %(slice)s AND span_id IN ("
        "SELECT id FROM billing_usagespan WHERE organization_id = %(organization)s AND kind = 'day'"
        ' AND start >= %(start)s AND "end" <= %(until)s)'
        f" GROUP BY {columns}"
    )


def spoil(cursor: Any, organization_id: int, time_zone: str, hour: datetime) -> None:
    """Say, in the transaction that recomputed ``hour``, that its day and month need building again. A
    month that is new comes with all its days, so that it can be summed from them."""
    # Also those of a calendar that the organization has left.
    cursor.execute(_SPOIL, {"organization": organization_id, "hour": hour})
    if not _whole_hours(hour, time_zone):
        return
    try:
        start, end = period_bounds(MONTH, hour, time_zone)
    except UnknownTimeZone:
        return
    month = {"organization": organization_id, "kind": MONTH, "start": start, "end": end}
    # Nearly always there already.
    cursor.execute(_EXPECT, month)
    if not cursor.rowcount or end is None:
        return
    while start < end:
        first, following = period_bounds(DAY, start, time_zone)
        assert following is not None  # noqa: S101  # only a total has no end
        cursor.execute(_EXPECT, month | {"kind": DAY, "start": first, "end": following})
        start = following


def _whole_hours(moment: datetime, time_zone: str) -> bool:
    """Whether days and months around ``moment`` begin and end on full hours of UTC."""
    try:
        start, end = period_bounds(MONTH, moment, time_zone)
    except UnknownTimeZone:
        return False
    offsets = {each.astimezone(zone(time_zone)).utcoffset() for each in (start, moment, end) if each}
    return all(offset is not None and not offset % timedelta(hours=1) for offset in offsets)


def _settled(at: datetime | None) -> datetime:
    """The end of the last hour that is over and settled ``at`` the present."""
    return ((at or datetime.now(tz=UTC)) - SETTLED_AFTER).replace(minute=0, second=0, microsecond=0)


def waiting(*, at: datetime | None = None) -> list[int]:
    """The organizations with spans that are stale. ``at`` is the present."""
    with connection.cursor() as cursor:
        cursor.execute(_PENDING, {"settled": _settled(at)})
        return sorted({row[1] for row in cursor.fetchall()})


def refresh(limit: int = 500, *, at: datetime | None = None, organization_id: int | None = None) -> int:
    """Build up to ``limit`` spans that are stale, of one organization or of all, a transaction each, days
    before months; returns how many. One whose organization another process works on, or that fails (logged),
    is left for later."""
    settled = _settled(at)
    with connection.cursor() as cursor:
        values: dict[str, Any] = {"limit": limit, "settled": settled, "organization": organization_id}
        cursor.execute(_PENDING + _SOME, values)
        pending = cursor.fetchall()
    done = 0
    for span, owner in pending:
        try:
            done += _build(span, owner, settled)
        except DatabaseError as error:
            logger.exception("A span of organization %s could not be summed.", owner, exc_info=error)
    return done


def _build(span: int, organization_id: int, settled: datetime) -> bool:
    parameters: dict[str, Any] = {"span": span, "organization": organization_id}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '60s'")
        cursor.execute(_LOCK, parameters)
        if not cursor.fetchone()[0]:
            return False
        cursor.execute('SELECT kind, start, "end" FROM billing_usagespan WHERE id = %(span)s', parameters)
        kind, start, end = cursor.fetchone()
        parameters |= {"start": start, "until": min(end, settled)}
        if kind == MONTH:
            cursor.execute(_UNFINISHED, parameters | {"end": end})
            parameters["until"] = cursor.fetchone()[0] or end
        cursor.execute(_CLEAR, parameters)
        for name in SLICES:
            statement = _from_hours(name) if kind == DAY else _from_days(name)
            cursor.execute(statement, parameters | {"slice": name})
        cursor.execute(_DONE, parameters)
        tag_spans.build(cursor, parameters, month=kind == MONTH)
    return True


@dataclass(frozen=True, slots=True)
class Cover:
    """A part of a time that spans have the sums of: their ids, and the hours they hold."""

    ids: Sequence[int]
    parts: Sequence[tuple[datetime, datetime]]


NOTHING = Cover((), ())


def cover(
    organization: Organization,
    start: datetime,
    end: datetime,
    bounds: Sequence[datetime] = (),
    *,
    tagged: bool = False,
) -> Cover:
    """The fewest fresh spans within ``[start, end)`` that neither overlap nor have one of ``bounds``, which
    are in order, in their midst; with ``tagged`` only those that have sums by tag."""
    with scope(organization=organization):
        found = UsageSpan.objects.filter(
            organization=organization, fresh=True, start__gte=start, until__lte=end, until__gt=F("start")
        )
        if tagged:
            found = found.filter(tagged_until=F("until"))
        # Of those that begin together the longest comes first.
        rows = list(found.order_by("start", "-until").values_list("pk", "start", "until"))
    ids, parts, reached = [], [], start
    for pk, first, until in rows:
        inside = bisect_right(bounds, first)
        if first < reached or (inside < len(bounds) and bounds[inside] < until):
            continue
        ids.append(pk)
        parts.append((first, until))
        reached = until
    return Cover(ids, parts)
