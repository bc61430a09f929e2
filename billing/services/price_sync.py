"""Proposing and applying cost prices of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing.catalogue import entry_of
from billing.models import Price
from billing.price_terms import rates_of
from billing.pricing import CLASSES, Rates
from billing.services.prices import costs_in_force, set_price
from routing.models import Deployment
from tenants.models import User

ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Difference:
    """One term of a price that would be another. ``before`` is None where there is no price yet."""

    term: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the catalogue would change of a deployment's cost. ``rise`` is the highest of all rates as a
    share (0.25: a quarter dearer); None: from nothing to something."""

    deployment: Deployment
    terms: dict[str, Any]
    differences: tuple[Difference, ...]
    rise: Decimal | None
    left_out: tuple[str, ...]

    def exceeds(self, bound: Decimal) -> bool:
        """Whether the rise is beyond ``bound``, a share."""
        return self.rise is None or self.rise > bound


def proposals(deployments: Iterable[Deployment]) -> tuple[list[Proposal], list[Deployment]]:
    """What would change, and the deployments that the catalogue does not know. Changes nothing."""
    found, unknown = [], []
    asked = list(deployments)
    in_force = costs_in_force(asked)
    for deployment in asked:
        entry = entry_of(deployment.provider.kind, deployment.model)
        if entry is None:
            unknown.append(deployment)
            continue
        current = in_force.get(deployment.pk)
        terms = _kept(current) | entry.terms
        new = rates_of(0, terms)
        if current is not None and replace(current.rates, price_id=0) == new:
            continue
        rise = Decimal(0) if current is None else _rise(current.rates, new)
        found.append(Proposal(deployment, terms, _differences(current, terms), rise, entry.left_out))
    return found, unknown


@transaction.atomic
def apply_proposals(*, acting_user: User | None, found: Iterable[Proposal]) -> None:
    """Set every proposed price, from this moment on. Raises ``PriceError``; then none is set."""
    for proposal in found:
        set_price(acting_user=acting_user, deployment=proposal.deployment, **proposal.terms)


def _kept(current: Price | None) -> dict[str, Any]:
    """What the catalogue does not name stays, such as a fee that was agreed; its tiers and hours do not."""
    if current is None:
        return {}
    return {name: value for name in (*CLASSES, "minimum") if (value := getattr(current, name)) is not None}


def _differences(current: Price | None, terms: dict[str, Any]) -> tuple[Difference, ...]:
    before = {} if current is None else current.terms()
    found = []
    for name in (*CLASSES, "minimum", "tiers", "peaks"):
        old, new = before.get(name) or None, terms.get(name) or None
        if before.get(name) is not None and old is None and name in CLASSES:
            old = before[name]
        if name in terms and new is None:
            new = terms[name]
        if old != new:
            found.append(Difference(name, None if old is None else _text(old), _text(new)))
    return tuple(found)


def _text(value: Any) -> str:
    match value:
        case None:
            return "none"
        case Decimal():
            return f"{value.normalize():f}"
        case list():
            return "; ".join(" ".join(f"{name} {_text(each)}" for name, each in one.items()) for one in value)
        case _:
            return str(value)


def _rise(old: Rates, new: Rates) -> Decimal | None:
    """The greatest rise of any class in any tier and hour, as a share; None from nothing to something."""
    highest = Decimal(0)
    prompts = {0, *(above + 1 for above, _ in (*old.tiers, *new.tiers))}
    was_peak = max((ONE, *(peak.multiplier for peak in old.peaks)))
    is_peak = max((ONE, *(peak.multiplier for peak in new.peaks)))
    for prompt in prompts:
        before, after = old.tier(prompt), new.tier(prompt)
        for name in CLASSES:
            was, becomes = before.rate(name), after.rate(name)
            if was is None or becomes is None:
                # A class that gets its first price could not be used before.
                continue
            if not was:
                if becomes:
                    return None
                continue
            highest = max(highest, becomes * is_peak / (was * was_peak) - 1)
    return highest
