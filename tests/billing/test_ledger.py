"""The ledger holds what the rollups sum to, in postings that are never changed and sum to zero."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django_scopes import scopes_disabled

from billing import ledger, reconcile, rollups
from billing.management.commands.ship import connection_parameters
from billing.models import LedgerEntry, LedgerTransaction
from tests.billing.books import NOON, Books, stamp


@pytest.fixture
def books(slug: str, db: None) -> Books:
    reconcile.bring_up_to_date()  # what other tests left, so that numbers here are this test's own
    return Books.open(slug)


def postings(books: Books) -> list[tuple[str, dict[str, Decimal]]]:
    """Reference and lines of each posting, oldest first."""
    with scopes_disabled():
        made = LedgerTransaction.objects.filter(organization=books.organization).order_by("id")
        return [
            (posting.reference, dict(posting.entries.values_list("account", "amount"))) for posting in made
        ]


def use(books: Books, name: str, charge: str, cost: str) -> int:
    books.ship(books.end(name, charge=charge, cost=cost))
    rollups.refresh()
    return ledger.post_usage()


def post(books: Books, *lines: tuple[str, str, str]) -> None:
    """Post lines of (account, amount, currency) and have them checked as at a commit."""
    with scopes_disabled(), transaction.atomic():
        posting = LedgerTransaction.objects.create(
            organization=books.organization, kind="adjustment", reference=f"{books.organization.slug}:x"
        )
        for account, amount, currency in lines:
            LedgerEntry.objects.create(
                transaction=posting,
                organization=books.organization,
                account=account,
                amount=Decimal(amount),
                currency=currency,
            )
        check_now()


def check_now() -> None:
    """Have the deferred checks run, as at a commit."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def attempt(statement: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_an_hours_usage_is_one_posting_of_four_lines(books: Books) -> None:
    books.ship(books.end("a", charge="0.10", cost="0.08"), books.end("b", charge="0.20", cost="0.10"))
    rollups.refresh()
    assert ledger.post_usage() == 1
    assert postings(books) == [
        (
            f"usage:{books.organization.id}:{NOON:%Y-%m-%d}T12Z:1",
            {
                "receivable": Decimal("0.30"),
                "revenue": Decimal("-0.30"),
                "provider_cost": Decimal("0.18"),
                "provider_payable": Decimal("-0.18"),
            },
        )
    ]
    assert ledger.balance(books.organization) == Decimal("-0.30")
    check_now()


def test_a_late_event_is_posted_as_a_difference(books: Books) -> None:
    use(books, "a", "0.10", "0.08")
    assert use(books, "b", "0.05", "0.01") == 1
    (first, _), (second, lines) = postings(books)
    assert (first[-2:], second[-2:]) == (":1", ":2")
    assert lines["receivable"] == Decimal("0.05")
    assert ledger.balances(books.organization) == {
        "receivable": Decimal("0.15"),
        "revenue": Decimal("-0.15"),
        "provider_cost": Decimal("0.09"),
        "provider_payable": Decimal("-0.09"),
    }


def test_posting_again_posts_nothing(books: Books) -> None:
    use(books, "a", "0.10", "0.08")
    assert ledger.post_usage() == 0
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_unpostedhour (organization_id, hour) VALUES (%s, %s)",
            [books.organization.id, NOON],
        )
    assert ledger.post_usage() == 0
    assert len(postings(books)) == 1


def test_usage_that_costs_nothing_is_not_posted(books: Books) -> None:
    assert use(books, "a", "0", "0") == 0
    assert postings(books) == []


def test_only_the_lines_that_are_not_zero_are_posted(books: Books) -> None:
    use(books, "a", "0", "0.08")
    ((_, lines),) = postings(books)
    assert lines == {"provider_cost": Decimal("0.08"), "provider_payable": Decimal("-0.08")}


def test_each_hour_has_its_posting(books: Books) -> None:
    books.ship(
        books.end("a", charge="0.10"),
        books.end("b", charge="0.20", started_at=stamp(NOON + timedelta(hours=1))),
    )
    rollups.refresh()
    assert ledger.post_usage() == 2
    with scopes_disabled():
        hours = list(LedgerTransaction.objects.order_by("id").values_list("usage_hour", flat=True))
    assert hours == [NOON, NOON + timedelta(hours=1)]


def test_a_tenant_that_is_stuck_does_not_delay_the_others(committed: None, slug: str) -> None:
    stuck, other = Books.open(slug), Books.open(f"{slug}-x")
    for each in (stuck, other):
        each.ship(each.end("a", charge="0.10"))
    rollups.refresh()
    with psycopg.connect(**connection_parameters()) as held:
        held.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('billing.ledger:' || %s::text, 0))",
            [stuck.organization.id],
        )
        ledger.post_usage()
        assert (len(postings(stuck)), len(postings(other))) == (0, 1)
    ledger.post_usage()
    assert len(postings(stuck)) == 1


@pytest.mark.parametrize("table", ["billing_ledgertransaction", "billing_ledgerentry"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_the_past_cannot_be_changed(books: Books, table: str, statement: str) -> None:
    post(books, ("wallet", "1", "USD"), ("cash", "-1", "USD"))
    with pytest.raises(IntegrityError, match="only ever added"):
        attempt(statement.format(table))
    assert len(postings(books)) == 1


@pytest.mark.parametrize("wallet", ["-9.99", "-10.01"])
def test_a_posting_that_does_not_sum_to_zero_is_refused(books: Books, wallet: str) -> None:
    with pytest.raises(IntegrityError, match="do not sum to zero"):
        post(books, ("cash", "10", "USD"), ("wallet", wallet, "USD"))


def test_a_posting_may_be_unbalanced_until_it_is_complete(books: Books) -> None:
    post(books, ("cash", "10", "USD"), ("wallet", "-7", "USD"), ("adjustment", "-3", "USD"))
    assert ledger.balance(books.organization) == 7


def test_dollars_do_not_balance_euros(books: Books) -> None:
    with pytest.raises(IntegrityError, match="do not sum to zero"):
        post(books, ("cash", "10", "USD"), ("wallet", "-10", "EUR"))
