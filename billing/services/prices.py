"""Prices. A row never changes; a new price is a new row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from billing.models import Price
from billing.price_terms import COLUMNS, rates_of
from billing.pricing import CLASSES
from routing.models import Deployment, ModelGroup
from routing.services.groups import check_served
from tenants.models import Organization, User
from tenants.services import audit, rows


class PriceError(ValueError):
    """A price that cannot be set."""


class PriceOfOneThing(PriceError):
    """A price is of a deployment or of a model group, not of both or neither."""


class NegativePrice(PriceError):
    """A price below zero."""


class PriceInThePast(PriceError):
    """What was used under the present price was charged by it, so no other can begin before now."""


class PriceExists(PriceError):
    """Another price begins at the same moment."""


class UnclearTerms(PriceError):
    """Tiers or peak hours that say nothing definite; the message names the term."""


class NothingPriced(PriceError):
    """A price without any rate."""


def price_in_force(
    *,
    deployment: Deployment | None = None,
    model_group: ModelGroup | None = None,
    organization: Organization | None = None,
    at: datetime | None = None,
) -> Price | None:
    """The price row in force at ``at`` (None: this moment). With ``organization``, its own price for the group.

    None before the first price. A row without any rate ended a price: it reads as None too.
    """
    row = (
        _prices(deployment, model_group, organization)
        .filter(effective_from__lte=at or timezone.now())
        .order_by("-effective_from", "-pk")
        .first()
    )
    return row if row is not None and row.rates.priced else None


def costs_in_force(deployments: Iterable[Deployment]) -> dict[int, Price]:
    """What each provider asks at this moment, by the deployment's id, in one query; those without are left out."""
    rows = (
        Price.objects.filter(
            deployment__in=deployments,
            model_group__isnull=True,
            organization__isnull=True,
            effective_from__lte=timezone.now(),
        )
        .order_by("deployment", "-effective_from", "-pk")
        .distinct("deployment")
    )
    return {row.deployment_id: row for row in rows if row.deployment_id is not None and row.rates.priced}


def _prices(
    deployment: Deployment | None, model_group: ModelGroup | None, organization: Organization | None
) -> QuerySet[Price]:
    return Price.objects.filter(deployment=deployment, model_group=model_group, organization=organization)


def _lock(deployment: Deployment | None, model_group: ModelGroup | None) -> None:
    """One price of a thing is set at a time."""
    if deployment is not None:
        Deployment.objects.select_for_update(of=("self",), no_key=True).get(pk=deployment.pk)
    if model_group is not None:
        ModelGroup.objects.select_for_update(no_key=True).get(pk=model_group.pk)


def _of_one_thing(
    deployment: Deployment | None, model_group: ModelGroup | None, organization: Organization | None
) -> None:
    if (deployment is None) == (model_group is None):
        raise PriceOfOneThing("Give a deployment or a model group.")
    if organization is not None and model_group is None:
        raise PriceOfOneThing("An organization has prices of its own for model groups only.")


def _begins(known: QuerySet[Price], wanted: datetime | None, now: datetime) -> datetime:
    """When a new row takes effect, checked against those there are."""
    begins = wanted or now
    if begins < now and known.filter(effective_from__lte=now).exists():
        raise PriceInThePast("A price that replaces another cannot begin in the past.")
    if known.filter(effective_from=begins).exists():
        raise PriceExists("Another price begins at that moment already.")
    return begins


@transaction.atomic
def set_price(
    *,
    acting_user: User | None,
    deployment: Deployment | None = None,
    model_group: ModelGroup | None = None,
    organization: Organization | None = None,
    effective_from: datetime | None = None,
    **terms: Any,
) -> Price:
    """Set what a deployment's provider asks, or what tenants (or only ``organization``) pay for a model group.

    ``terms`` are named as in ``billing.price_terms.COLUMNS``: Decimal rates by class, ``minimum``, ``tiers``
    and ``peaks`` in their stored shape; what is left out is not set. Returns the row in force if it says
    the same. Raises ``PriceOfOneThing``, ``NegativePrice``, ``NothingPriced``, ``UnclearTerms``,
    ``PriceInThePast``, ``PriceExists``, ``InvalidRow``; TypeError for a term there is not.
    """
    _of_one_thing(deployment, model_group, organization)
    if unknown := set(terms) - set(COLUMNS):
        raise TypeError(f"A price has no {min(unknown)}.")
    for name in (*CLASSES, "minimum"):
        value = terms.get(name)
        if value is not None and not (value.is_finite() and value >= 0):
            raise NegativePrice(f"{name}: a price is not negative.")
    try:
        rates = rates_of(0, terms)
    except ValueError as error:
        raise UnclearTerms(str(error)) from None
    if not rates.priced:
        raise NothingPriced("A price names at least one class.")
    _lock(deployment, model_group)
    now = timezone.now()
    current = price_in_force(
        deployment=deployment, model_group=model_group, organization=organization, at=effective_from or now
    )
    if current is not None and current.rates == replace(rates, price_id=current.pk):
        return current
    known = _prices(deployment, model_group, organization)
    price = Price(
        deployment=deployment,
        model_group=model_group,
        organization=organization,
        effective_from=_begins(known, effective_from, now),
        **terms,
    )
    rows.check(price)
    price.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="set price",
        target=price,
        detail={
            **{name: value for name, value in price.terms().items() if value not in (None, [])},
            "effective_from": price.effective_from,
        },
    )
    return price


@transaction.atomic
def end_price(
    *,
    acting_user: User | None,
    deployment: Deployment | None = None,
    model_group: ModelGroup | None = None,
    organization: Organization | None = None,
) -> None:
    """End the price from this moment on; nothing if there is none.

    A model group is then charged by cost and markup, an organization's own price gives way to the
    group's, a deployment is not served.
    Raises ``PriceOfOneThing``, ``UnpricedGroup`` where a model group would be left without a priced deployment.
    """
    _of_one_thing(deployment, model_group, organization)
    _lock(deployment, model_group)
    now = timezone.now()
    if (
        price_in_force(deployment=deployment, model_group=model_group, organization=organization, at=now)
        is None
    ):
        return
    ended = Price(
        deployment=deployment,
        model_group=model_group,
        organization=organization,
        effective_from=_begins(_prices(deployment, model_group, organization), None, now),
    )
    ended.save(force_insert=True)
    if deployment is not None:
        for place in deployment.groups.select_related("group"):
            check_served(place.group)
    audit.record(acting_user=acting_user, verb="ended price", target=ended)
