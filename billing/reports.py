"""What was used and what it cost, summed: for pages, downloads and the API.

Reports read the sums of months, days and hours (``billing.sums``). Only where a day of the
organization's time zone does not begin on a full UTC hour (India, Nepal, Newfoundland and others) are
the requests of the divided hours read one by one, so a day's figures are exact in every zone. All
sums are exact decimals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any, Literal, get_args

from django.db.models import Q
from django.utils import timezone
from django_scopes import scope

from billing.access import Names, names_of
from billing.calendars import midnight, period_bounds, zone
from billing.models import DirtyBucket
from billing.sums import COLUMNS, HOUR, Sums, among, dearest, grouped, hour_floor, snapshot, total
from tenants.models import Organization

Dimension = Literal[
    "user", "member", "end_user", "key", "team", "model", "deployment", "month", "day", "hour"
]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

# Dimensions whose groups have names beyond themselves.
NAMED = ("user", "member", "key", "team")
# Stands for "no end user was named" where a filter is written as text.
NOBODY = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report."""

    # What the line stands for: the id as text, the name where a name is all there is, an ISO date,
    # ISO month, or the first moment of an hour.
    key: str
    label: str
    # What tells two equal labels apart: a key's hint and team, what kind of user it is.
    detail: str
    sums: Sums
    # Parameters of the request list and of other reports that show what is behind this line.
    filters: dict[str, str]
    # The same as a condition on usage rows; None for times and for the sum of others.
    condition: Q | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Usage of an organization from ``start`` (included) to ``end`` (excluded), both in UTC."""

    # A Dimension, or ``tag:`` and the name of a tag (``billing.tag_reports``).
    by: str
    start: datetime
    end: datetime
    time_zone: str
    # Days and hours in order of time, everything else by charge, dearest first.
    rows: list[Row]
    # Equal to the sum of the rows.
    totals: Sums
    # Hours of this time that are still being summed; their last requests are not in yet.
    pending_hours: int = 0
    # Rows that were folded into the last one.
    folded: int = 0


def days_of(organization: Organization, start: datetime, end: datetime) -> list[tuple[date, datetime]]:
    """The calendar days of ``organization`` that touch ``[start, end)``, each with its first moment."""
    if end <= start:
        return []
    local = zone(organization.time_zone)
    day = start.astimezone(local).date() - timedelta(days=1)
    days: list[tuple[date, datetime]] = []
    while True:
        first, following = (
            midnight(day, organization.time_zone),
            midnight(day + timedelta(days=1), organization.time_zone),
        )
        if first >= end:
            return days
        # A day that the clocks skip as a whole has no length.
        if following > start and following > first:
            days.append((day, first))
        day += timedelta(days=1)


def months_of(organization: Organization, start: datetime, end: datetime) -> list[tuple[date, datetime]]:
    """The calendar months of ``organization`` that touch ``[start, end)``: first day, first moment."""
    months: list[tuple[date, datetime]] = []
    while start < end:
        first, following = period_bounds("month", start, organization.time_zone)
        months.append((days_of(organization, start, start + HOUR)[0][0].replace(day=1), first))
        if following is None:
            break
        start = following
    return months


def pending_hours(organization: Organization, start: datetime, end: datetime) -> int:
    """How many hours of ``[start, end)`` have requests that the rollups do not hold yet."""
    with scope(organization=organization):
        return (
            DirtyBucket.objects.filter(organization=organization, hour__gte=hour_floor(start), hour__lt=end)
            .values("hour")
            .distinct()
            .count()
        )


def _named_in(by: str, found: Iterable[tuple[Any, ...]]) -> tuple[set[int], set[int]]:
    """The ids of the keys and of the memberships in the groups of a report."""
    ids = [{group[place] for group in found} - {None} for place in range(len(COLUMNS[by]))]
    nobody: set[int] = set()
    return {"user": (ids[-1], ids[len(ids) // 2]), "key": (ids[0], nobody), "member": (nobody, ids[0])}.get(
        by, (nobody, nobody)
    )


def _hour_label(moment: datetime, time_zone: str) -> str:
    """An hour as people of the zone read it; the offset tells the two hours of a clock change apart."""
    local = moment.astimezone(zone(time_zone))
    offset = f"{local:%z}"
    return f"{local:%Y-%m-%d %H:%M} {offset[:3]}:{offset[3:]}"


def _named(by: str, group: tuple[Any, ...], names: Names, sums: Sums) -> Row:
    """The line of a group that is no time."""
    if by == "user":
        end_user, member_id, key_id = group
        if end_user:
            row = _named("end_user", (end_user,), names, sums)
            return replace(row, key=_key(by, group), detail="End user")
        unnamed = Q(end_user="")
        if member_id is not None:
            row = _named("member", (member_id,), names, sums)
            filters = {**row.filters, "end_user": NOBODY}
            condition = unnamed & Q(member_id=member_id)
            return replace(row, key=_key(by, group), detail="Key owner", filters=filters, condition=condition)
        row = _named("key", (key_id,), names, sums)
        condition = unnamed & Q(member_id=None, key_id=key_id)
        filters = {**row.filters, "end_user": NOBODY}
        return replace(
            row, key=_key(by, group), detail="Key without owner", filters=filters, condition=condition
        )
    value = group[0]
    condition = Q((f"{COLUMNS[by][0]}__isnull", True)) if value is None else Q((COLUMNS[by][0], value))
    label, detail, filters = str(value), "", {by: str(value)}
    if by == "member":
        label = "No owner" if value is None else names.member(value)
        filters = {"member": "none" if value is None else str(value)}
    elif by == "key":
        label, known = names.key(value), names.keys.get(value)
        detail = f"{names.team(known.team_id)} · {known.hint}" if known else ""
    elif by == "team":
        label = names.team(value)
        filters = {"team": label}
    elif by == "end_user":
        label, filters = value or "Not named", {"end_user": value or NOBODY}
    elif by == "model":
        label, filters = value or "None", {"model": value} if value else {}
    elif by == "deployment":
        label, filters = value or "None tried", {}
    return Row(_key(by, group), label, detail, sums, filters, condition)


def cost_report(
    organization: Organization,
    by: Dimension,
    start: datetime,
    end: datetime,
    where: Q | None = None,
    *,
    most: int | None = None,
) -> Report:
    """The usage of ``organization`` in ``[start, end)`` (aware moments), one row for each ``by``.

    ``where`` is a condition on ``team_id``, ``key_id``, ``member_id``, ``end_user``, ``model_group`` and
    ``deployment``. A report by day or month has a row for each, also where nothing was used; an hour is one
    of UTC, labelled in the organization's zone. Where there are more than ``most`` rows, only the dearest
    are named and the rest is one row more; times are never folded. Raises ``ValueError`` for another dimension.
    """
    if by not in DIMENSIONS:
        raise ValueError(f"{by!r} is no dimension; use one of {', '.join(DIMENSIONS)}.")
    condition = where or Q()
    rows: list[Row] = []
    folded = 0
    if by == "day":
        days = days_of(organization, start, end)
        firsts = [first for _, first in days]
        found = grouped(organization, by, start, end, where=condition, bounds=firsts)
        for number, (day, _) in enumerate(days, start=1):
            window = {"from": day.isoformat(), "to": day.isoformat()}
            rows.append(
                Row(day.isoformat(), day.isoformat(), f"{day:%A}", found.get((number,), Sums()), window)
            )
    elif by == "month":
        months = months_of(organization, start, end)
        found = grouped(organization, by, start, end, where=condition, bounds=[first for _, first in months])
        local = zone(organization.time_zone)
        last_day = (end - timedelta(microseconds=1)).astimezone(local).date()
        for number, (month, _) in enumerate(months, start=1):
            following = (month + timedelta(days=31)).replace(day=1)
            window = {
                "from": max(month, start.astimezone(local).date()).isoformat(),
                "to": min(following - timedelta(days=1), last_day).isoformat(),
            }
            rows.append(Row(f"{month:%Y-%m}", f"{month:%B %Y}", "", found.get((number,), Sums()), window))
    elif by == "hour":
        count = max(0, -((hour_floor(start) - end) // HOUR))
        hours = [hour_floor(start) + HOUR * number for number in range(count)]
        found = grouped(organization, by, start, end, where=condition, bounds=hours)
        for (number,), sums in sorted(found.items()):
            hour = hours[number - 1]
            rows.append(Row(hour.isoformat(), _hour_label(hour, organization.time_zone), "", sums, {}))
    else:
        others, folded = Sums(), 0
        if most is None:
            found = grouped(organization, by, start, end, where=condition)
        else:
            found, others, folded = dearest(organization, by, start, end, where=condition, most=most)
        names = names_of(organization, _named_in(by, found)) if by in NAMED else Names({}, {}, {})
        rows = [_named(by, group, names, sums) for group, sums in found.items()]
        rows.sort(key=lambda row: (-row.sums.charge, -row.sums.requests, row.label, row.key))
        if folded:
            rows.append(Row("", f"{folded:,} others", "", others, {}))
    return Report(
        by=by,
        start=start,
        end=end,
        time_zone=organization.time_zone,
        rows=rows,
        totals=total(row.sums for row in rows),
        pending_hours=pending_hours(organization, start, end),
        folded=folded,
    )


def charges_of(
    organization: Organization,
    by: Dimension,
    keys: Sequence[str],
    start: datetime,
    end: datetime,
    where: Q | None = None,
) -> tuple[dict[str, Decimal], Decimal]:
    """What those lines of the report that have these ``keys`` were charged in ``[start, end)``, in US dollars
    by key, and what everything was. Not for times."""
    condition, groups = where or Q(), [_group(by, key) for key in keys]
    with snapshot():
        named = grouped(organization, by, start, end, where=condition & among(by, groups)) if keys else {}
        whole = totals_for(organization, start, end, condition)
    return {_key(by, group): sums.charge for group, sums in named.items()}, whole.charge


def _key(by: str, group: tuple[Any, ...]) -> str:
    """The key of the line of a group that is no time."""
    if by != "user":
        return "" if group[0] is None else str(group[0])
    end_user, member_id, key_id = group
    if end_user:
        return f"end_user:{end_user}"
    return f"key:{key_id}" if member_id is None else f"member:{member_id}"


def _group(by: str, key: str) -> tuple[Any, ...]:
    """The group whose line has this key."""
    if by == "user":
        kind, _, value = key.partition(":")
        if kind == "end_user":
            return value, None, None
        return ("", int(value), None) if kind == "member" else ("", None, int(value))
    if by in ("member", "key", "team"):
        return (int(key) if key else None,)
    return (key,)


def daily_series(
    organization: Organization,
    start: datetime,
    end: datetime,
    series: Sequence[Row],
    where: Q | None = None,
    *,
    by: Literal["day", "month"] = "day",
) -> list[tuple[date, list[Sums]]]:
    """For each day (or month, by its first day), the sums of each row of ``series`` and, at last, of
    everything else.

    ``series`` are rows of a report over the same time that is no report of times.
    """
    parts = (days_of if by == "day" else months_of)(organization, start, end)
    condition, bounds = where or Q(), [first for _, first in parts]
    conditions = [row.condition for row in series if row.condition is not None]
    with snapshot():
        whole = grouped(organization, by, start, end, where=condition, bounds=bounds)
        named: dict[tuple[Any, ...], Sums] = {}
        if conditions:
            # Few of thousands of lines: an index has them, and the whole is in fewer rows.
            named = grouped(
                organization,
                by,
                start,
                end,
                where=condition & reduce(or_, conditions),
                bounds=bounds,
                series=conditions,
            )
    found = []
    for number, (day, _) in enumerate(parts, start=1):
        each = [named.get((number, place), Sums()) for place in range(len(conditions))]
        found.append((day, [*each, whole.get((number,), Sums()) - total(each)]))
    return found


def totals_for(organization: Organization, start: datetime, end: datetime, where: Q | None = None) -> Sums:
    """One sum of everything in ``[start, end)`` that ``where`` allows."""
    return total(grouped(organization, "", start, end, where=where or Q()).values())


def top(
    organization: Organization,
    by: Dimension,
    start: datetime,
    end: datetime,
    *,
    count: int = 5,
    where: Q | None = None,
) -> list[Row]:
    """The ``count`` dearest rows of the report."""
    return cost_report(organization, by, start, end, where, most=count).rows[:count]


def spent_this_month(
    organization: Organization,
    by: Literal["key", "team", "member"],
    *,
    at: datetime | None = None,
    where: Q | None = None,
) -> dict[int, Sums]:
    """Sums since the month began in the organization's zone, by the id of the key, team or membership.

    Everything that used nothing is missing from the result. One query (two where the zone's midnight
    is not on a full UTC hour), however many ids there are.
    """
    return spent_since(organization, by, "month", at=at or timezone.now(), where=where)


def spent_since(
    organization: Organization,
    by: Literal["key", "team", "member"],
    period: str,
    *,
    at: datetime,
    where: Q | None = None,
) -> dict[int, Sums]:
    """The same since the ``period`` around ``at`` began, one of ``billing.calendars.PERIODS``."""
    start, end = period_bounds(period, at, organization.time_zone)
    # "total" has no end; what begins later than this hour is not there yet.
    found = grouped(organization, by, start, end or hour_floor(at) + HOUR, where=where or Q())
    return {group[0]: sums for group, sums in found.items() if group[0] is not None}
