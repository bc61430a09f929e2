"""What providers ask at a moment: worked out once for as long as no price changes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from psycopg import AsyncConnection

from billing.management.commands.ship import connection_parameters
from billing.models import Price
from billing.pricing import Rates
from billing.services.prices import set_price
from gateway.v1.rates import EMPTY, History, RateBook, load_rates
from routing.models import ModelGroup

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


def loaded(known: RateBook = EMPTY) -> RateBook:
    """The prices in the database, as a worker that has ``known`` reads them."""

    async def load() -> RateBook:
        async with await AsyncConnection.connect(**connection_parameters()) as connection:
            return await load_rates(connection, known)

    return asyncio.run(load())


@pytest.mark.usefixtures("committed")
def test_what_is_known_of_a_price_is_read_again_only_if_its_row_changed(slug: str) -> None:
    kept, changed, gone = (
        ModelGroup.objects.create(name=f"{slug}-{name}") for name in ("kept", "changed", "gone")
    )
    for group in (kept, changed, gone):
        set_price(acting_user=None, model_group=group, input=Decimal(1), output=Decimal(2))
    before = loaded()
    Price.objects.filter(model_group=changed).update(output=Decimal(3))
    Price.objects.filter(model_group=gone).delete()
    added = ModelGroup.objects.create(name=f"{slug}-added")
    set_price(acting_user=None, model_group=added, input=Decimal(4), output=Decimal(5))
    after = loaded(before)
    assert after.prices[kept.pk].rates[0] is before.prices[kept.pk].rates[0]
    assert after.prices[changed.pk].rates[0].output == Decimal(3)
    assert gone.pk not in after.prices
    assert after.prices[added.pk].rates[0].output == Decimal(5)
    # The same as if nothing had been known.
    assert after == loaded()
