"""What providers ask at a moment: worked out once for as long as no price changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.pricing import Rates
from gateway.v1.rates import History, RateBook

DAY = datetime(2026, 3, 10, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)
INSTANT = timedelta(microseconds=1)


def rates(price: int) -> Rates:
    return Rates(price, Decimal(1), output=Decimal(price))


def book() -> RateBook:
    """Deployment 1 changes its price at noon, 2 is first priced then, 3 is never for answers, 4 no longer."""
    return RateBook(
        {
            1: History((DAY, NOON), (rates(1), rates(2))),
            2: History((NOON,), (rates(3),)),
            3: History((DAY,), (Rates(4, Decimal(1)),)),
            4: History((DAY, NOON), (rates(5), Rates(6, None))),
        },
        {},
        {},
    )


def test_a_price_is_in_force_from_its_date_on_and_not_before() -> None:
    prices = book()
    assert {of: each.price_id for of, each in prices.in_force(NOON - INSTANT).rates.items()} == {
        1: 1,
        3: 4,
        4: 5,
    }
    assert {of: each.price_id for of, each in prices.in_force(NOON).rates.items()} == {1: 2, 2: 3, 3: 4}
    # Requests do not always come in the order of their beginnings.
    assert {of: each.price_id for of, each in prices.in_force(DAY).rates.items()} == {1: 1, 3: 4, 4: 5}
    assert prices.in_force(DAY - INSTANT).rates == {}


def test_only_who_is_priced_for_all_that_is_used_is_served() -> None:
    at_noon = book().in_force(NOON)
    assert at_noon.priced("chat.completions", frozenset()) == {1, 2}
    assert at_noon.priced("embeddings", frozenset()) == {1, 2, 3}
    assert at_noon.priced("chat.completions", frozenset({"image"})) == frozenset()


def test_nothing_is_worked_out_anew_before_a_price_changes() -> None:
    prices = book()
    first = prices.in_force(DAY + INSTANT)
    assert prices.in_force(NOON - INSTANT) is first
    assert prices.in_force(NOON) is not first
