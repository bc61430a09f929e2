"""What was used and what it cost by a tag of the requests: ``by=tag:feature`` has a row for each value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal, cast

from django.db.models import Q
from django_scopes import scope

from billing.models import TagValue
from billing.reports import (
    DIMENSIONS,
    Dimension,
    Report,
    Row,
    cost_report,
    daily_series,
    days_of,
    months_of,
    pending_hours,
)
from billing.sums import Sums, grouped, snapshot, total
from billing.tag_sums import by_value
from tenants.access import TenantAccess
from tenants.models import Organization
from tenants.permissions import Permission

# What stands before the name of a tag where a dimension is asked for.
TAG = "tag:"
_BY = re.compile(r"tag:[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
# The keys of rows: of a value, of values that are not known by themselves, of the requests without the tag.
_VALUE, _BEYOND, _WITHOUT = "value:", "beyond", "none"
# The sums by tag are kept by these columns of usage.
COLUMNS = {"team_id", "model_group"}


class NotByTag(ValueError):
    """Usage narrowed in a way that the sums by tag do not know; fit to be shown."""


def known(by: str, *, operator: bool = False) -> bool:
    """Whether a report can be divided ``by``; by deployment for operators only."""
    return _BY.fullmatch(by) is not None or (by in DIMENSIONS and (operator or by != "deployment"))


def tag_names(organization: Organization) -> list[str]:
    """The names of tags that the organization's requests have had, in order."""
    with scope(organization=organization):
        found = TagValue.objects.filter(organization=organization).values_list("name", flat=True)
        return sorted(set(found.distinct()))


def visible_by_tag(access: TenantAccess) -> Q:
    """The usage that ``access`` may see by tag: all, or that of the teams whose usage is theirs to see."""
    teams = access.teams_with(Permission.VIEW_USAGE)
    return Q() if teams is None else Q(team_id__in=teams)


def report_of(
    organization: Organization,
    by: str,
    start: datetime,
    end: datetime,
    where: Q | None = None,
    *,
    most: int | None = None,
) -> Report:
    """``billing.reports.cost_report``, also by a tag. Raises ``NotByTag``, and ``ValueError`` for what is no
    dimension."""
    if not by.startswith(TAG):
        return cost_report(organization, cast(Dimension, by), start, end, where, most=most)
    condition = where or Q()
    if unknown := _columns(condition) - COLUMNS:
        names = ", ".join(sorted(name.removesuffix("_id").replace("_", " ") for name in unknown))
        raise NotByTag(f"by: usage by tag can be narrowed by team and model, not by {names}.")
    name = by.removeprefix(TAG)
    with scope(organization=organization), snapshot():
        found = by_value(organization, name, start, end, condition)
        whole = total(grouped(organization, "", start, end, where=condition).values())
    values = {value: sums for (value, _), sums in found.items() if value is not None}
    beyond = values.pop("", Sums())
    rows = [Row(f"{_VALUE}{value}", value, "", sums, {}) for value, sums in values.items()]
    rows.sort(key=lambda row: (-row.sums.charge, -row.sums.requests, row.label))
    folded = rows[most:] if most is not None else []
    rows = rows[: len(rows) - len(folded)]
    if beyond.requests:
        rows.append(Row(_BEYOND, "Further values", "Beyond what a tag may have", beyond, {}))
    untagged = whole - total(values.values()) - beyond
    if untagged.requests:
        rows.append(Row(_WITHOUT, "Without this tag", "", untagged, {}))
    if folded:
        rows.append(Row("", f"{len(folded):,} others", "", total(row.sums for row in folded), {}))
    return Report(
        by=by,
        start=start,
        end=end,
        time_zone=organization.time_zone,
        rows=rows,
        totals=total(row.sums for row in rows),
        pending_hours=pending_hours(organization, start, end),
        folded=len(folded),
    )


def value_of(row: Row) -> str | None:
    """The value that a row of a report by tag stands for, "" for the requests without the tag; None for rows
    of several values."""
    if row.key == _WITHOUT:
        return ""
    return row.key.removeprefix(_VALUE) if row.key.startswith(_VALUE) else None


def _value(row: Row) -> str:
    """The value that the sums have the row under; that of the requests without the tag is none of them."""
    return "" if row.key == _BEYOND else row.key.removeprefix(_VALUE)


def series_of(
    organization: Organization,
    by: str,
    start: datetime,
    end: datetime,
    series: Sequence[Row],
    where: Q | None = None,
    *,
    step: Literal["day", "month"] = "day",
) -> list[tuple[date, list[Sums]]]:
    """``billing.reports.daily_series``, also of rows of a report by a tag."""
    if not by.startswith(TAG):
        return daily_series(organization, start, end, series, where, by=step)
    condition, name = where or Q(), by.removeprefix(TAG)
    parts = (days_of if step == "day" else months_of)(organization, start, end)
    bounds = [first for _, first in parts]
    with scope(organization=organization), snapshot():
        values = by_value(
            organization, name, start, end, condition, bounds=bounds, only=[_value(row) for row in series]
        )
        wholes = grouped(organization, step, start, end, where=condition, bounds=bounds)
    tagged: dict[int, list[Sums]] = {}
    for (_, part), sums in values.items():
        tagged.setdefault(part, []).append(sums)
    found = []
    for part, (day, _) in enumerate(parts, start=1):
        whole = wholes.get((part,), Sums())
        lines = [
            whole - total(tagged.get(part, ()))
            if row.key == _WITHOUT
            else values.get((_value(row), part), Sums())
            for row in series
        ]
        found.append((day, [*lines, whole - total(lines)]))
    return found


def _columns(condition: Q) -> set[str]:
    """The columns of usage that ``condition`` speaks of."""
    found: set[str] = set()
    for child in condition.children:
        if isinstance(child, Q):
            found |= _columns(child)
        elif isinstance(child, tuple):
            found.add(child[0].split("__")[0])
        else:
            found.add("?")
    return found
