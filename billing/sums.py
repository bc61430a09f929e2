"""Sums of usage over a time, by any columns: from the sums of months and days where they are kept, from
the hours elsewhere, and from the requests themselves where an hour is divided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import connection, transaction
from django.db.models import Case, DateTimeField, F, Func, IntegerField, Q, QuerySet, Sum, Value, When
from django_scopes import scope

from billing import spans
from billing.models import UsageEvent, UsageRollup, UsageSpanSum
from billing.money import EXACT
from tenants.models import Organization

HOUR = timedelta(hours=1)
ZERO = Decimal(0)
ERROR_STATUS = 400

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
    # By the number of the day too, of the days that ``bounds`` begin.
    "end_user_day": ("end_user", "bucket"),
}
# Slices of the spans with thousands of groups, and an index for a few of them.
LARGE_SLICES = ("key", "user")
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

    def __sub__(self, other: Sums) -> Sums:
        return Sums(
            self.requests - other.requests,
            self.errors - other.errors,
            self.input_tokens - other.input_tokens,
            self.cached_input_tokens - other.cached_input_tokens,
            self.cache_write_tokens - other.cache_write_tokens,
            self.output_tokens - other.output_tokens,
            self.reasoning_tokens - other.reasoning_tokens,
            EXACT.subtract(self.cost, other.cost),
            EXACT.subtract(self.charge, other.charge),
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
    every = list(sums)
    if not every:
        return Sums()
    counts = [sum([getattr(each, name) for each in every]) for name in SUM_FIELDS[:-2]]
    amounts = [reduce(EXACT.add, [getattr(each, name) for each in every]) for name in SUM_FIELDS[-2:]]
    return Sums(*counts, *amounts)


def hour_floor(moment: datetime) -> datetime:
    """The beginning of the UTC hour of ``moment``."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _annotated(rows: QuerySet[Any], time_column: str, by: str, bounds: Sequence[datetime]) -> QuerySet[Any]:
    """``rows`` with the computed grouping columns of ``by``."""
    annotated = rows
    if by == "user" and time_column.startswith("span"):
        annotated = rows.annotate(user_member_id=F("member_id"), user_key_id=F("key_id"))
    elif by == "user":
        named = ~Q(end_user="")
        annotated = rows.annotate(
            user_member_id=Case(When(named, then=None), default=F("member_id")),
            user_key_id=Case(
                When(named | Q(member_id__isnull=False), then=None),
                default=F("key_id"),
            ),
        )
    elif by in ("month", "day", "hour", "end_user_day"):
        annotated = rows.annotate(
            bucket=Func(
                F(time_column),
                Value(list(bounds), output_field=ArrayField(DateTimeField())),
                function="width_bucket",
                output_field=IntegerField(),
            )
        )
    return annotated


def grouped(
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
    them, and around ``start`` and ``end``, are read request by request. At most four queries. With
    ``series``, groups are divided further by the number of the first condition met, -1 where none is.
    """
    if end <= start:
        return {}
    columns = _columns(by, series)
    sums: dict[tuple[Any, ...], Sums] = {}
    with scope(organization=organization), snapshot():
        for found in sources(organization, by, start, end, where, bounds, series):
            for line in found:
                group, these = line[: len(columns)], Sums(*line[len(columns) :])
                sums[group] = sums[group] + these if group in sums else these
    # A sum over nothing is one empty line.
    return {group: line for group, line in sums.items() if line.requests}


def dearest(
    organization: Organization, by: str, start: datetime, end: datetime, *, where: Q, most: int
) -> tuple[dict[tuple[Any, ...], Sums], Sums, int]:
    """The ``most`` dearest groups of ``grouped``, by charge and then by requests; the sum of all others,
    and how many these are. PostgreSQL adds up and sorts, so that thousands of groups need not come here."""
    if end <= start:
        return {}, Sums(), 0
    with scope(organization=organization), snapshot(), connection.cursor() as cursor:
        parts: list[str] = []
        parameters: list[Any] = []
        for found in sources(organization, by, start, end, where, (), None, added_up=False):
            text, values = found.query.sql_with_params()
            parts.append(f"({text})")
            parameters += values
        if not parts:
            return {}, Sums(), 0
        groups = ", ".join(f"g{number}" for number in range(len(COLUMNS[by])))
        part = f"part ({groups}, {', '.join(SUM_FIELDS)}) AS ({' UNION ALL '.join(parts)})"
        if _slice(by, where, ()) not in LARGE_SLICES:
            return _ranked(cursor, part, parameters, groups, most)
        # Only what ranks is added up of all of them.
        cursor.execute(
            f"""
            WITH {part} SELECT {groups}, count(*) OVER () FROM part GROUP BY {groups} HAVING sum(requests) > 0
            ORDER BY sum(charge) DESC, sum(requests) DESC, {groups} LIMIT %s
            """,  # noqa: S608  # names of ours, and text that Django made
            [*parameters, most],
        )
        lines = cursor.fetchall()
        if not lines:
            return {}, Sums(), 0
        named = [line[:-1] for line in lines]
        shown = grouped(organization, by, start, end, where=where & among(by, named))
        others = lines[0][-1] - len(lines)
        whole = total(grouped(organization, "", start, end, where=where).values()) if others else Sums()
    return shown, whole - total(shown.values()) if others else Sums(), others


def _ranked(
    cursor: Any, part: str, parameters: Sequence[Any], groups: str, most: int
) -> tuple[dict[tuple[Any, ...], Sums], Sums, int]:
    """The same in one statement, for rows that are dear to read or few."""
    nothing = ", ".join("NULL" for _ in groups.split(","))
    summed = ", ".join(f"sum({name}) AS {name}" for name in SUM_FIELDS)
    names = ", ".join(SUM_FIELDS)
    cursor.execute(
        f"""
        WITH {part},
        ranked AS (
            SELECT {groups}, {summed},
                row_number() OVER (ORDER BY sum(charge) DESC, sum(requests) DESC, {groups}) AS place
            FROM part GROUP BY {groups} HAVING sum(requests) > 0
        )
        SELECT 1, {groups}, {names} FROM ranked WHERE place <= %s
        UNION ALL SELECT count(*), {nothing}, {summed} FROM ranked WHERE place > %s
        """,  # noqa: S608  # as above
        [*parameters, most, most],
    )
    *lines, (others, *rest) = cursor.fetchall()
    width = len(groups.split(","))
    shown = {tuple(line[1 : 1 + width]): _sums(line[1 + width :]) for line in lines}
    return shown, _sums(rest[width:]) if others else Sums(), others


def among(by: str, groups: Iterable[tuple[Any, ...]]) -> Q:
    """The condition on usage rows to belong to one of ``groups`` of a report ``by``."""
    if by == "user":
        end_users, members, keys = [], [], []
        for end_user, member_id, key_id in groups:
            if end_user:
                end_users.append(end_user)
            elif member_id is not None:
                members.append(member_id)
            else:
                keys.append(key_id)
        return (
            Q(end_user__in=end_users)
            | Q(end_user="", member_id__in=members)
            | Q(end_user="", member_id=None, key_id__in=keys)
        )
    (column,), values = COLUMNS[by], {group[0] for group in groups}
    known = Q((f"{column}__in", sorted(values - {None})))
    return known | Q((column, None)) if None in values else known


def _sums(figures: Sequence[Any]) -> Sums:
    """PostgreSQL's sums of integers, which are decimals there, and of amounts."""
    exact: list[Any] = [int(figure) for figure in figures[:-2]]
    return Sums(*exact, *figures[-2:])


def _columns(by: str, series: Sequence[Q] | None) -> tuple[str, ...]:
    columns = COLUMNS.get(by, ("bucket",) if by else ())
    return columns if series is None else (*columns, "series")


def sources(
    organization: Organization,
    by: str,
    start: datetime,
    end: datetime,
    where: Q,
    bounds: Sequence[datetime],
    series: Sequence[Q] | None,
    *,
    added_up: bool = True,
) -> Iterator[QuerySet[Any]]:
    """The queries whose lines, the columns of the group and then its sums, together make up the time. Without
    ``added_up`` they have a line for each row there is, for a statement that adds them up together."""
    columns = _columns(by, series)
    divided = sorted({hour_floor(moment) for moment in (start, end, *bounds) if hour_floor(moment) != moment})

    def of(rows: QuerySet[Any], *counts: Any) -> QuerySet[Any]:
        if series is not None:
            whens = [When(condition, then=Value(number)) for number, condition in enumerate(series)]
            rows = rows.annotate(series=Case(*whens, default=Value(-1), output_field=IntegerField()))
        if not added_up:
            each: QuerySet[Any] = rows.order_by().values_list(*columns, *counts, *SUMMED)
            return each
        measures = dict(zip(SUM_FIELDS, (*counts, *map(F, SUMMED)), strict=True))
        summed = {f"sum_{name}": Sum(measure, default=0) for name, measure in measures.items()}
        # Without a column, values() would group by all of them: one line for each row there is.
        grouped: Any = rows.order_by().annotate(whole=Value(0)).values(*(columns or ("whole",)))
        found: QuerySet[Any] = grouped.annotate(**summed).values_list(*columns, *summed)
        return found

    chosen = _slice(by, where, series or ())
    kept = spans.cover(organization, start, end, bounds) if chosen else spans.NOTHING
    if kept.ids:
        rows = UsageSpanSum.objects.filter(where, span_id__in=kept.ids, slice=chosen)
        yield of(_annotated(rows, "span__start", by, bounds), F("requests"), F("errors"))
    if gaps := gaps_of(hour_floor(start), end, kept.parts):
        within = Q()
        for first, after in gaps:
            within |= Q(hour__gte=first, hour__lt=after)
        rollups = UsageRollup.objects.filter(where & within, organization=organization)
        rollups = rollups.exclude(hour__in=divided)
        yield of(_annotated(rollups, "hour", by, bounds), F("requests"), F("errors"))
    if divided:
        pieces = Q()
        for hour in divided:
            pieces |= Q(started_at__gte=max(hour, start), started_at__lt=min(hour + HOUR, end))
        events = UsageEvent.objects.filter(where & pieces, organization=organization)
        failed = Case(When(status__gte=ERROR_STATUS, then=1), default=0, output_field=IntegerField())
        yield of(_annotated(events, "started_at", by, bounds), Value(1), failed)


@contextmanager
def snapshot() -> Iterator[None]:
    """Queries that see the same state, unless a transaction of the caller's is under way already."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def gaps_of(
    start: datetime, end: datetime, parts: Sequence[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime]]:
    """What of ``[start, end)`` is in none of ``parts``, which are in order and do not overlap."""
    gaps = []
    for first, until in parts:
        if start < first:
            gaps.append((start, first))
        start = until
    if start < end:
        gaps.append((start, end))
    return gaps


def _slice(by: str, where: Q, series: Sequence[Q]) -> str | None:
    """The smallest slice of the spans that can answer, None where only the hours can."""
    named = {"member": {"member_id"}, "user": {"end_user"}, "end_user_day": {"end_user"}}
    asked = named.get(by) or set(COLUMNS.get(by, ()))
    if by == "hour":
        return None
    used = _columns_in(where)
    for each in series:
        used |= _columns_in(each)
    for name in ("model", "key"):
        if by != "user" and asked | used <= set(spans.SLICES[name]):
            return name
    if asked <= {"end_user"} and all(_by_user(each) for each in (where, *series)):
        return "user"
    return None


def _by_user(condition: Q) -> bool:
    """Whether the slice of users can tell: requests for an end user have neither member nor key there, and
    those of a member no key."""
    columns = _columns_in(condition)
    if columns <= {"end_user"}:
        return True
    if condition.negated:
        return False
    if condition.connector == Q.AND and ("end_user", "") in condition.children:
        whole = ("member_id", None) in condition.children
        return columns <= {"end_user", "member_id"} | ({"key_id"} if whole else set())
    return all(
        _by_user(child) if isinstance(child, Q) else _columns_in(Q(child)) <= {"end_user"}
        for child in condition.children
    )


def _columns_in(condition: Q) -> set[str]:
    """The columns that ``condition`` speaks of; "?" for what is no plain look-up."""
    found: set[str] = set()
    for child in condition.children:
        if isinstance(child, Q):
            found |= _columns_in(child)
        elif isinstance(child, tuple):
            found.add(child[0].split("__")[0])
        else:
            found.add("?")
    return found
