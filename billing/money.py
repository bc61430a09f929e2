"""The shape of money: US dollars as exact decimals with twelve places, rounded once."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from django.db import models

PLACES = 12
QUANTUM = Decimal(1).scaleb(-PLACES)
MILLION = Decimal(1_000_000)
# Wide enough that no product or sum of amounts is rounded before `rounded`.
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


def money_field(**options: Any) -> models.DecimalField[Any, Any]:
    """A column for an amount in US dollars: 24 digits, 12 of them after the point."""
    return models.DecimalField(max_digits=24, decimal_places=PLACES, **options)


def rounded(amount: Decimal) -> Decimal:
    """``amount`` to twelve places, half to even. The one place where money is rounded."""
    return amount.quantize(QUANTUM, context=EXACT)


def plain(amount: Decimal) -> str:
    """``amount`` as people and exports read it: no exponent, no needless zeros, at least two places."""
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
