"""Reconciliation finds each kind of difference, and none where the books balance."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django_scopes import scopes_disabled

from billing import ledger, reconcile, rollups, spans, tasks
from billing.models import (
    Budget,
    DirtyBucket,
    LedgerEntry,
    LedgerTransaction,
    ReconcileReport,
    UsageRollup,
    UsageSpan,
    UsageSpanSum,
)
from billing.money import plain
from billing.reconcile import Difference
from tests.billing.books import NOON, Books, stamp


@pytest.fixture
def books(slug: str, db: None) -> Books:
    """Books that balance: two events of 0.30 in all, one shared budget, one lease."""
    reconcile.bring_up_to_date()  # what other tests left
    opened = Books.open(slug)
    worker = uuid4()
    budget = opened.budget(held="2")
    opened.lease(budget, worker, "2")
    both = [opened.wallet.id, budget.id]
    opened.ship(
        opened.end("a", charge="0.10", cost="0.08", budget_ids=both),
        opened.end(
            "b", charge="0.20", cost="0.1", budget_ids=both, started_at=stamp(NOON + timedelta(hours=1))
        ),
        worker=worker,
    )
    reconcile.bring_up_to_date()
    return opened


def found(books: Books) -> list[Difference]:
    """The differences of this organization."""
    return [d for d in reconcile.compare().differences if d.organization == books.organization.slug]


def change(table: str, assignment: str, books: Books) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {assignment} WHERE organization_id = %s", [books.organization.id])


def run(**options: Any) -> tuple[str, int]:
    """Output and exit status of the command."""
    out = StringIO()
    try:
        call_command("reconcile", stdout=out, **options)
    except SystemExit as error:
        return out.getvalue(), int(str(error.code))
    return out.getvalue(), 0


def test_books_that_balance_show_no_difference(books: Books) -> None:
    assert found(books) == []


def test_a_wrong_rollup_is_found_with_both_figures(books: Books) -> None:
    with scopes_disabled():
        UsageRollup.objects.filter(organization=books.organization, hour=NOON).update(
            requests=2, charge=Decimal("0.11")
        )
    slug, hour = books.organization.slug, f"{NOON:%Y-%m-%d}T12Z"
    assert found(books) == [
        Difference(slug, "requests of events and rollups", hour, "1", "2"),
        Difference(slug, "charge of events and rollups", hour, "0.10", "0.11"),
        Difference(slug, "charge of rollups and ledger", hour, "0.11", "0.10"),
    ]


def test_a_wrong_quantity_is_found_and_settled(books: Books) -> None:
    books.ship(books.end("c", quantities={"images": "2"}))
    reconcile.bring_up_to_date()
    assert found(books) == []
    with scopes_disabled():
        UsageRollup.objects.filter(organization=books.organization, hour=NOON).update(
            quantities={"images": "3"}
        )
    slug, hour = books.organization.slug, f"{NOON:%Y-%m-%d}T12Z"
    assert found(books) == [Difference(slug, "images of events and rollups", hour, "2", "3")]
    reconcile.bring_up_to_date(settle=True)
    assert found(books) == []


@pytest.mark.parametrize("kind", [spans.DAY, spans.MONTH])
@pytest.mark.parametrize("slice_name", list(spans.SLICES))
def test_a_day_or_month_that_is_not_the_sum_of_its_hours_is_found_and_settled(
    books: Books, kind: str, slice_name: str
) -> None:
    # All of the other shares are right, and so is the other kind.
    while spans.refresh(at=NOON + timedelta(days=40)):
        pass
    assert found(books) == []
    with scopes_disabled():
        span = UsageSpan.objects.get(
            organization=books.organization, kind=kind, start__lte=NOON, end__gt=NOON
        )
        UsageSpanSum.objects.filter(span=span, slice=slice_name).update(charge=Decimal("0.31"))
    assert found(books) == [
        Difference(
            books.organization.slug,
            f"charge of hours and {kind}s",
            f"{span.start:%Y-%m-%dT%HZ} {kind} by {slice_name}",
            "0.30",
            "0.31",
        )
    ]
    reconcile.bring_up_to_date(settle=True)
    assert found(books) == []


def test_a_missing_rollup_is_found(books: Books) -> None:
    with scopes_disabled():
        UsageRollup.objects.filter(organization=books.organization, hour=NOON).delete()
    missing = {difference.what: (difference.expected, difference.found) for difference in found(books)}
    assert missing["requests of events and rollups"] == ("1", "0")
    assert missing["cost of rollups and ledger"] == ("0", "0.08")


def test_a_wrong_posting_is_found(books: Books) -> None:
    with scopes_disabled():
        posting = LedgerTransaction.objects.create(
            organization=books.organization,
            kind="usage",
            reference=f"{books.organization.slug}:x",
            usage_hour=NOON,
        )
        for account, amount in (("wallet", "0.07"), ("revenue", "-0.07")):
            LedgerEntry.objects.create(
                transaction=posting, organization=books.organization, account=account, amount=Decimal(amount)
            )
    slug = books.organization.slug
    assert found(books) == [
        Difference(slug, "charge of rollups and ledger", f"{NOON:%Y-%m-%d}T12Z", "0.10", "0.17"),
        Difference(slug, "wallet spent and ledger usage", "wallet", "0.37", "0.30"),
    ]


def test_a_posting_that_does_not_balance_is_found(books: Books) -> None:
    with connection.cursor() as cursor, scopes_disabled():
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_ledgerentry DISABLE TRIGGER ledger_balanced")
        posting = LedgerTransaction.objects.create(
            organization=books.organization, kind="top_up", reference=f"{books.organization.slug}:x"
        )
        LedgerEntry.objects.create(
            transaction=posting, organization=books.organization, account="cash", amount=Decimal(5)
        )
    slug = books.organization.slug
    assert found(books) == [Difference(slug, "ledger sums to zero, USD", f"{slug}:x", "0", "5")]


@pytest.mark.parametrize(
    ("billing", "credit_limit", "limit", "expected"),
    [
        ("prepaid", None, "25", None),
        ("prepaid", None, "24", "25"),
        ("prepaid", None, None, "25"),
        ("postpaid", "100", "125", None),
        ("postpaid", "100", "25", "125"),
        ("postpaid", None, None, None),
        ("postpaid", None, "25", "none"),
    ],
)
def test_the_wallets_limit_is_what_was_received_and_the_credit(
    books: Books, billing: str, credit_limit: str | None, limit: str | None, expected: str | None
) -> None:
    # Two top-ups of 10 and 15 dollars.
    with scopes_disabled():
        for amount in (10, 15):
            posting = LedgerTransaction.objects.create(
                organization=books.organization,
                kind="top_up",
                reference=f"{books.organization.slug}:{amount}",
            )
            for account, signed in (("cash", amount), ("wallet", -amount)):
                LedgerEntry.objects.create(
                    transaction=posting,
                    organization=books.organization,
                    account=account,
                    amount=Decimal(signed),
                )
        organization = books.organization
        organization.billing = billing
        organization.credit_limit = None if credit_limit is None else Decimal(credit_limit)
        organization.save(update_fields=["billing", "credit_limit"])
        Budget.objects.filter(id=books.wallet.id).update(limit=None if limit is None else Decimal(limit))
    differences = found(books)
    if expected is None:
        assert differences == []
    else:
        (difference,) = differences
        assert difference.what == "wallet limit and money received"
        assert (difference.expected, difference.found) == (expected, limit or "none")


def test_a_wrong_counter_is_found(books: Books) -> None:
    with scopes_disabled():
        Budget.objects.filter(organization=books.organization, quota__isnull=False).update(
            spent=Decimal("0.31")
        )
    (difference,) = found(books)
    assert difference.what == "spent and charges of events"
    assert difference.where.startswith(f"key month from {NOON:%Y-%m-%d} (")
    assert (difference.expected, difference.found) == ("0.30", "0.31")


def test_what_was_spent_before_the_counter_was_made_counts(books: Books) -> None:
    with scopes_disabled():
        Budget.objects.filter(organization=books.organization, quota__isnull=False).update(
            opening=Decimal(3), spent=Decimal("3.30")
        )
    assert found(books) == []


def test_a_wallet_that_differs_from_the_ledger_is_found(books: Books) -> None:
    with scopes_disabled():
        Budget.objects.filter(id=books.wallet.id).update(spent=Decimal(3), opening=Decimal("2.70"))
    assert found(books) == [
        Difference(books.organization.slug, "wallet spent and ledger usage", "wallet", "0.30", "3")
    ]


def test_money_held_without_a_lease_is_found(books: Books) -> None:
    change("billing_budget", "held = held + 0.5", books)
    assert [(d.what, d.expected, d.found) for d in found(books)] == [
        ("held and leases", "0", "0.50"),  # the wallet
        ("held and leases", "1.70", "2.20"),  # the budget: 2 - 0.30 is leased
    ]


def test_what_waits_to_be_recomputed_is_no_difference(books: Books) -> None:
    books.ship(books.end("c", charge="0.40"))
    comparison = reconcile.compare()
    assert comparison.waiting == 1
    assert [d for d in comparison.differences if d.organization == books.organization.slug] == []
    # And what waits to be posted neither.
    rollups.refresh()
    assert found(books) == []
    ledger.post_usage()
    assert (found(books), reconcile.compare().waiting) == ([], 0)


def test_settling_restores_rollups_from_events_and_postings_from_rollups(books: Books) -> None:
    books.ship(books.end("c", charge="0.40", budget_ids=[books.wallet.id]))
    with scopes_disabled():
        # A mark that was lost.
        DirtyBucket.objects.filter(organization=books.organization).delete()
    assert found(books) != []
    reconcile.bring_up_to_date()
    assert found(books) != []
    reconcile.bring_up_to_date(settle=True)
    assert found(books) == []
    assert ledger.balance(books.organization) == Decimal("-0.70")


def test_settling_leaves_the_counters_alone(books: Books) -> None:
    change("billing_budget", "spent = 9", books)
    reconcile.bring_up_to_date(settle=True)
    assert books.counters()[0] == 9
    assert found(books) != []


def test_the_command_says_that_the_books_balance(books: Books) -> None:
    before = reconcile.compare().totals
    books.ship(books.end("c", charge="0.40", cost="0.02"))
    events, charge, cost = before.events + 1, before.charge + Decimal("0.40"), before.cost + Decimal("0.02")
    output, status = run()
    assert (output, status) == (
        f"Books balanced: {events} events, charge {plain(charge)}, cost {plain(cost)}\n",
        0,
    )
    report = ReconcileReport.objects.latest("id")
    assert (report.balanced, report.differences) == (True, [])


def test_the_command_shows_the_differences_and_fails(books: Books) -> None:
    change("billing_budget", "held = held + 0.5", books)
    output, status = run(settle=True)
    lines = output.splitlines()
    assert status == 1
    assert lines[0].split() == ["Organization", "What", "Where", "Expected", "Found"]
    first = f"{books.organization.slug} held and leases wallet ({books.wallet.id}) 0 0.50"
    assert lines[1].split() == first.split()
    assert lines[-1] == "2 differences."
    report = ReconcileReport.objects.latest("id")
    assert not report.balanced
    assert report.differences[0] == {
        "organization": books.organization.slug,
        "what": "held and leases",
        "where": f"wallet ({books.wallet.id})",
        "expected": "0",
        "found": "0.50",
    }


def test_the_nightly_task_keeps_a_report(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    change("billing_budget", "held = held + 0.5", books)
    tasks.reconcile_books()
    assert not ReconcileReport.objects.latest("id").balanced
    assert "The books do not balance: 2 differences." in caplog.text
