"""Reads of end users: who they are, what each spent, when each was here last. Every getter takes the tenant.

An end user is whom a request names (``gateway.v1.facts.end_user_of``). There is no table of them: they are
known by their usage, by a limit of their own, or because they are blocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from django.db import connection
from django.db.models import Q
from django_scopes import scope

from billing.models import BlockedEndUser, Quota
from billing.reports import days_of
from billing.sums import SUM_FIELDS, Sums, snapshot, sources
from tenants.models import Organization

# What a list is sorted by, and the expression: greatest first, but for the name.
SORTS = {"charge": "charge", "requests": "requests", "name": ""}
STANDINGS = ("blocked", "limited")
_NAMED = """
    SELECT end_user, {zeros} FROM billing_blockedenduser WHERE organization_id = %(organization)s
    UNION ALL
    SELECT end_user, {zeros} FROM billing_quota
    WHERE organization_id = %(organization)s AND scope = 'end_user' AND end_user <> ''
"""
_WITH_STANDING = {
    "blocked": "EXISTS (SELECT FROM billing_blockedenduser b"
    " WHERE b.organization_id = %(organization)s AND b.end_user = known.end_user)",
    "limited": "EXISTS (SELECT FROM billing_quota q WHERE q.organization_id = %(organization)s"
    " AND q.scope = 'end_user' AND q.end_user = known.end_user)",
}


class BadPlace(ValueError):
    """A place in a list that is none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which end users a list has. ``named`` adds those without usage in its time that are blocked or have
    limits of their own; ``standing`` is one of STANDINGS, or empty for all."""

    start: datetime
    end: datetime
    where: Q
    sort: str = "charge"
    search: str = ""
    standing: str = ""
    named: bool = True


@dataclass(frozen=True, slots=True)
class EndUser:
    """One end user and what was used for them in the time asked for. ``place`` is what the list's next page
    begins after."""

    end_user: str
    sums: Sums
    place: str


def end_users(
    organization: Organization, asked: Asked, *, after: str = "", size: int | None = None
) -> list[EndUser]:
    """At most ``size`` end users of ``organization`` (None: all) beyond the place ``after``.

    Two queries, however many there are. Raises ``BadPlace``.
    """
    with scope(organization=organization), snapshot(), connection.cursor() as cursor:
        parts, values = _parts(organization, "end_user", asked.start, asked.end, asked.where)
        columns = ("end_user", *SUM_FIELDS)
        conditions, more = _conditions(organization, asked, after)
        # Django's own text has its parameters by place, so the others are given likewise.
        named, of_named = _by_place(
            _NAMED.format(zeros=", ".join("0" for _ in columns[1:])), {"organization": organization.pk}
        )
        if asked.named or not parts:
            parts.append(f"({named}{'' if asked.named else ' LIMIT 0'})")
            values += of_named
        summed = ", ".join(f"sum({name}) AS {name}" for name in SUM_FIELDS)
        key = SORTS[asked.sort]
        cursor.execute(
            f"""
            WITH part ({", ".join(columns)}) AS ({" UNION ALL ".join(parts)}),
            known AS (SELECT end_user, {summed} FROM part GROUP BY end_user)
            SELECT {", ".join(columns)} FROM known WHERE {conditions}
            ORDER BY {f"{key} DESC, " if key else ""}end_user COLLATE "C" LIMIT %s
            """,  # noqa: S608  # names of ours, and text that Django made
            [*values, *more, size],
        )
        rows = cursor.fetchall()
    return [_end_user(row, asked.sort) for row in rows]


def _end_user(row: Sequence[Any], sort: str) -> EndUser:
    end_user, *figures = row
    exact: list[Any] = [int(figure) for figure in figures[:-2]]
    sums = Sums(*exact, *figures[-2:])
    key = {"charge": sums.charge, "requests": sums.requests, "name": ""}[sort]
    return EndUser(end_user, sums, f"{key}~{end_user}")


def _conditions(organization: Organization, asked: Asked, after: str) -> tuple[str, list[Any]]:
    """What a line must fulfil to be in the list, and the parameters of that, by place."""
    found, values = ["true"], list[Any]()
    if asked.search:
        found.append("strpos(lower(end_user), lower(%s)) > 0")
        values.append(asked.search)
    if asked.standing:
        text, more = _by_place(_WITH_STANDING[asked.standing], {"organization": organization.pk})
        found.append(text)
        values += more
    if after:
        key = SORTS[asked.sort]
        value, _, end_user = after.partition("~")
        if not key:
            found.append('end_user > %s COLLATE "C"')
            values.append(end_user)
        else:
            number = _number(value)
            found.append(f'({key} < %s OR ({key} = %s AND end_user > %s COLLATE "C"))')
            values += [number, number, end_user]
    return " AND ".join(found), values


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise BadPlace("after: this is no place in the list.")
    return number


def _by_place(text: str, values: dict[str, Any]) -> tuple[str, list[Any]]:
    """A statement whose parameters have a name, with its parameters by place."""
    (name, value), *_ = values.items()
    marked = f"%({name})s"
    return text.replace(marked, "%s"), [value] * text.count(marked)


def last_days(
    organization: Organization, start: datetime, end: datetime, where: Q, names: Iterable[str] | None = None
) -> dict[str, date]:
    """On which day of ``[start, end)``, by the organization's calendar, each end user was here last; of
    ``names`` alone, if they are given."""
    if names is not None:
        wanted = list(names)
        if not wanted:
            return {}
        where = where & Q(end_user__in=wanted)
    days = days_of(organization, start, end)
    bounds = [first for _, first in days]
    with scope(organization=organization), snapshot(), connection.cursor() as cursor:
        parts, values = _parts(organization, "end_user_day", start, end, where, bounds)
        if not parts:
            return {}
        columns = ", ".join(("end_user", "bucket", *SUM_FIELDS))
        cursor.execute(
            f"WITH part ({columns}) AS ({' UNION ALL '.join(parts)})"  # noqa: S608  # as above
            " SELECT end_user, max(bucket) FROM part WHERE requests > 0 GROUP BY end_user",
            values,
        )
        return {end_user: days[number - 1][0] for end_user, number in cursor.fetchall()}


def _parts(
    organization: Organization,
    by: str,
    start: datetime,
    end: datetime,
    where: Q,
    bounds: Sequence[datetime] = (),
) -> tuple[list[str], list[Any]]:
    """The queries that together have what was used for end users in ``[start, end)``, and their parameters."""
    parts: list[str] = []
    values: list[Any] = []
    if start < end:
        for found in sources(
            organization, by, start, end, where & Q(end_user__gt=""), bounds, None, added_up=False
        ):
            text, parameters = found.query.sql_with_params()
            parts.append(f"({text})")
            values += parameters
    return parts, values


def blocked_end_users(
    organization: Organization, names: Iterable[str] | None = None
) -> dict[str, BlockedEndUser]:
    """The end users that are blocked, with who did it; of ``names`` alone, if they are given."""
    with scope(organization=organization):
        found = BlockedEndUser.objects.select_related("blocked_by").filter(organization=organization)
        if names is not None:
            found = found.filter(end_user__in=list(names))
        return {row.end_user: row for row in found}


def limited_end_users(organization: Organization) -> set[str]:
    """Those who have limits of their own."""
    with scope(organization=organization):
        own = Quota.objects.filter(scope="end_user").exclude(end_user="")
        return set(own.values_list("end_user", flat=True))


def limits_of_end_users(organization: Organization, names: Iterable[str]) -> list[Quota]:
    """The quotas of ``names`` alone, and the default of all end users."""
    with scope(organization=organization):
        wanted = Quota.objects.filter(scope="end_user", end_user__in=["", *names])
        return list(wanted.order_by("pk"))


def binding_limits(quotas: Iterable[Quota], end_user: str) -> list[Quota]:
    """Of an organization's quotas on end users, those that bind requests for ``end_user``.

    As admission has it: one's own budgets replace the default ones, and one's own rates the default rates;
    all models and each model group apart.
    """
    by_kind: dict[tuple[bool, str], tuple[list[Quota], list[Quota]]] = {}
    for quota in quotas:
        default, own = by_kind.setdefault((quota.metric == "budget", quota.model_group), ([], []))
        if quota.end_user == end_user:
            own.append(quota)
        elif not quota.end_user:
            default.append(quota)
    return [quota for default, own in by_kind.values() for quota in own or default]
