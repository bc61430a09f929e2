"""Prices. A row never changes; a new price is a new row."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from billing.models import Price
from routing.models import Deployment, ModelGroup
from tenants.models import User
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


CLASSES = ("input", "cached_input", "cache_write", "output")


def price_in_force(
    *, deployment: Deployment | None = None, model_group: ModelGroup | None = None, at: datetime | None = None
) -> Price | None:
    """The price row in force at ``at`` (None: this moment).

    None before the first price. A row without ``input`` ended a price: it reads as None too.
    """
    row = (
        Price.objects.filter(
            deployment=deployment, model_group=model_group, effective_from__lte=at or timezone.now()
        )
        .order_by("-effective_from", "-pk")
        .first()
    )
    return None if row is None or row.input is None else row


def _lock(deployment: Deployment | None, model_group: ModelGroup | None) -> None:
    """One price of a thing is set at a time."""
    if deployment is not None:
        Deployment.objects.select_for_update(of=("self",), no_key=True).get(pk=deployment.pk)
    if model_group is not None:
        ModelGroup.objects.select_for_update(no_key=True).get(pk=model_group.pk)


def _begins(
    deployment: Deployment | None, model_group: ModelGroup | None, wanted: datetime | None, now: datetime
) -> datetime:
    """When a new row takes effect, checked against those there are."""
    begins = wanted or now
    known = Price.objects.filter(deployment=deployment, model_group=model_group)
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
    input: Decimal,  # noqa: A002 - the name of the token class
    output: Decimal | None = None,
    cached_input: Decimal | None = None,
    cache_write: Decimal | None = None,
    effective_from: datetime | None = None,
) -> Price:
    """Set what a deployment's provider asks, or what tenants pay for a model group.

    Prices are US dollars per million tokens. None for ``cached_input`` or ``cache_write`` means the
    price of ``input``; None for ``output`` that only embeddings are priced. Returns the row in force
    if it says the same. Raises ``PriceOfOneThing``, ``NegativePrice``, ``PriceInThePast``,
    ``PriceExists``, ``InvalidRow``.
    """
    if (deployment is None) == (model_group is None):
        raise PriceOfOneThing("Give a deployment or a model group.")
    wanted = {"input": input, "cached_input": cached_input, "cache_write": cache_write, "output": output}
    for name, value in wanted.items():
        if value is not None and not (value.is_finite() and value >= 0):
            raise NegativePrice(f"{name}: a price is not negative.")
    _lock(deployment, model_group)
    now = timezone.now()
    current = price_in_force(deployment=deployment, model_group=model_group, at=effective_from or now)
    if current is not None and all(getattr(current, name) == wanted[name] for name in CLASSES):
        return current
    price = Price(
        deployment=deployment,
        model_group=model_group,
        effective_from=_begins(deployment, model_group, effective_from, now),
        **wanted,
    )
    rows.check(price)
    price.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="set price",
        target=price,
        detail={**wanted, "effective_from": price.effective_from},
    )
    return price


@transaction.atomic
def end_price(
    *, acting_user: User | None, deployment: Deployment | None = None, model_group: ModelGroup | None = None
) -> None:
    """End the price from this moment on; nothing if there is none.

    A model group is then charged by cost and markup; a deployment is not served. Raises ``PriceOfOneThing``.
    """
    if (deployment is None) == (model_group is None):
        raise PriceOfOneThing("Give a deployment or a model group.")
    _lock(deployment, model_group)
    now = timezone.now()
    if price_in_force(deployment=deployment, model_group=model_group, at=now) is None:
        return
    ended = Price(
        deployment=deployment,
        model_group=model_group,
        effective_from=_begins(deployment, model_group, None, now),
    )
    ended.save(force_insert=True)
    audit.record(acting_user=acting_user, verb="ended price", target=ended)
