"""What a model costs one organization, as a page shows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from billing.charge_lines import LABELS
from billing.money import EXACT
from billing.peak_hours import DAYS, PeakHours
from billing.pricing import CLASSES, PER_MILLION, Rates
from gateway.explanation import Caller, Picture
from gateway.v1.rates import History, RateBook
from routing.table import DeploymentSpec, GroupSpec

ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One class of a price: US dollars per million, or for one."""

    label: str
    amount: Decimal
    per_million: bool


@dataclass(frozen=True, slots=True)
class TenantPrice:
    """What one organization pays for a group, as far as it is served by one deployment.

    ``source`` is ``own`` (the organization's own price), ``model`` (the group's) or ``provider`` (what
    follows from the provider's price and the markup).
    """

    source: str
    rates: Rates

    def alike(self, other: TenantPrice) -> bool:
        """Whether both prices say the same, from whatever rows."""
        mine, theirs = self.rates, other.rates
        return self.source == other.source and (
            (mine.given(), mine.minimum, mine.peaks, self.tiers)
            == (theirs.given(), theirs.minimum, theirs.peaks, other.tiers)
        )

    @property
    def lines(self) -> list[PriceLine]:
        """Each class that has a price."""
        return price_lines(self.rates)

    @property
    def tiers(self) -> list[tuple[int, list[PriceLine]]]:
        """Prices for longer prompts: above how many tokens, and what differs there."""
        base = self.rates.given()
        return [
            (above, [line for line in price_lines(rates) if base.get(_class(line)) != line.amount])
            for above, rates in self.rates.tiers
        ]

    @property
    def peaks(self) -> list[str]:
        """The hours in which everything is multiplied, in words."""
        return [_hours(peak) for peak in self.rates.peaks]


def price_lines(rates: Rates) -> list[PriceLine]:
    """The classes of ``rates`` that have a price, in the order of CLASSES."""
    given = rates.given()
    return [
        PriceLine(LABELS[name], given[name], per == PER_MILLION)
        for name, per in CLASSES.items()
        if name in given
    ]


def _class(line: PriceLine) -> str:
    return next(name for name, label in LABELS.items() if label == line.label)


def _hours(peak: PeakHours) -> str:
    days = "every day" if len(peak.days) == len(DAYS) else ", ".join(DAYS[day] for day in sorted(peak.days))
    return f"times {peak.multiplier.normalize():f} from {peak.start:%H:%M} to {peak.end:%H:%M} {peak.zone.key}, {days}"


def tenant_price(
    seen: Picture, caller: Caller, group: GroupSpec, deployment: DeploymentSpec
) -> TenantPrice | None:
    """What ``caller``'s organization pays; None: not priced, so not served."""
    return price_at(seen.rates, caller.organization_id, caller.markup, group.id, deployment.id, seen.at)


def price_at(
    book: RateBook, organization_id: int, markup: Decimal, group_id: int, deployment_id: int, at: datetime
) -> TenantPrice | None:
    """What the organization pays at ``at`` for the group where the deployment answers; None: not priced."""
    cost = _listed(book.costs.get(deployment_id), at)
    if cost is None:
        return None
    own = _listed(book.own.get((organization_id, group_id)), at)
    if own is not None:
        return TenantPrice("own", own)
    shared = _listed(book.prices.get(group_id), at)
    if shared is not None:
        return TenantPrice("model", shared)
    if not markup:
        return TenantPrice("provider", cost)
    factor = EXACT.add(ONE, markup)
    least = EXACT.multiply(cost.minimum, factor)
    return TenantPrice("provider", replace(cost.times(factor), minimum=least, peaks=cost.peaks))


def _listed(history: History | None, at: datetime) -> Rates | None:
    return history.listed(at) if history is not None else None
