"""Sums of usage over a time by the values of a tag: from the sums of months and days where they are kept, from
the hours elsewhere, and from the requests themselves where an hour is divided."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import (
    Case,
    Count,
    DateTimeField,
    Expression,
    F,
    Func,
    IntegerField,
    Q,
    QuerySet,
    Sum,
    TextField,
    Value,
    When,
)

from billing import spans
from billing.models import TagRollup, TagSpanSum, TagValue, UsageEvent
from billing.sums import ERROR_STATUS, HOUR, SUMMED, Sums, gaps_of, hour_floor
from tenants.models import Organization

# By value ("" for those that are not known by themselves, None for those that were not asked for) and number
# of the part of time, from 1.
Found = dict[tuple[str | None, int], Sums]


def by_value(
    organization: Organization,
    name: str,
    start: datetime,
    end: datetime,
    where: Q,
    *,
    bounds: Sequence[datetime] = (),
    only: Collection[str] | None = None,
) -> Found:
    """Sums of ``[start, end)`` by the values of the tag ``name`` and the parts that ``bounds`` begin, in order;
    without any, all is part 1. With ``only``, other values than these are one. Call it in the organization's
    scope, and for one state in a snapshot."""
    if end <= start:
        return {}
    bounds = bounds or (start,)
    divided = sorted({hour_floor(moment) for moment in (start, end, *bounds) if hour_floor(moment) != moment})
    counts = {"sum_requests": Sum("requests", default=0), "sum_errors": Sum("errors", default=0)}
    found: Found = {}
    kept = spans.cover(organization, start, end, bounds, tagged=True)
    if kept.ids:
        of_spans = TagSpanSum.objects.filter(where, span_id__in=kept.ids, name=name)
        _add(found, of_spans.annotate(tag=_value(only), part=_part("span__start", bounds)), counts)
    if gaps := gaps_of(hour_floor(start), end, kept.parts):
        within = Q()
        for first, after in gaps:
            within |= Q(hour__gte=first, hour__lt=after)
        hours = TagRollup.objects.filter(where & within, organization=organization, name=name)
        hours = hours.exclude(hour__in=divided)
        _add(found, hours.annotate(tag=_value(only), part=_part("hour", bounds)), counts)
    if divided:
        of_requests: Found = {}
        _add_requests(of_requests, organization, name, (start, end), where, bounds, divided)
        for (value, part), sums in of_requests.items():
            place = (value if only is None or value in only else None, part)
            found[place] = found.get(place, Sums()) + sums
    return {place: sums for place, sums in found.items() if sums.requests}


def _value(only: Collection[str] | None) -> Expression | F:
    if only is None:
        return F("value")
    return Case(When(value__in=list(only), then=F("value")), default=None, output_field=TextField())


def _part(column: str, bounds: Sequence[datetime]) -> Expression:
    return Func(
        F(column),
        Value(list(bounds), output_field=ArrayField(DateTimeField())),
        function="width_bucket",
        output_field=IntegerField(),
    )


def _add_requests(
    found: Found,
    organization: Organization,
    name: str,
    time: tuple[datetime, datetime],
    where: Q,
    bounds: Sequence[datetime],
    divided: Sequence[datetime],
) -> None:
    """Add the requests of the hours ``divided``, one by one."""
    known = TagValue.objects.filter(organization=organization, name=name).values_list("value", flat=True)
    if not (values := set(known)):
        return
    pieces = Q()
    for hour in divided:
        pieces |= Q(started_at__gte=max(hour, time[0]), started_at__lt=min(hour + HOUR, time[1]))
    events = UsageEvent.objects.filter(
        where & pieces, organization=organization, tags__has_key=name
    ).annotate(
        # A look-up of Django's would take a name of digits for a place in a list.
        tag=Func(F("tags"), Value(name), function="jsonb_extract_path_text", output_field=TextField()),
        part=_part("started_at", bounds),
    )
    of_events = {
        "sum_requests": Count("request_id"),
        "sum_errors": Count("request_id", filter=Q(status__gte=ERROR_STATUS)),
    }
    _add(found, events, of_events, values)


def _add(found: Found, rows: QuerySet[Any], counts: Mapping[str, Any], known: set[str] | None = None) -> None:
    """Add the sums of ``rows`` by their columns ``tag`` and ``part``; values may be narrowed to those known."""
    summed = {f"sum_{name}": Sum(name, default=0) for name in SUMMED}
    grouped_rows: Any = rows.order_by().values("tag", "part")
    lines = grouped_rows.annotate(**counts, **summed).values_list("tag", "part", *counts, *summed)
    for value, part, *figures in lines:
        place = (value if known is None or value in known else "", part)
        found[place] = found.get(place, Sums()) + Sums(*figures)
