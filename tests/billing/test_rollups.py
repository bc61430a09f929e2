"""Rollups are what the events sum to, however and whenever the events came."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import connection
from django_scopes import scopes_disabled

from billing import ledger, partitions, reconcile, rollups, tasks
from billing.management.commands.ship import connection_parameters
from billing.models import DirtyBucket
from tenants.models import ApiKey
from tests.billing.books import NOON, Books, stamp

HOUR = timedelta(hours=1)


@pytest.fixture
def books(slug: str, db: None) -> Books:
    reconcile.bring_up_to_date()  # what other tests left, so that numbers here are this test's own
    return Books.open(slug)


def test_an_hour_is_summed_by_what_reports_ask_for(books: Books) -> None:
    books.ship(
        books.end("a", charge="0.10", cost="0.08"),
        books.end("b", charge="0.20", cost="0.16", cached_input_tokens=7, reasoning_tokens=5),
        books.end("c", charge="0", cost="0", status=429, end_reason="refused", model_group="other"),
        books.end("d", charge="0.01", cost="0", status=500, started_at=stamp(NOON + HOUR)),
    )
    assert rollups.refresh() == 2
    chat, other, later = books.rollups()
    assert (chat.hour, chat.model_group, chat.requests, chat.errors) == (NOON, "chat", 2, 0)
    assert (chat.charge, chat.cost) == (Decimal("0.30"), Decimal("0.24"))
    assert (chat.input_tokens, chat.cached_input_tokens, chat.output_tokens) == (200, 7, 40)
    assert chat.reasoning_tokens == 5
    assert (other.model_group, other.requests, other.errors, other.charge) == ("other", 1, 1, 0)
    assert (later.hour, later.requests, later.errors) == (NOON + HOUR, 1, 1)
    assert books.marks() == set()


def test_rarer_quantities_are_summed_by_class(books: Books) -> None:
    books.ship(
        books.end("a", quantities={"audio_input": "7", "seconds": "1.125"}),
        books.end("b", quantities={"seconds": "0.875", "images": "2"}),
        books.end("c"),
        books.end("d", model_group="embed"),
    )
    rollups.refresh()
    assert [(row.model_group, row.quantities) for row in books.rollups()] == [
        ("chat", {"audio_input": "7", "seconds": "2", "images": "2"}),
        ("embed", {}),
    ]


def test_an_hour_ends_before_the_next_begins(books: Books) -> None:
    books.ship(
        books.end("a", started_at=stamp(NOON + HOUR - timedelta(microseconds=1))),
        books.end("b", started_at=stamp(NOON + HOUR)),
    )
    rollups.refresh()
    assert [(row.hour, row.requests) for row in books.rollups()] == [(NOON, 1), (NOON + HOUR, 1)]


def test_refreshing_twice_changes_nothing(books: Books) -> None:
    books.ship(books.end("a", charge="0.10"))
    rollups.refresh()
    with scopes_disabled():
        DirtyBucket.objects.create(organization=books.organization, hour=NOON)
    assert rollups.refresh() == 1
    assert rollups.refresh() == 0
    (row,) = books.rollups()
    assert (row.requests, row.charge) == (1, Decimal("0.10"))


def test_a_late_event_and_a_duplicate_leave_the_true_sum(books: Books) -> None:
    books.ship(books.end("a", charge="0.10"))
    rollups.refresh()
    assert books.ship(books.end("b", charge="0.05"), books.end("a", charge="0.10")) == (1, 0)
    rollups.refresh()
    (row,) = books.rollups()
    assert (row.requests, row.charge) == (2, Decimal("0.15"))


def test_the_order_of_shipping_makes_no_difference(books: Books) -> None:
    records = [books.end(str(number), charge=f"0.0{number}") for number in range(1, 7)]
    for record in (records[4], records[0], records[5], records[2], records[1], records[3]):
        books.ship(record)
        rollups.refresh()
    (row,) = books.rollups()
    # 1 + 2 + 3 + 4 + 5 + 6 = 21 cents.
    assert (row.requests, row.charge) == (6, Decimal("0.21"))


def test_many_marks_of_an_hour_are_one_recomputation(books: Books) -> None:
    for name in "abc":
        books.ship(books.end(name))
    assert rollups.refresh() == 1
    assert books.marks() == set()


def test_no_more_hours_are_done_than_asked_oldest_mark_first(books: Books) -> None:
    for number in (2, 0, 1):
        books.ship(books.end(str(number), started_at=stamp(NOON + number * HOUR)))
    assert rollups.refresh(limit=2) == 2
    assert books.marks() == {NOON + HOUR}


def test_the_key_shows_when_it_was_last_used(books: Books) -> None:
    books.ship(books.end("a", started_at=stamp(NOON + timedelta(minutes=5))), books.end("b"))
    rollups.refresh()
    with scopes_disabled():
        assert ApiKey.objects.get(id=books.key.id).last_used_at == NOON + timedelta(minutes=5)
    # A late event does not turn the time back.
    books.ship(books.end("c", started_at=stamp(NOON - HOUR)))
    rollups.refresh()
    with scopes_disabled():
        assert ApiKey.objects.get(id=books.key.id).last_used_at == NOON + timedelta(minutes=5)


def test_another_organizations_key_is_not_touched(books: Books, slug: str) -> None:
    stranger = Books.open(f"{slug}-x")
    books.ship(books.end("a", key_id=stranger.key.id))
    rollups.refresh()
    with scopes_disabled():
        assert ApiKey.objects.get(id=stranger.key.id).last_used_at is None


def test_a_tenant_that_is_stuck_does_not_delay_the_others(committed: None, slug: str) -> None:
    stuck, other = Books.open(slug), Books.open(f"{slug}-x")
    stuck.ship(stuck.end("a"))
    other.ship(other.end("b"))
    parameters = connection_parameters()
    with psycopg.connect(**parameters) as held:
        held.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('billing.rollups:' || %s::text, 0))",
            [stuck.organization.id],
        )
        rollups.refresh()
        assert (len(stuck.rollups()), len(other.rollups())) == (0, 1)
        assert stuck.marks() == {NOON}
    rollups.refresh()
    assert len(stuck.rollups()) == 1
    stuck.close()
    other.close()


def test_while_the_task_of_one_tenant_hangs_on_a_lock_another_tenants_goes_through(
    committed: None, slug: str
) -> None:
    stuck, other = Books.open(slug), Books.open(f"{slug}-x")
    stuck.ship(stuck.end("a"))
    other.ship(other.end("b"))
    with psycopg.connect(**connection_parameters()) as held, ThreadPoolExecutor(1) as pool:
        held.execute("SELECT FROM tenants_apikey WHERE id = %s FOR UPDATE", [stuck.key.id])
        hanging = pool.submit(task_in_a_thread, stuck.organization.id)
        wait_until_somebody_waits()
        tasks.refresh_rollups_of(other.organization.id)
        assert len(other.rollups()) == 1
        # It gives up, and leaves what is to do.
        hanging.result()
        assert (stuck.rollups(), stuck.marks()) == ([], {NOON})
    tasks.refresh_rollups_of(stuck.organization.id)
    assert len(stuck.rollups()) == 1
    stuck.close()
    other.close()


def test_an_event_that_arrives_during_the_recomputation_is_not_missed(committed: None, slug: str) -> None:
    books = Books.open(slug)
    books.ship(books.end("a", charge="0.10"))
    parameters = connection_parameters()
    with psycopg.connect(**parameters) as held, ThreadPoolExecutor(1) as pool:
        # The recomputation has summed the events when it comes to the key, and waits there.
        held.execute("SELECT FROM tenants_apikey WHERE id = %s FOR UPDATE", [books.key.id])
        refreshed = pool.submit(refresh_in_a_thread)
        wait_until_somebody_waits()
        books.ship(books.end("b", charge="0.20"))
        held.rollback()
        refreshed.result(timeout=60)
    rollups.refresh()
    (row,) = books.rollups()
    assert (row.requests, row.charge, books.marks()) == (2, Decimal("0.30"), set())
    books.close()


def refresh_in_a_thread() -> None:
    rollups.refresh()
    connection.close()


def task_in_a_thread(organization_id: int) -> None:
    tasks.refresh_rollups_of(organization_id)
    connection.close()


def wait_until_somebody_waits() -> None:
    deadline = time.monotonic() + 30
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%tenants_apikey%'"
            )
            if cursor.fetchone()[0]:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_a_tenant_that_fails_is_logged_and_keeps_its_mark(
    books: Books, slug: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = Books.open(f"{slug}-x")
    # Two charges that each fit the column and together do not.
    books.ship(*(books.end(name, charge="900000000000", budget_ids=[]) for name in "ab"))
    other.ship(other.end("c"))
    rollups.refresh()
    assert (len(books.rollups()), len(other.rollups())) == (0, 1)
    assert books.marks() == {NOON}
    assert f"organization {books.organization.id}" in caplog.text


def test_the_tasks_bring_usage_to_the_ledger(books: Books) -> None:
    books.ship(books.end("a", charge="0.10"))
    tasks.refresh_rollups_of(books.organization.id)
    tasks.post_usage_of(books.organization.id)
    tasks.ensure_partitions()
    assert ledger.balance(books.organization) == Decimal("-0.10")


def test_this_month_and_the_next_have_partitions(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'billing_usageevent'::regclass"
        )
        found = {row[0] for row in cursor.fetchall()}
    assert {partitions.name_of(NOON), partitions.name_of(partitions.after(NOON))} <= found


def test_a_young_hour_lies_there_by_the_minute_and_is_whole_when_it_is_over(books: Books) -> None:
    at = NOON + timedelta(minutes=30)
    books.ship(books.end("a", charge="0.10"), books.end("b", started_at=stamp(NOON + timedelta(minutes=2))))
    assert rollups.refresh(at=at) == 1
    assert sorted((row.minute, row.requests) for row in books.rollups()) == [(0, 1), (2, 1)]
    # Late, in a minute that is summed already; the other one is left alone.
    before = {row.minute: row.pk for row in books.rollups()}
    books.ship(books.end("c", charge="0.30"))
    rollups.refresh(at=at)
    after = {row.minute: row.pk for row in books.rollups()}
    assert (after[2] == before[2], after[0] == before[0]) == (True, False)
    assert sum(row.charge for row in books.rollups()) == Decimal("0.50")
    # An hour and ten minutes after it began nothing marked it, and it is summed as a whole.
    assert rollups.refresh(at=NOON + timedelta(minutes=71)) == 1
    (row,) = books.rollups()
    assert (row.minute, row.requests, row.charge) == (None, 3, Decimal("0.50"))
    assert rollups.refresh(at=NOON + timedelta(minutes=72)) == 0


def test_a_young_hour_that_was_summed_as_a_whole_is_not_counted_twice(books: Books) -> None:
    books.ship(books.end("a", charge="0.10"))
    rollups.refresh(at=NOON + 2 * HOUR)
    books.ship(books.end("b", charge="0.20", started_at=stamp(NOON + timedelta(minutes=5))))
    rollups.refresh(at=NOON + timedelta(minutes=10))
    assert sum(row.requests for row in books.rollups()) == 2
    assert sum(row.charge for row in books.rollups()) == Decimal("0.30")
