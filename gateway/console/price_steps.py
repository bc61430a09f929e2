"""From when to when a model had which price for one organization: from the prices there are, the markup of
each time, and who answers for the model today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from gateway.console.model_prices import TenantPrice, price_at
from gateway.v1.rates import History, RateBook
from routing.table import GroupSpec
from tenants.models import AuditEntry, Organization


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
class Run:
    """An offer for as long as it stays the same; without an offer nothing was priced."""

    since: datetime
    until: datetime | None
    offer: Offer | None
    # What it follows: the price there was before, if any.
    before: Mapping[str, Decimal]


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
