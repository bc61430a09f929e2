"""Other currencies than US dollars, in which an organization may see and be invoiced its amounts.

The books are in US dollars. An amount is converted where it is shown, at the rate in force at that moment; a
statement keeps the rate it was made with.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from billing.models import ExchangeRate

USD = "USD"


class NoExchangeRate(ValueError):
    """No rate of the currency was in force."""


def currencies_at(at: datetime) -> list[str]:
    """The currencies (ISO 4217) that had a rate at ``at``, US dollars among them, by name."""
    rated = ExchangeRate.objects.filter(effective_from__lte=at).values_list("currency", flat=True).distinct()
    return sorted({USD, *rated})


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
