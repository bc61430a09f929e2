"""What was used and what it cost, by user, key, team, model and day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import zip_longest
from typing import Literal

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

from billing.access import Names, visible_to
from billing.money import EXACT
from billing.reports import (
    DIMENSIONS,
    NOBODY,
    Dimension,
    Report,
    Row,
    charges_of,
    cost_report,
)
from billing.sums import total
from billing.tag_reports import TAG, NotByTag, report_of, series_of, tag_names, value_of, visible_by_tag
from gateway.console import downloads
from gateway.console.access import TenantRequest, requires
from gateway.console.charts import Bar, bar_chart
from gateway.console.key_choice import choice, names_asked
from gateway.templatetags.console import money, number
from gateway.usage_query import BadQuery, UsageQuery, presets, read, today
from tenants.permissions import Permission

# Rows on the page; the CSV has all.
SHOWN = 100
SERIES = 5
MOST_DAYS = 93
# Days whose hours fit on a page.
MOST_DAYS_OF_HOURS = 3
TIMES = ("month", "day", "hour")
COLOURS = ("s1", "s2", "s3", "s4", "s5", "s6")


@dataclass(frozen=True, slots=True)
class Tab:
    """One way to divide a report."""

    by: str
    label: str
    # What a row is called.
    heading: str
    # Where the name of a row leads: the same usage, divided this way.
    deeper: Dimension
    explanation: str
    operators_only: bool = False


TABS = (
    Tab("user", "Users", "User", "model", "The end user a request named; otherwise the owner of its key."),
    Tab("member", "Key owners", "Key owner", "key", "The member each key belongs to."),
    Tab("end_user", "End users", "End user", "model", "Your own users, as your requests name them."),
    Tab("key", "Keys", "Key", "model", "Every API key, revoked ones too."),
    Tab("team", "Teams", "Team", "key", "The team each key belongs to."),
    Tab("model", "Models", "Model", "user", "The model a request asked for."),
    Tab("month", "Months", "Month", "day", "Months of the organization's calendar."),
    Tab("day", "Days", "Day", "user", "Days begin at midnight in the organization's time zone."),
    Tab("hour", "Hours", "Hour", "user", "Hours of UTC in which something was used, in local time."),
    Tab("deployment", "Deployments", "Deployment", "model", "What answered, or was tried last.", True),
)


def tab_of(request: TenantRequest, tabs: Sequence[Tab]) -> Tab:
    """Of ``tabs``, the one asked for; the first one of all where it is not among them."""
    asked = request.GET.get("by", "")
    return next((tab for tab in tabs if tab.by == asked), TABS[0])


def tabs_for(request: TenantRequest, query: UsageQuery) -> list[Tab]:
    """The tabs this person sees; the hours of a few days, the days of a few months."""
    length = (query.last - query.first).days
    too_long = {"hour": length >= MOST_DAYS_OF_HOURS, "day": length >= MOST_DAYS}
    return [
        tab
        for tab in TABS
        if (request.user.is_staff or not tab.operators_only) and not too_long.get(tab.by, False)
    ] + _tag_tabs(request)


def _tag_tabs(request: TenantRequest) -> list[Tab]:
    """One for each tag that requests have had, for whoever sees the usage of a team."""
    if request.tenant.teams_with(Permission.VIEW_USAGE) == []:
        return []
    explanation = "What clients gave in the header X-Weir-Tags. Each request has one value of a tag, or none."
    return [
        Tab(f"{TAG}{name}", f"Tag {name}", name, "model", explanation)
        for name in tag_names(request.tenant.organization)
    ]


def chips(query: UsageQuery, names: Names, *, kept: Mapping[str, str]) -> list[dict[str, str]]:
    """The filters in force, each with the query string of the page without it. ``kept`` stays in it."""
    shown = []
    for name, text in query.filters.items():
        value = text
        if name == "key" and text.isdigit():
            value = names.key(int(text))
        elif name == "member":
            value = "no owner" if text == "none" else names.member(int(text))
        elif name == "end_user" and text == NOBODY:
            value = "not named"
        shown.append(
            {
                "name": {"end_user": "End user", "member": "Key owner"}.get(name, name.capitalize()),
                "value": value,
                "without": query.parameters(**kept, **{name: ""}),
            }
        )
    return shown


@dataclass(frozen=True, slots=True)
class Change:
    """A charge beside that of the period before, in US dollars."""

    before: Decimal
    # Such as +12%; empty where nothing changed.
    text: str

    @classmethod
    def of(cls, now: Decimal, before: Decimal) -> Change:
        """What became of ``before``."""
        if now == before:
            return cls(before, "")
        if not before:
            return cls(before, "new")
        share = (now - before) / before
        if share >= 10:
            return cls(before, f"\N{MULTIPLICATION SIGN}{now / before:,.0f}")
        return cls(before, f"{share:+.0%}".replace("-", "\N{MINUS SIGN}"))


def _changes(query: UsageQuery, report: Report, where: Q) -> tuple[list[Change | None], Change]:
    """For each row, and for the whole, the change since the period before. Times are compared by their
    place, the sum of others with what the rows named have not."""
    start, end = query.before.bounds
    if report.by in DIMENSIONS and report.by not in TIMES:
        named = [row.key for row in report.rows[: len(report.rows) - bool(report.folded)]]
        return _of_groups(report, *charges_of(query.organization, report.by, named, start, end, where))
    earlier = report_of(query.organization, report.by, start, end, where)
    changes: list[Change | None] = []
    if report.by in ("month", "day"):
        charges = [row.sums.charge for row in earlier.rows]
        charges += [Decimal(0)] * max(0, len(report.rows) - len(charges))
        changes = [
            Change.of(row.sums.charge, charge) for row, charge in zip(report.rows, charges, strict=False)
        ]
    elif report.by == "hour":
        changes = [None] * len(report.rows)
    else:
        by_key = {row.key: row.sums.charge for row in earlier.rows}
        return _of_groups(report, by_key, earlier.totals.charge)
    return changes, Change.of(report.totals.charge, earlier.totals.charge)


def _of_groups(
    report: Report, before: dict[str, Decimal], whole: Decimal
) -> tuple[list[Change | None], Change]:
    """The same for lines that are no times, from what each was charged before by its key, and everything."""
    named, rest = report.rows[: len(report.rows) - bool(report.folded)], whole
    changes: list[Change | None] = []
    for row in named:
        earlier = before.get(row.key, Decimal(0))
        rest = EXACT.subtract(rest, earlier)
        changes.append(Change.of(row.sums.charge, earlier))
    if report.folded:
        changes.append(Change.of(report.rows[-1].sums.charge, rest))
    return changes, Change.of(report.totals.charge, whole)


def step_of(query: UsageQuery) -> Literal["day", "month"]:
    """What a bar of the chart stands for: a quarter's days can still be told apart."""
    return "day" if (query.last - query.first).days < MOST_DAYS else "month"


def _chart(
    query: UsageQuery, report: Report, where: Q
) -> tuple[str, list[tuple[str, str]], list[tuple[Row, str]]]:
    """The chart by day or month, its legend (colour, label), and its bars as rows for the table beside it,
    each with the address that the bar leads to: who has no pointer follows it from there."""
    step, (start, end) = step_of(query), query.bounds
    by_tag = report.by.startswith(TAG)
    named = [row for row in report.rows[:SERIES] if row.condition is not None or (by_tag and row.key)]
    series = [row for row in named if row.sums.charge > 0]
    days = series_of(query.organization, report.by, start, end, series, where, step=step)
    many = bool(series) and len(report.rows) > 1
    before: list[Decimal] = []
    if query.compare:
        earlier = cost_report(query.organization, step, *query.before.bounds, where)
        before = [row.sums.charge for row in earlier.rows]
    bars, rows = [], []
    for place, (day, sums) in enumerate(days):
        whole = total(sums)
        parts = [each.charge for each in sums] if many else [whole.charge]
        label = f"{day:%b %Y}" if step == "month" else f"{day:%-d %b}"
        lines = [f"{label}: {money(whole.charge)}, {number(whole.requests)} requests"]
        if many:
            labels = [*(row.label for row in series), "Others"]
            lines += [f"{label}: {money(part)}" for label, part in zip(labels, parts, strict=True) if part]
        last = day if step == "day" else (day + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        window = {"from": max(day, query.first).isoformat(), "to": min(last, query.last).isoformat()}
        href = f"?{query.parameters(by='user' if report.by in TIMES else report.by, **window)}"
        charge_before = before[place] if place < len(before) else None
        if charge_before is not None:
            lines.append(f"Before: {money(charge_before)}")
        bars.append(Bar(label, "\n".join(lines), parts, href, charge_before))
        rows.append((Row(day.isoformat(), label, "", whole, {}), href))
    # The sixth colour is grey: all the others.
    colours = (*COLOURS[: len(series)], COLOURS[-1]) if many else COLOURS
    legend = []
    if many:
        legend = [(COLOURS[number], row.label) for number, row in enumerate(series)]
        if any(sums[-1].charge > 0 for _, sums in days):
            legend.append((COLOURS[-1], "Others"))
    if query.compare:
        legend.append(("before", "The period before"))
    chart = bar_chart(
        bars,
        label=f"US dollars a {step} from {query.first} to {query.last}; the table has the same figures.",
        colours=colours,
    )
    return chart, legend, rows


@requires(Permission.VIEW_USAGE, Permission.VIEW_OWN_USAGE)
def costs(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/costs/``."""
    organization = request.tenant.organization
    names, problem = names_asked(organization, request.GET), ""
    try:
        query = read(request.GET, organization, names)
    except BadQuery as error:
        query, problem = read({}, organization, names), f"{error} This month is shown instead."
    tabs = tabs_for(request, query)
    tab = tab_of(request, tabs)
    visible = visible_by_tag if tab.by.startswith(TAG) else visible_to
    where = visible(request.tenant) & query.where
    try:
        report = report_of(organization, tab.by, *query.bounds, where, most=SHOWN)
    except NotByTag as error:
        problem, tab, where = (
            f"{error} Users are shown instead.",
            TABS[0],
            visible_to(request.tenant) & query.where,
        )
        report = report_of(organization, tab.by, *query.bounds, where, most=SHOWN)
    chart, legend, days = _chart(query, report, where)
    changes, change = _changes(query, report, where) if query.compare else ([], None)
    offered = choice(request.tenant, query)
    day = today(organization)
    return render(
        request,
        "console/costs/costs.html",
        {
            "tab": tab,
            "tabs": [(each, query.parameters(by=each.by)) for each in tabs],
            "query": query,
            "parameters": query.parameters(by=tab.by),
            "problem": problem,
            "presets": [
                (
                    label,
                    query.parameters(by=tab.by, **{"from": first.isoformat(), "to": last.isoformat()}),
                    (first, last) == (query.first, query.last),
                )
                for label, first, last in presets(day)
            ],
            "chips": chips(query, names, kept={"by": tab.by}),
            "offered": offered,
            "report": report,
            "rows": [
                (row, _deeper(query, row, tab), _requests(query, row, tab), changed)
                for row, changed in zip_longest(report.rows, changes)
            ],
            "step": step_of(query),
            "change": change,
            "before": query.before,
            "compare": query.parameters(by=tab.by, compare="" if query.compare else "before"),
            "hidden_rows": report.folded,
            "days": days[::-1],
            "chart": chart,
            "legend": legend,
            "average": report.totals.charge / max(1, (min(query.last, day) - query.first).days + 1),
            "cache_writes": report.totals.cache_write_tokens > 0,
            "narrowed": request.tenant.teams_with(Permission.VIEW_USAGE) is not None,
            "own_only": request.tenant.teams_with(Permission.VIEW_USAGE) == [],
        },
    )


def _deeper(query: UsageQuery, row: Row, tab: Tab) -> str:
    """The query string of the report behind a row; empty where there is none."""
    return query.parameters(by=tab.deeper, **row.filters) if row.filters else ""


def _requests(query: UsageQuery, row: Row, tab: Tab) -> str:
    """The query string of the request list behind a row; empty where it cannot tell."""
    if tab.by.startswith(TAG):
        value = value_of(row)
        return (
            "" if value is None else query.parameters(tag=f"{tab.by.removeprefix(TAG)}={value}", compare="")
        )
    return query.parameters(**row.filters) if row.filters and row.sums.requests else ""


urlpatterns = [path("", costs, name="costs"), *downloads.urlpatterns]
