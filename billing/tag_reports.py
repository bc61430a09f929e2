"""What was used and what it cost by a tag of the requests: ``by=tag:feature`` has a row for each value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from django.db.models import Count, F, Func, Q, QuerySet, Sum, TextField, Value
from django_scopes import scope

from billing.models import TagRollup, TagValue, UsageEvent
from billing.reports import DIMENSIONS, Dimension, Report, Row, cost_report, pending_hours
from billing.sums import ERROR_STATUS, HOUR, SUMMED, Sums, grouped, hour_floor, snapshot, total
from tenants.access import TenantAccess
from tenants.models import Organization
from tenants.permissions import Permission

# What stands before the name of a tag where a dimension is asked for.
TAG = "tag:"
_BY = re.compile(r"tag:[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
# The keys of rows: of a value, and of the requests without the tag.
_VALUE, _WITHOUT = "value:", "none"
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
        values = _by_value(organization, name, start, end, condition)
        whole = total(grouped(organization, "", start, end, where=condition).values())
    beyond = values.pop("", Sums())
    rows = [Row(f"{_VALUE}{value}", value, "", sums, {}) for value, sums in values.items()]
    rows.sort(key=lambda row: (-row.sums.charge, -row.sums.requests, row.label))
    folded = rows[most:] if most is not None else []
    rows = rows[: len(rows) - len(folded)]
    if beyond.requests:
        rows.append(Row("beyond", "Further values", "Beyond what a tag may have", beyond, {}))
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


def _by_value(
    organization: Organization, name: str, start: datetime, end: datetime, where: Q
) -> dict[str, Sums]:
    """Sums by the values of the tag ``name``; under "" those of values that are not known by themselves."""
    if end <= start:
        return {}
    divided = sorted({hour_floor(moment) for moment in (start, end) if hour_floor(moment) != moment})
    hours = TagRollup.objects.filter(
        where, organization=organization, name=name, hour__gte=hour_floor(start), hour__lt=end
    ).exclude(hour__in=divided)
    counts = {"sum_requests": Sum("requests", default=0), "sum_errors": Sum("errors", default=0)}
    found: dict[str, Sums] = {}
    _add(found, hours.annotate(tag=F("value")), counts, None)
    known_values = set(
        TagValue.objects.filter(organization=organization, name=name).values_list("value", flat=True)
    )
    if divided and known_values:
        pieces = Q()
        for hour in divided:
            pieces |= Q(started_at__gte=max(hour, start), started_at__lt=min(hour + HOUR, end))
        events = UsageEvent.objects.filter(
            where & pieces, organization=organization, tags__has_key=name
        ).annotate(
            # A look-up of Django's would take a name of digits for a place in a list.
            tag=Func(F("tags"), Value(name), function="jsonb_extract_path_text", output_field=TextField())
        )
        of_events = {
            "sum_requests": Count("request_id"),
            "sum_errors": Count("request_id", filter=Q(status__gte=ERROR_STATUS)),
        }
        _add(found, events, of_events, known_values)
    return {value: sums for value, sums in found.items() if sums.requests}


def _add(
    found: dict[str, Sums], rows: QuerySet[Any], counts: Mapping[str, Any], known_values: set[str] | None
) -> None:
    """Add the sums of ``rows`` by their column ``tag``, whose values may be narrowed to those known."""
    summed = {f"sum_{name}": Sum(name, default=0) for name in SUMMED}
    grouped_rows: Any = rows.order_by().values("tag")
    lines = grouped_rows.annotate(**counts, **summed).values_list("tag", *counts, *summed)
    for value, *figures in lines:
        name = value if known_values is None or value in known_values else ""
        found[name] = found.get(name, Sums()) + Sums(*figures)


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
