"""Other currencies than US dollars, in which an organization may see and be invoiced its amounts.

The books are in US dollars. An amount is converted where it is shown or posted, at the rate that was in
force at that moment; what is posted keeps its rate.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from billing.models import ExchangeRate
from billing.money import EXACT, rounded

USD = "USD"


class NoExchangeRate(ValueError):
    """No rate of the currency was in force."""


def rate_at(currency: str, at: datetime) -> Decimal:
    """How much of ``currency`` (ISO 4217) one US dollar was at ``at``. Raises ``NoExchangeRate``."""
    if currency == USD:
        return Decimal(1)
    row = (
        ExchangeRate.objects.filter(currency=currency, effective_from__lte=at)
        .order_by("-effective_from")
        .first()
    )
    if row is None:
        raise NoExchangeRate(f"There is no exchange rate for {currency} at {at:%Y-%m-%d}.")
    return row.rate


def convert(amount: Decimal, currency: str, at: datetime) -> Decimal:
    """``amount`` (US dollars) in ``currency`` at the rate of ``at``, rounded once to twelve places.

    Raises ``NoExchangeRate``.
    """
    return rounded(EXACT.multiply(amount, rate_at(currency, at)))
