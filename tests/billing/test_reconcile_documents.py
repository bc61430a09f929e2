"""Reconciliation of statements and of the journal: each kind of difference, broken and named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection
from django_scopes import scopes_disabled

from billing import journal, reconcile
from billing.models import LedgerEntry, LedgerTransaction, Statement, StatementLine
from billing.reconcile import Difference
from billing.services import wallet
from billing.statements import making
from tests.billing.books import Books, stamp

pytestmark = pytest.mark.django_db
NEXT_YEAR = datetime.now(tz=UTC) + timedelta(days=400)


@pytest.fixture
def books(slug: str) -> Books:
    """Books with one statement: 10 paid in, 3 used."""
    reconcile.bring_up_to_date()
    opened = Books.open(slug)
    wallet.top_up(
        acting_user=None, organization=opened.organization, amount=Decimal(10), reference=f"{slug}-wire"
    )
    opened.ship(opened.end("a", charge="3", cost="2", budget_ids=[opened.wallet.id]))
    reconcile.bring_up_to_date()
    (statement,) = making.make_through(opened.organization, NEXT_YEAR)
    assert statement.closing == 7
    return opened


def differences(books: Books, directory: Path | None = None) -> list[tuple[str, str, str]]:
    """What, expected and found; of this organization and of the platform."""
    found: list[Difference] = reconcile.compare(directory).differences
    return [
        (each.what, each.expected, each.found)
        for each in found
        if each.organization in {books.organization.slug, ""}
    ]


def forge(table: str, change: str) -> None:
    """Change rows past the guards, as only an owner of the tables can."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(change)


def test_books_with_a_statement_balance(books: Books) -> None:
    assert differences(books) == []


def test_a_changed_line_of_a_statement_is_found(books: Books) -> None:
    forge("billing_statementline", "UPDATE billing_statementline SET amount = -2 WHERE kind = 'usage'")
    assert differences(books) == [("statement and its lines", "7", "8")]


def test_a_changed_balance_of_a_statement_is_found(books: Books) -> None:
    forge("billing_statement", "UPDATE billing_statement SET closing = 8")
    assert differences(books) == [("statement and its lines", "8", "7"), ("statement and ledger", "7", "8")]


def test_an_opening_balance_that_is_not_the_closing_before_is_found(books: Books) -> None:
    forge("billing_statement", "UPDATE billing_statement SET opening = 1, closing = 8")
    assert differences(books) == [("opening balance and the closing before", "0", "1")]


def test_a_posting_that_a_statement_left_out_is_found(books: Books) -> None:
    with scopes_disabled():
        statement = Statement.objects.get(organization=books.organization)
        last = statement.postings.latest("posting_id").posting_id
        left_out = LedgerTransaction.objects.create(
            id=-last, organization=books.organization, kind="adjustment", reference=f"{last}-old"
        )
        for account, amount in (("wallet", 0), ("adjustment", 0)):
            LedgerEntry.objects.create(
                transaction=left_out, organization=books.organization, account=account, amount=amount
            )
    assert differences(books) == [("postings left out of a statement", "0", "1")]


def test_a_gap_in_the_numbers_is_found(books: Books) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_statementnumber SET last = last + 1")
    assert [what for what, _, _ in differences(books)] == ["numbers of statements"]


def test_a_line_of_a_statement_that_was_added_later_is_found(books: Books) -> None:
    with scopes_disabled():
        statement = Statement.objects.get(organization=books.organization)
        with connection.cursor() as cursor:
            # As if the statement had been committed.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        StatementLine.objects.create(statement=statement, position=99, kind="adjustment", amount=Decimal(1))
    assert differences(books) == [("statement and its lines", "7", "8")]


# --- The journal -----------------------------------------------------------------------------------

LONG_AGO = datetime.now(tz=UTC) - timedelta(minutes=6)


def write(directory: Path, books: Books, name: str, charge: str, ended: datetime = LONG_AGO) -> None:
    """The journal of a worker with one request."""
    writer = journal.JournalWriter(directory, uuid4())
    record = books.end(name, charge=charge, started_at=stamp(LONG_AGO), ended_at=stamp(ended))
    writer.begin(books.begin(name, started_at=stamp(LONG_AGO)))
    writer.end(record)
    writer.close()


def test_an_end_in_the_journal_without_an_event_is_found(books: Books, tmp_path: Path) -> None:
    write(tmp_path, books, "forgotten", "0.10")
    assert differences(books, tmp_path) == [("journal and events", "0.10", "none")]


def test_an_end_in_the_journal_with_another_charge_than_its_event_is_found(
    books: Books, tmp_path: Path
) -> None:
    write(tmp_path, books, "b", "0.10")
    books.ship(books.end("b", charge="0.11", started_at=stamp(LONG_AGO), budget_ids=[books.wallet.id]))
    assert ("journal and events", "0.10", "0.11") in differences(books, tmp_path)


def test_what_is_shipped_or_only_just_written_is_no_difference(books: Books, tmp_path: Path) -> None:
    write(tmp_path, books, "new", "0.10", ended=datetime.now(tz=UTC))
    write(tmp_path, books, "b", "0.10")
    books.ship(books.end("b", charge="0.10", started_at=stamp(LONG_AGO), budget_ids=[books.wallet.id]))
    assert differences(books, tmp_path) == []


def test_what_was_put_aside_is_the_shippers_to_report(books: Books, tmp_path: Path) -> None:
    write(tmp_path, books, "b", "0.10")
    (line,) = [
        line
        for path in tmp_path.glob("*.journal")
        for line in journal.JournalReader(path).lines()
        if line.record and line.record["t"] == "end"
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_deadletter (record, reason) VALUES (%s, 'x')", [line.raw.decode()]
        )
    assert differences(books, tmp_path) == []


def test_a_host_without_a_journal_has_nothing_to_compare(books: Books, tmp_path: Path) -> None:
    assert differences(books, tmp_path / "none") == []
