"""However often, late and in whatever order records are settled, each counts once."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import rollups
from tests.billing.books import Books

pytestmark = pytest.mark.django_db

# Batches of requests by number, in any order, with repetitions within and between them.
BATCHES = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=6), min_size=1, max_size=6)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=BATCHES)
def test_duplicate_late_and_reordered_shipping_changes_nothing(
    batches: Sequence[Sequence[int]], db: None
) -> None:
    books = Books.open(f"s{uuid4().hex[:12]}")
    workers = [uuid4(), uuid4()]
    for number, batch in enumerate(batches):
        # Another worker's journal may bring what was shipped already.
        books.ship(*(books.end(str(n), charge=f"0.{n + 1:03}") for n in batch), worker=workers[number % 2])
        rollups.refresh()
    told = {n for batch in batches for n in batch}
    expected = sum((Decimal(n + 1) / 1000 for n in told), Decimal(0))
    assert len(books.events()) == len(told)
    assert books.counters() == (expected, Decimal(0))
    assert sum(row.requests for row in books.rollups()) == len(told)
    assert sum((row.charge for row in books.rollups()), Decimal(0)) == expected
