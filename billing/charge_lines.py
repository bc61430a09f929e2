"""Why a request was charged what it was charged: tokens times price, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.models import Price, UsageEvent
from billing.money import EXACT, rounded

ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One class of tokens."""

    label: str
    tokens: int
    # US dollars per million tokens; None where the price names none, so that they are free.
    price: Decimal | None
    # US dollars, exact and unrounded.
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Explanation:
    """The lines of a charge. ``source`` says where the prices come from:

    ``model`` (the model group's own price), ``provider`` (the provider's price and the markup),
    ``gone`` (the price's deployment or model group was deleted) or ``none`` (nothing was priced).
    """

    source: str
    lines: list[ChargeLine]
    # The sum of the lines, rounded once; what the tokens are worth.
    worth: Decimal
    charge: Decimal
    effective_from: datetime | None = None

    @property
    def agrees(self) -> bool:
        """Whether the charge is what the tokens are worth; otherwise a policy decided, see ``end_reason``."""
        return self.worth == self.charge


def explain(event: UsageEvent) -> Explanation:
    """The charge of ``event`` from the price row it names. At most one query."""
    if event.charge_price_id is not None:
        source, price_id, factor = "model", event.charge_price_id, ONE
    elif event.cost_price_id is not None:
        source, price_id, factor = "provider", event.cost_price_id, EXACT.add(ONE, event.markup)
    else:
        return Explanation("none", [], Decimal(0), event.charge)
    price = Price.objects.filter(pk=price_id).first()
    if price is None:
        return Explanation("gone", [], event.charge, event.charge)
    classes = (
        ("Input", event.input_tokens, price.input),
        ("Input, cached", event.cached_input_tokens, _or_input(price.cached_input, price)),
        ("Input, written to cache", event.cache_write_tokens, _or_input(price.cache_write, price)),
        ("Output", event.output_tokens, price.output),
    )
    lines = []
    for label, tokens, rate in classes:
        asked = None if rate is None else EXACT.multiply(rate, factor)
        amount = EXACT.multiply(asked or Decimal(0), Decimal(tokens)).scaleb(-6, context=EXACT)
        lines.append(ChargeLine(label, tokens, asked, amount))
    exact = Decimal(0)
    for line in lines:
        exact = EXACT.add(exact, line.amount)
    return Explanation(source, lines, rounded(exact), event.charge, price.effective_from)


def _or_input(rate: Decimal | None, price: Price) -> Decimal | None:
    """A class without a price of its own costs what input costs."""
    return price.input if rate is None else rate
