"""What a model has cost one organization over time, and will cost as far as that is set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from gateway.console.model_prices import TenantPrice, price_at
from gateway.console.models import group_or_404
from gateway.console.step_chart import Line, Stretch, step_chart
from gateway.explanation import caller_of
from gateway.v1.rates import History, RateBook, read_rates
from routing.table import GroupSpec, read_table
from tenants.models import AuditEntry, Organization
from tenants.permissions import Permission

MOST_LINES = 6
# Beside what is set for later, the chart goes on a little after now.
AFTER = 0.06


@dataclass(frozen=True, slots=True)
class Offer:
    """A price and the deployments it holds for; without names it holds whoever answers."""

    price: TenantPrice
    names: tuple[str, ...]

    def alike(self, other: Offer) -> bool:
        """Whether both say the same of the same deployments."""
        return self.names == other.names and self.price.alike(other.price)


@dataclass(frozen=True, slots=True)
class Step:
    """What held from ``since`` until ``until`` (None: without an end). Without ``offers`` nothing was priced."""

    since: datetime
    until: datetime | None
    offers: tuple[Offer, ...]

    def alike(self, offers: Sequence[Offer]) -> bool:
        """Whether ``offers`` are those of this step."""
        return len(self.offers) == len(offers) and all(
            mine.alike(theirs) for mine, theirs in zip(self.offers, offers, strict=True)
        )


class Markups:
    """The organization's markup at any time, from the audit log of its changes."""

    def __init__(self, organization: Organization) -> None:
        entries = AuditEntry.objects.filter(
            organization=organization,
            target_type="organization",
            target_id=str(organization.pk),
            detail__has_key="markup",
            verb="changed",
        ).order_by("at", "pk")
        self.changes = [(entry.at, Decimal(entry.detail["markup"]["from"])) for entry in entries]
        self.current = organization.markup

    def at(self, moment: datetime) -> Decimal:
        """The share that was added at ``moment``."""
        return next((before for changed, before in self.changes if moment < changed), self.current)


def offers_at(
    book: RateBook, markup: Decimal, organization_id: int, group: GroupSpec, at: datetime
) -> list[Offer]:
    """The different prices of ``group`` at ``at``, in the order of its deployments."""
    found: list[tuple[TenantPrice, list[str]]] = []
    for member in group.members:
        price = price_at(book, organization_id, markup, group.id, member.deployment.id, at)
        if price is None:
            continue
        same = next((names for known, names in found if known.alike(price)), None)
        if same is None:
            found.append((price, [member.deployment.name]))
        else:
            same.append(member.deployment.name)
    # Where one price is all there is, it does not matter who answers.
    return [Offer(price, tuple(names) if len(found) > 1 else ()) for price, names in found]


def steps_of(book: RateBook, organization: Organization, group: GroupSpec, markups: Markups) -> list[Step]:
    """The prices of ``group`` for ``organization``, oldest first, as far as they differ. What was over before
    the organization was there is left out."""
    histories: list[History | None] = [book.costs.get(member.deployment.id) for member in group.members]
    histories += [book.prices.get(group.id), book.own.get((organization.pk, group.id))]
    moments = {since for history in histories if history is not None for since in history.since}
    moments |= {changed for changed, _ in markups.changes}
    found: list[Step] = []
    for moment in sorted(moments):
        offers = tuple(offers_at(book, markups.at(moment), organization.pk, group, moment))
        if found and found[-1].alike(offers):
            continue
        if found:
            found[-1] = Step(found[-1].since, moment, found[-1].offers)
        if found or offers:
            found.append(Step(moment, None, offers))
    return [step for step in found if step.until is None or step.until > organization.created_at]


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
class Run:
    """An offer for as long as it stays the same; without an offer nothing was priced."""

    since: datetime
    until: datetime | None
    offer: Offer | None
    # What it follows: the price there was before, if any.
    before: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A run; ``cells`` are its prices in the order of the classes of the table."""

    run: Run
    cells: list[Cell]
    # past, now or coming
    state: str


def runs_of(steps: Sequence[Step]) -> list[Run]:
    """Each offer from when it begins to when it changes, in order of their beginnings."""
    runs: list[Run] = []
    # The places in ``runs`` of what holds, by the names of the deployments it holds for.
    open_runs: dict[tuple[str, ...] | None, int] = {}
    for step in steps:
        wanted: dict[tuple[str, ...] | None, Offer | None] = {offer.names: offer for offer in step.offers}
        wanted = wanted or {None: None}
        before = {names: runs[place].offer for names, place in open_runs.items()}
        for names, place in list(open_runs.items()):
            offer, held = wanted.get(names), before[names]
            same = names in wanted and (offer is held or (offer and held and offer.alike(held)))
            if not same:
                runs[place] = replace(runs[place], until=step.since)
                del open_runs[names]
        for names, offer in wanted.items():
            if names in open_runs:
                continue
            # Where a price begins to depend on who answers, it follows the one that did not.
            held = before.get(names) or before.get(())
            given = held.price.rates.given() if held is not None else {}
            open_runs[names] = len(runs)
            runs.append(Run(step.since, None, offer, given))
    return runs


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


@requires(Permission.VIEW_MONEY)
def model_prices(request: TenantRequest, group: str) -> HttpResponse:
    """``/o/<organization>/models/<group>/prices/``. ``?class=`` chooses what the chart shows."""
    organization, now = request.tenant.organization, datetime.now(UTC)
    connection.ensure_connection()
    found = group_or_404(read_table(connection.connection), caller_of(organization), group)
    steps = steps_of(read_rates(connection.connection), organization, found, Markups(organization))
    return render(request, "console/models/prices.html", {"group": found, **shown(steps, request.GET, now)})


urlpatterns = [path("<str:group>/prices/", model_prices, name="model_prices")]
