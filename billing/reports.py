"""What was used and what it cost, summed: for pages, downloads and the API.

Reports read the hourly rollups. Only where a day of the organization's time zone does not begin on
a full UTC hour (India, Nepal, Newfoundland and others) are the requests of the divided hours read one
by one, so a day's figures are exact in every zone. All sums are exact decimals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, get_args

from django.contrib.postgres.fields import ArrayField
from django.db.models import Case, Count, DateTimeField, F, Func, IntegerField, Q, QuerySet, Sum, Value, When
from django.utils import timezone
from django_scopes import scope

from billing.access import Names, names_of
from billing.calendars import midnight, period_bounds, zone
from billing.models import DirtyBucket, UsageEvent, UsageRollup
from billing.money import EXACT
from tenants.models import Organization

Dimension = Literal["user", "member", "end_user", "key", "team", "model", "deployment", "day", "hour"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

HOUR = timedelta(hours=1)
ZERO = Decimal(0)
ERROR_STATUS = 400
# Stands for "no end user was named" where a filter is written as text.
NOBODY = "\N{EN DASH}"

# The columns a dimension groups by. A user is whom a request was made for: the end user it named,
# otherwise the owner of its key, otherwise the key.
COLUMNS: dict[str, tuple[str, ...]] = {
    "user": ("end_user", "user_member_id", "user_key_id"),
    "member": ("member_id",),
    "end_user": ("end_user",),
    "key": ("key_id",),
    "team": ("team_id",),
    "model": ("model_group",),
    "deployment": ("deployment",),
}
SUMMED = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "charge",
)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over requests. Token classes are disjoint, but ``reasoning_tokens`` is part of the output.

    ``cost`` is what providers ask, ``charge`` what the tenant pays, in US dollars.
    """

    requests: int = 0
    # Requests answered with a status of 400 or more, refused ones included.
    errors: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = ZERO
    charge: Decimal = ZERO

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.requests + other.requests,
            self.errors + other.errors,
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            EXACT.add(self.cost, other.cost),
            EXACT.add(self.charge, other.charge),
        )

    @property
    def tokens(self) -> int:
        """All tokens, each counted once."""
        return self.input_tokens + self.cached_input_tokens + self.cache_write_tokens + self.output_tokens

    @property
    def margin(self) -> Decimal:
        """What remains of the charge after the provider's cost; below zero where it does not cover it."""
        return EXACT.subtract(self.charge, self.cost)


SUM_FIELDS = tuple(each.name for each in fields(Sums))


def total(sums: Iterable[Sums]) -> Sums:
    """The sum of ``sums``, exact."""
    result = Sums()
    for each in sums:
        result += each
    return result


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report."""

    # What the line stands for: the id as text, the name where a name is all there is, an ISO date,
    # or the first moment of an hour.
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

    by: Dimension
    start: datetime
    end: datetime
    time_zone: str
    # Days and hours in order of time, everything else by charge, dearest first.
    rows: list[Row]
    # Equal to the sum of the rows.
    totals: Sums
    # Hours of this time that are still being summed; their last requests are not in yet.
    pending_hours: int = 0

    def first(self, count: int) -> Report:
        """The same report with only ``count`` rows of its own, the rest summed in one; totals are kept."""
        if len(self.rows) <= count:
            return self
        rest = self.rows[count:]
        line = Row("", f"{len(rest):,} others", "", total(row.sums for row in rest), {})
        return replace(self, rows=[*self.rows[:count], line])


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


def _hour_floor(moment: datetime) -> datetime:
    """The beginning of the UTC hour of ``moment``."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _annotated(rows: QuerySet[Any], time_column: str, by: str, bounds: Sequence[datetime]) -> QuerySet[Any]:
    """``rows`` with the computed grouping columns of ``by``."""
    annotated = rows
    if by == "user":
        named = ~Q(end_user="")
        annotated = rows.annotate(
            user_member_id=Case(When(named, then=None), default=F("member_id")),
            user_key_id=Case(
                When(named | Q(member_id__isnull=False), then=None),
                default=F("key_id"),
            ),
        )
    elif by in ("day", "hour"):
        annotated = rows.annotate(
            bucket=Func(
                F(time_column),
                Value(list(bounds), output_field=ArrayField(DateTimeField())),
                function="width_bucket",
                output_field=IntegerField(),
            )
        )
    return annotated


def _grouped(
    organization: Organization,
    by: str,
    start: datetime,
    end: datetime,
    *,
    where: Q,
    bounds: Sequence[datetime] = (),
    series: Sequence[Q] | None = None,
) -> dict[tuple[Any, ...], Sums]:
    """Sums of ``[start, end)`` by the columns of ``by`` ("" for one sum of everything).

    ``bounds`` are moments at which groups change although an hour may be under way; the hours around
    them, and around ``start`` and ``end``, are read request by request. At most two queries. With
    ``series``, groups are divided further by the number of the first condition met, -1 where none is.
    """
    if end <= start:
        return {}
    columns = COLUMNS.get(by, ("bucket",) if by else ())
    if series is not None:
        columns = (*columns, "series")
    divided = sorted(
        {_hour_floor(moment) for moment in (start, end, *bounds) if _hour_floor(moment) != moment}
    )
    sums: dict[tuple[Any, ...], Sums] = {}

    def collect(rows: QuerySet[Any], counts: dict[str, Any]) -> None:
        if series is not None:
            whens = [When(condition, then=Value(number)) for number, condition in enumerate(series)]
            rows = rows.annotate(series=Case(*whens, default=Value(-1), output_field=IntegerField()))
        summed = {f"sum_{name}": Sum(name, default=0) for name in SUMMED}
        for line in rows.values(*columns).order_by().annotate(**counts, **summed):
            group = tuple(line[column] for column in columns)
            these = Sums(line["sum_requests"], line["sum_errors"], *(line[f"sum_{name}"] for name in SUMMED))
            sums[group] = sums[group] + these if group in sums else these

    with scope(organization=organization):
        rollups = UsageRollup.objects.filter(
            where, organization=organization, hour__gte=_hour_floor(start), hour__lt=end
        ).exclude(hour__in=divided)
        collect(
            _annotated(rollups, "hour", by, bounds),
            {"sum_requests": Sum("requests", default=0), "sum_errors": Sum("errors", default=0)},
        )
        if divided:
            pieces = Q()
            for hour in divided:
                pieces |= Q(started_at__gte=max(hour, start), started_at__lt=min(hour + HOUR, end))
            events = UsageEvent.objects.filter(where & pieces, organization=organization)
            collect(
                _annotated(events, "started_at", by, bounds),
                {
                    "sum_requests": Count("request_id"),
                    "sum_errors": Count("request_id", filter=Q(status__gte=ERROR_STATUS)),
                },
            )
    # A sum over nothing is one empty line.
    return {group: line for group, line in sums.items() if line.requests}


def pending_hours(organization: Organization, start: datetime, end: datetime) -> int:
    """How many hours of ``[start, end)`` have requests that the rollups do not hold yet."""
    with scope(organization=organization):
        return (
            DirtyBucket.objects.filter(organization=organization, hour__gte=_hour_floor(start), hour__lt=end)
            .values("hour")
            .distinct()
            .count()
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
            return replace(row, key=f"end_user:{end_user}", detail="End user")
        unnamed = Q(end_user="")
        if member_id is not None:
            row = _named("member", (member_id,), names, sums)
            filters = {**row.filters, "end_user": NOBODY}
            condition = unnamed & Q(member_id=member_id)
            return replace(
                row, key=f"member:{member_id}", detail="Key owner", filters=filters, condition=condition
            )
        row = _named("key", (key_id,), names, sums)
        condition = unnamed & Q(member_id=None, key_id=key_id)
        filters = {**row.filters, "end_user": NOBODY}
        return replace(
            row, key=f"key:{key_id}", detail="Key without owner", filters=filters, condition=condition
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
    return Row("" if value is None else str(value), label, detail, sums, filters, condition)


def cost_report(
    organization: Organization,
    by: Dimension,
    start: datetime,
    end: datetime,
    where: Q | None = None,
) -> Report:
    """The usage of ``organization`` in ``[start, end)`` (aware moments), one row for each ``by``.

    ``where`` is a condition on ``team_id``, ``key_id``, ``member_id``, ``end_user``, ``model_group`` and
    ``deployment``. A report by day has a row for each day, also where nothing was used; an hour is one
    of UTC, labelled in the organization's zone. Raises ``ValueError`` for another dimension.
    """
    if by not in DIMENSIONS:
        raise ValueError(f"{by!r} is no dimension; use one of {', '.join(DIMENSIONS)}.")
    condition = where or Q()
    rows: list[Row] = []
    if by == "day":
        days = days_of(organization, start, end)
        firsts = [first for _, first in days]
        found = _grouped(organization, by, start, end, where=condition, bounds=firsts)
        for number, (day, _) in enumerate(days, start=1):
            window = {"from": day.isoformat(), "to": day.isoformat()}
            rows.append(
                Row(day.isoformat(), day.isoformat(), f"{day:%A}", found.get((number,), Sums()), window)
            )
    elif by == "hour":
        count = max(0, -((_hour_floor(start) - end) // HOUR))
        hours = [_hour_floor(start) + HOUR * number for number in range(count)]
        found = _grouped(organization, by, start, end, where=condition, bounds=hours)
        for (number,), sums in sorted(found.items()):
            hour = hours[number - 1]
            rows.append(Row(hour.isoformat(), _hour_label(hour, organization.time_zone), "", sums, {}))
    else:
        names = names_of(organization) if by in ("user", "member", "key", "team") else Names({}, {}, {})
        found = _grouped(organization, by, start, end, where=condition)
        rows = [_named(by, group, names, sums) for group, sums in found.items()]
        rows.sort(key=lambda row: (-row.sums.charge, -row.sums.requests, row.label, row.key))
    return Report(
        by=by,
        start=start,
        end=end,
        time_zone=organization.time_zone,
        rows=rows,
        totals=total(row.sums for row in rows),
        pending_hours=pending_hours(organization, start, end),
    )


def daily_series(
    organization: Organization, start: datetime, end: datetime, series: Sequence[Row], where: Q | None = None
) -> list[tuple[date, list[Sums]]]:
    """For each day, the sums of each row of ``series`` and, at last, of everything else.

    ``series`` are rows of a report over the same time that is no report of times.
    """
    days = days_of(organization, start, end)
    found = _grouped(
        organization,
        "day",
        start,
        end,
        where=where or Q(),
        bounds=[first for _, first in days],
        series=[row.condition for row in series if row.condition is not None],
    )
    return [
        (day, [found.get((number, place), Sums()) for place in (*range(len(series)), -1)])
        for number, (day, _) in enumerate(days, start=1)
    ]


def totals_for(organization: Organization, start: datetime, end: datetime, where: Q | None = None) -> Sums:
    """One sum of everything in ``[start, end)`` that ``where`` allows."""
    return total(_grouped(organization, "", start, end, where=where or Q()).values())


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
    return cost_report(organization, by, start, end, where).rows[:count]


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
    start, end = period_bounds("month", at or timezone.now(), organization.time_zone)
    if end is None:
        raise ValueError("A month has an end.")
    found = _grouped(organization, by, start, end, where=where or Q())
    return {group[0]: sums for group, sums in found.items() if group[0] is not None}
