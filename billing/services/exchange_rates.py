"""Exchange rates. A row never changes; a new rate is a new row."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing.models import ExchangeRate
from tenants.models import User
from tenants.services import audit, rows


class RateExists(ValueError):
    """Another rate of the currency begins at that moment."""


class BadRate(ValueError):
    """A rate that is not above zero."""


@transaction.atomic
def set_exchange_rate(
    *, acting_user: User | None, currency: str, rate: Decimal, effective_from: datetime
) -> tuple[ExchangeRate, bool]:
    """Enter how much of ``currency`` one US dollar is from ``effective_from`` on; and whether it is new.

    A past date is allowed, as what was posted keeps its own rate. Raises ``BadRate``, ``RateExists`` (with
    another figure), ``InvalidRow``.
    """
    if not (rate.is_finite() and rate > 0):
        raise BadRate("An exchange rate is above zero.")
    known = ExchangeRate.objects.filter(currency=currency, effective_from=effective_from).first()
    if known is not None:
        if known.rate != rate:
            raise RateExists(
                f"{currency} has another rate from {effective_from:%Y-%m-%d} on; a new rate needs a new date."
            )
        return known, False
    row = ExchangeRate(currency=currency, rate=rate, effective_from=effective_from)
    rows.check(row)
    row.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="set exchange rate",
        target=row,
        detail={"currency": currency, "rate": rate, "effective_from": effective_from},
    )
    return row, True
