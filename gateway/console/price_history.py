"""What a model has cost one organization over time, and will cost as far as that is set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from django.db import connection
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils.safestring import SafeString

from billing.charge_lines import LABELS
from billing.pricing import CLASSES, INSTEAD, PER_MILLION
from gateway.console.access import TenantRequest, requires
from gateway.console.model_prices import TenantPrice
from gateway.console.models import PAGE, group_or_404, usable
from gateway.console.price_steps import Markups, Run, Step, runs_of, steps_of
from gateway.console.step_chart import Line, Stretch, step_chart
from gateway.explanation import caller_of
from gateway.v1.rates import read_rates
from routing.table import GroupSpec, read_table
from tenants.permissions import Permission

MOST_LINES = 6
# Beside what is set for later, the chart goes on a little after now.
AFTER = 0.06


@dataclass(frozen=True, slots=True)
class Cell:
    """One class of a price, US dollars; ``before`` is what it was in the step before, where that differs."""

    label: str
    amount: Decimal | None
    before: Decimal | None
    # The class whose price holds where this one has none of its own.
    instead: str = ""

    @property
    def change(self) -> str:
        """Such as +12%; empty where nothing changed or nothing was before."""
        if self.amount is None or not self.before or self.amount == self.before:
            return ""
        return f"{(self.amount - self.before) / self.before:+.0%}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A run; ``cells`` are its prices in the order of the classes of the table."""

    run: Run
    cells: list[Cell]
    # past, now or coming
    state: str


def classes_of(steps: Iterable[Step]) -> list[str]:
    """Every class that had a price, in the order of ``CLASSES``."""
    given = {name for step in steps for offer in step.offers for name in offer.price.rates.given()}
    return [name for name in CLASSES if name in given]


def rows_of(steps: Sequence[Step], classes: Sequence[str], now: datetime) -> list[TableRow]:
    """The table, newest first; what begins together in the order of the deployments."""
    rows = []
    for run in sorted(runs_of(steps), key=lambda each: each.since, reverse=True):
        state = "coming" if run.since > now else "now" if run.until is None or run.until > now else "past"
        given = run.offer.price.rates.given() if run.offer is not None else {}
        cells = [
            Cell(LABELS[name], given.get(name), run.before.get(name), _instead(given, name))
            for name in classes
        ]
        rows.append(TableRow(run, cells, state))
    return rows


def _instead(given: Mapping[str, Decimal], name: str) -> str:
    """The label of the class that ``name`` costs as much as; empty where it has a price or is not priced."""
    other: str | None = name
    while other is not None and other not in given:
        other = INSTEAD.get(other)
    return "" if other is None or other == name else LABELS[other].lower()


def chart_of(steps: Sequence[Step], name: str, now: datetime) -> tuple[SafeString, list[Line]]:
    """The amount of class ``name`` over time, and its lines: one for each deployment whose price differs."""
    if not steps:
        return SafeString(""), []
    start, last = steps[0].since, max(now, steps[-1].since)
    end = last + max((last - start) * AFTER, timedelta(days=1))
    of_deployment: dict[str, list[Decimal | None]] = {}
    known = {one for step in steps for offer in step.offers for one in offer.names} or {""}
    for one in sorted(known):
        of_deployment[one] = [_amount(step, one, name) for step in steps]
    alike: dict[tuple[Decimal | None, ...], list[str]] = {}
    for one, amounts in of_deployment.items():
        alike.setdefault(tuple(amounts), []).append(one)
    bounds = [*(step.since for step in steps), end]
    lines = [
        Line(
            ", ".join(names) if len(alike) > 1 else "",
            f"s{number}",
            [
                Stretch(since, until, amount)
                for (since, until), amount in zip(pairwise(bounds), amounts, strict=True)
            ],
        )
        for number, (amounts, names) in enumerate(list(alike.items())[:MOST_LINES], start=1)
    ]
    unit = "a million" if CLASSES[name] == PER_MILLION else "each"
    return step_chart(
        lines, now, label=f"{LABELS[name]}, US dollars {unit}; the table has the same figures."
    ), lines


def _amount(step: Step, deployment: str, name: str) -> Decimal | None:
    """What the class cost where ``deployment`` answered."""
    for offer in step.offers:
        if not offer.names or deployment in offer.names:
            return offer.price.rates.rate(name)
    return None


def columns_of(classes: Iterable[str]) -> list[tuple[str, str, bool]]:
    """Each class with its label and whether its price is for a million."""
    return [(name, LABELS[name], CLASSES[name] == PER_MILLION) for name in classes]


def shown(steps: Sequence[Step], asked: Mapping[str, str], now: datetime) -> dict[str, object]:
    """What the page of a price history needs, whosever it is. ``asked`` may name a ``class`` to draw."""
    classes = classes_of(steps)
    drawn = asked.get("class", "")
    if drawn not in classes:
        drawn = next((name for name in ("output", *classes) if name in classes), "")
    chart, lines = chart_of(steps, drawn, now) if drawn else (SafeString(""), [])
    return {
        "columns": columns_of(classes),
        "rows": rows_of(steps, classes, now),
        "drawn": drawn,
        "drawn_label": LABELS.get(drawn, ""),
        "chart": chart,
        "lines": [line for line in lines if line.label],
    }


@dataclass(frozen=True, slots=True)
class Summary:
    """A model in the list: the prices in force, since when, what changed then, and what comes next."""

    group: GroupSpec
    now: Step | None
    change: str
    coming: Step | None

    @property
    def prices(self) -> list[TenantPrice]:
        """The prices in force, by who answers."""
        return [offer.price for offer in self.now.offers] if self.now is not None else []


def summary_of(group: GroupSpec, steps: Sequence[Step], now: datetime) -> Summary:
    """What the list says of ``group``. The change is that of output, where one price is all there is."""
    place = max((number for number, step in enumerate(steps) if step.since <= now), default=None)
    if place is None:
        return Summary(group, None, "", steps[0] if steps else None)
    amounts = [
        step.offers[0].price.rates.rate("output") if len(step.offers) == 1 else None
        for step in steps[max(place - 1, 0) : place + 1]
    ]
    change = Cell("", amounts[-1], amounts[0]).change
    return Summary(group, steps[place], change, steps[place + 1] if place + 1 < len(steps) else None)


@requires(Permission.VIEW_MONEY)
def price_list(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/prices/``: every model the organization may use. ``?q=`` a part of the name,
    ``?after=`` a name."""
    organization, now = request.tenant.organization, datetime.now(UTC)
    search, after = request.GET.get("q", "").strip(), request.GET.get("after", "")
    connection.ensure_connection()
    table, book = read_table(connection.connection), read_rates(connection.connection)
    groups, markups = usable(table, caller_of(organization)), Markups(organization)
    rest = [group for group in groups if search.lower() in group.name.lower() and group.name > after]
    return render(
        request,
        "console/prices/list.html",
        {
            "models": [
                summary_of(group, steps_of(book, organization, group, markups), now) for group in rest[:PAGE]
            ],
            "any": bool(groups),
            "search": search,
            "after": after,
            "older": rest[PAGE - 1].name if len(rest) > PAGE else "",
        },
    )


@requires(Permission.VIEW_MONEY)
def model_prices(request: TenantRequest, group: str) -> HttpResponse:
    """``/o/<organization>/models/<group>/prices/``. ``?class=`` chooses what the chart shows."""
    organization, now = request.tenant.organization, datetime.now(UTC)
    connection.ensure_connection()
    found = group_or_404(read_table(connection.connection), caller_of(organization), group)
    steps = steps_of(read_rates(connection.connection), organization, found, Markups(organization))
    return render(request, "console/models/prices.html", {"group": found, **shown(steps, request.GET, now)})


urlpatterns = [path("<str:group>/prices/", model_prices, name="model_prices")]
