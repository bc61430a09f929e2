"""The role that Weir works as adds to the books and cannot change them, even with the triggers off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import ProgrammingError, connection, transaction
from django_scopes import scopes_disabled

from billing import database_role, ledger, partitions, reconcile, retention, rollups
from billing.services import grants, wallet
from billing.statements import making
from tenants.models import User
from tests.billing.books import Books

pytestmark = pytest.mark.django_db


def execute(statement: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def books(slug: str) -> Books:
    """An organization with usage, money, a grant and a statement, all made as the role."""
    opened = Books.open(slug)
    olga = User.objects.create_user(f"olga-{slug}@platform.example")
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {database_role.ROLE}")
    wallet.top_up(acting_user=None, organization=opened.organization, amount=Decimal(10), reference=slug)
    grants.give_grant(
        acting_user=olga,
        organization=opened.organization,
        amount=Decimal(5),
        expires_at=datetime.now(tz=UTC) + timedelta(days=1),
        reason="x",
        reference=f"{slug}-grant",
    )
    opened.ship(opened.end("a", charge="3", budget_ids=[opened.wallet.id]))
    rollups.refresh()
    ledger.post_usage()
    making.make_through(opened.organization, datetime.now(tz=UTC) + timedelta(days=400))
    return opened


def test_the_role_does_all_of_the_accounting(books: Books) -> None:
    assert ledger.balance(books.organization) == 12
    assert [d for d in reconcile.compare().differences if d.organization == books.organization.slug] == []


@pytest.mark.parametrize("table", [*database_role.ADDED_ONLY, *database_role.READ_ONLY])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET organization_id = 1", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
def test_it_can_change_nothing_even_with_the_triggers_off(books: Books, table: str, statement: str) -> None:
    if "statementline" in table or "statementposting" in table:
        statement = statement.replace("organization_id", "statement_id")
    execute("SET CONSTRAINTS ALL IMMEDIATE")
    execute("SET LOCAL ROLE NONE")
    execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    execute(f"SET LOCAL ROLE {database_role.ROLE}")
    with pytest.raises(ProgrammingError, match="permission denied"):
        execute(statement.format(table))


def test_it_may_remove_details_of_old_requests(books: Books) -> None:
    with scopes_disabled():
        books.organization.keep_details_days = 30
        books.organization.save(update_fields=["keep_details_days"])
        retention.remove_details(books.organization, now=datetime.now(tz=UTC) + timedelta(days=60))
    assert [event.attempts for event in books.events()] == [[]]
    with pytest.raises(ProgrammingError, match="permission denied"):
        execute("UPDATE billing_usageevent SET charge = 0")


def test_it_cannot_turn_the_triggers_off(books: Books) -> None:
    with pytest.raises(ProgrammingError, match="must be owner"):
        execute("ALTER TABLE billing_ledgerentry DISABLE TRIGGER USER")


def test_a_partition_of_events_cannot_be_reached_past_its_parent(books: Books) -> None:
    name = partitions.name_of(datetime.now(tz=UTC))
    with pytest.raises(ProgrammingError, match="permission denied"):
        execute(f"DELETE FROM {name}")


def test_the_partition_of_a_month_is_made_whatever_the_role_and_the_role_stays(books: Books) -> None:
    with connection.cursor() as cursor:
        assert partitions.ensure(cursor, datetime(2043, 5, 1, tzinfo=UTC))
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == (database_role.ROLE,)
