"""Why a request was charged what it was charged: usage times price, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.models import Price, UsageEvent
from billing.money import EXACT, rounded
from billing.pricing import CLASSES, PER_MILLION

ONE = Decimal(1)
LABELS = {
    "input": "Input",
    "cached_input": "Input, cached",
    "cache_write": "Input, written to cache",
    "cache_write_1h": "Input, written to cache for an hour",
    "output": "Output",
    "reasoning": "Output, reasoning",
    "audio_input": "Audio input",
    "audio_output": "Audio output",
    "image_input": "Image input",
    "image_output": "Image output",
    "image": "Images",
    "second": "Seconds",
    "character": "Characters",
    "search": "Searches",
    "request": "Request",
}
MINIMUM = "Up to the minimum charge"


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One class of usage. ``quantity`` is tokens for most; None for what fills up to the minimum."""

    # Of billing.pricing.CLASSES, or "minimum".
    name: str
    label: str
    quantity: Decimal | None
    # US dollars per million, or per one; None where the price names none, so that it is free.
    price: Decimal | None
    per_million: bool
    # US dollars, exact and unrounded.
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Explanation:
    """The lines of a charge. ``source`` says where the prices come from:

    ``own`` (the organization's own price for the model group), ``model`` (the model group's price),
    ``provider`` (the provider's price and the markup), ``gone`` (the price's deployment or model group
    was deleted) or ``none`` (nothing was priced). ``tier`` is the prompt's length in tokens that made
    other rates hold, ``multiplier`` that of the peak hours the request began in; None: neither.
    """

    source: str
    lines: list[ChargeLine]
    # The sum of the lines, rounded once; what the usage is worth.
    worth: Decimal
    charge: Decimal
    effective_from: datetime | None = None
    tier: int | None = None
    multiplier: Decimal | None = None

    @property
    def agrees(self) -> bool:
        """Whether the charge is what the usage is worth; otherwise a policy decided, see ``end_reason``."""
        return self.worth == self.charge


def explain(event: UsageEvent) -> Explanation:
    """The charge of ``event`` from the price row it names. At most one query."""
    price_id = event.cost_price_id if event.charge_price_id is None else event.charge_price_id
    if price_id is None:
        return Explanation("none", [], Decimal(0), event.charge)
    row = Price.objects.filter(pk=price_id).first()
    if row is None:
        return Explanation("gone", [], event.charge, event.charge)
    return explained(event, row)


def explained(event: UsageEvent, row: Price) -> Explanation:
    """The charge of ``event`` by ``row``, the price row it names."""
    if event.charge_price_id is None:
        source, factor = "provider", EXACT.add(ONE, event.markup)
    else:
        source, factor = "model" if row.organization_id is None else "own", ONE
    usage = event.usage
    if usage.total == 0 and not usage.quantities:
        # A request that used nothing pays nothing, not even a fee or a minimum.
        return Explanation(source, [], Decimal(0), event.charge, row.effective_from)
    rates = row.rates.during(event.started_at)
    lines = [
        ChargeLine(
            each.name,
            LABELS[each.name],
            each.quantity,
            None if each.rate is None else EXACT.multiply(each.rate, factor),
            CLASSES[each.name] == PER_MILLION,
            EXACT.multiply(each.amount, factor),
        )
        for each in rates.billables(usage)
    ]
    exact = Decimal(0)
    for line in lines:
        exact = EXACT.add(exact, line.amount)
    least = EXACT.multiply(rates.minimum, factor)
    if exact < least:
        missing = EXACT.subtract(least, exact)
        lines.append(ChargeLine("minimum", MINIMUM, None, None, False, missing))
        exact = least
    return Explanation(
        source,
        lines,
        rounded(exact),
        event.charge,
        row.effective_from,
        max((above for above, _ in rates.tiers if usage.prompt > above), default=None),
        next((peak.multiplier for peak in row.rates.peaks if peak.covers(event.started_at)), None),
    )
