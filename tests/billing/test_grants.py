"""Promotional credit: spent before paid money, taken back at its end, never more than was left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django_scopes import scope, scopes_disabled

from billing import ledger, reconcile, rollups
from billing.models import AccountBalance, Budget, Grant, LedgerEntry
from billing.services import grants, wallet
from tenants.models import AuditEntry, Organization, User
from tests.billing.books import Books, stamp

pytestmark = pytest.mark.django_db
D = Decimal
NOW = datetime.now(tz=UTC)
THIS_HOUR = NOW.replace(minute=0, second=0, microsecond=0)
END = THIS_HOUR + timedelta(days=7)


@pytest.fixture
def books(slug: str) -> Books:
    """Prepaid, with 10 US dollars paid in."""
    reconcile.bring_up_to_date()
    opened = Books.open(slug, limit="0")
    with scopes_disabled():
        Organization.objects.filter(pk=opened.organization.pk).update(billing="prepaid")
        opened.organization.refresh_from_db()
    wallet.top_up(acting_user=None, organization=opened.organization, amount=D(10), reference=f"{slug}-w")
    return opened


@pytest.fixture
def olga(db: None) -> User:
    return User.objects.create_user("olga@platform.example", is_staff=True)


def give(by: User, books: Books, amount: str, name: str = "g1", end: datetime = END) -> Grant:
    return grants.give_grant(
        acting_user=by,
        organization=books.organization,
        amount=D(amount),
        expires_at=end,
        reason="Welcome",
        reference=f"{books.organization.slug}-{name}",
    )


def use(books: Books, name: str, charge: str, at: datetime | None = None) -> None:
    # A grant pays from the hour in which it was given, so usage must not be older than the test.
    at = at or datetime.now(tz=UTC)
    books.ship(books.end(name, charge=charge, cost="0", started_at=stamp(at), ended_at=stamp(at)))
    rollups.refresh()
    ledger.post_usage()


def left(books: Books, grant: Grant) -> Decimal:
    with scope(organization=books.organization):
        balance: Decimal = AccountBalance.objects.get(grant=grant).balance
        return -balance


def limit(books: Books) -> Decimal | None:
    with scopes_disabled():
        found: Decimal | None = Budget.objects.get(pk=books.wallet.pk).limit
        return found


def differences(books: Books) -> list[str]:
    return [d.what for d in reconcile.compare().differences if d.organization == books.organization.slug]


def test_a_grant_is_credit_that_can_be_spent_at_once(books: Books, olga: User) -> None:
    grant = give(olga, books, "5")
    assert (left(books, grant), limit(books)) == (D(5), D(15))
    assert ledger.balances(books.organization) == {
        "wallet": D(-10), "cash": D(10), "grants": D(-5), "promotion": D(5),
    }  # fmt: skip
    assert ledger.balance(books.organization) == 15
    with scope(organization=books.organization):
        assert AuditEntry.objects.filter(verb="granted", actor=olga).count() == 1
    assert differences(books) == []


def test_usage_takes_the_grant_before_paid_money(books: Books, olga: User) -> None:
    grant = give(olga, books, "5")
    use(books, "a", "3")
    assert (left(books, grant), ledger.balances(books.organization)["wallet"]) == (D(2), D(-10))
    use(books, "b", "6")
    assert (left(books, grant), ledger.balances(books.organization)["wallet"]) == (D(0), D(-6))
    assert differences(books) == []


def test_usage_before_the_grant_is_not_paid_by_it(books: Books, olga: User) -> None:
    grant = give(olga, books, "5")
    use(books, "a", "3", at=THIS_HOUR - timedelta(seconds=1))
    assert (left(books, grant), ledger.balances(books.organization)["wallet"]) == (D(5), D(-7))


def test_what_is_left_at_the_end_is_taken_back_once_with_the_limit(books: Books, olga: User) -> None:
    grant = give(olga, books, "5")
    use(books, "a", "3")
    assert grants.expire_grants(END - timedelta(seconds=1)) == 0
    assert grants.expire_grants(END) == 1
    assert grants.expire_grants(END) == 0
    # 10 paid in and 3 of the credit that were spent.
    assert (left(books, grant), limit(books), ledger.balance(books.organization)) == (D(0), D(13), D(10))
    assert differences(books) == []


def test_a_grant_that_is_spent_has_nothing_to_take_back(books: Books, olga: User) -> None:
    give(olga, books, "5")
    use(books, "a", "5")
    assert grants.expire_grants(END + timedelta(days=2)) == 0


def test_what_is_under_way_or_not_posted_keeps_its_credit_for_a_day(books: Books, olga: User) -> None:
    grant = give(olga, books, "5")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_budget SET held = 2 WHERE id = %s", [books.wallet.pk])
    assert grants.expire_grants(END) == 1
    assert (left(books, grant), limit(books)) == (D(2), D(12))
    # A request that began before the end arrives late: 1.5 of the 2 that were kept.
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_budget SET held = 0 WHERE id = %s", [books.wallet.pk])
    use(books, "a", "1.5")
    assert left(books, grant) == D("0.5")
    assert grants.expire_grants(END) == 1
    assert (left(books, grant), limit(books)) == (D(0), D("11.5"))
    assert ledger.balances(books.organization)["wallet"] == -10
    assert differences(books) == []


def test_after_a_day_nothing_is_kept(books: Books, olga: User) -> None:
    grant = give(olga, books, "5")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_budget SET held = 2 WHERE id = %s", [books.wallet.pk])
    grants.expire_grants(END + grants.LATE)
    assert left(books, grant) == 0


def test_the_grant_that_ends_first_is_spent_first_whenever_it_was_given(books: Books, olga: User) -> None:
    later = give(olga, books, "5", "g1", END + timedelta(days=1))
    sooner = give(olga, books, "5", "g2")
    use(books, "a", "6")
    assert (left(books, sooner), left(books, later)) == (D(0), D(4))


def test_an_end_within_an_hour_is_moved_to_its_end(books: Books, olga: User) -> None:
    assert give(olga, books, "5", end=END + timedelta(minutes=1)).expires_at == END + timedelta(hours=1)


def test_the_same_reference_gives_once(books: Books, olga: User) -> None:
    assert give(olga, books, "5").pk == give(olga, books, "5").pk
    assert limit(books) == 15
    with pytest.raises(grants.OtherGrant):
        give(olga, books, "6")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"amount": D(0)}, wallet.BadAmount),
        ({"reason": " "}, wallet.ReasonMissing),
        ({"expires_at": THIS_HOUR}, grants.BadExpiry),
    ],
)
def test_a_wrong_grant_is_refused(
    books: Books, olga: User, changes: dict[str, object], error: type[Exception]
) -> None:
    wanted = {"amount": D(1), "expires_at": END, "reason": "x", "reference": "r"} | changes
    with pytest.raises(error):
        grants.give_grant(acting_user=olga, organization=books.organization, **wanted)  # type: ignore[arg-type]  # wrong on purpose


def test_credit_is_not_paid_out_by_a_refund(books: Books, olga: User) -> None:
    give(olga, books, "5")
    with scope(organization=books.organization):
        paid = LedgerEntry.objects.get(account="cash").transaction
    use(books, "a", "7")  # all of the credit, and 2 of what was paid
    with pytest.raises(wallet.NotRefundable, match=r"8\.00 US dollars that are not spent"):
        wallet.refund(
            acting_user=olga,
            organization=books.organization,
            top_up=paid,
            amount=D(9),
            reason="x",
            reference="r",
        )


def test_money_that_comes_in_settles_what_is_owed(books: Books) -> None:
    use(books, "a", "12")
    assert ledger.balances(books.organization)["receivable"] == 2
    wallet.top_up(acting_user=None, organization=books.organization, amount=D(5), reference="late-money")
    found = ledger.balances(books.organization)
    assert (found["receivable"], found["wallet"]) == (D(0), D(-3))
    assert differences(books) == []


@pytest.mark.parametrize("statement", ["UPDATE billing_grant SET amount = 1", "DELETE FROM billing_grant"])
def test_a_grant_cannot_be_changed(books: Books, olga: User, statement: str) -> None:
    give(olga, books, "5")
    with (
        pytest.raises(IntegrityError, match="only ever added"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)


def test_a_balance_that_missed_an_entry_is_found(books: Books) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_accountbalance SET balance = balance - 1 WHERE organization_id = %s AND account = 'cash'",
            [books.organization.pk],
        )
    (found,) = [d for d in reconcile.compare().differences if d.organization == books.organization.slug]
    assert (found.what, found.where, found.expected, found.found) == (
        "entries and balance",
        "cash USD",
        "10",
        "9",
    )


def test_a_grant_that_paid_more_than_it_had_is_found(books: Books, olga: User) -> None:
    grant = give(olga, books, "5")
    with scopes_disabled():
        posting = grant.posting
        for account, owner, amount in (("grants", grant, 6), ("wallet", None, -6)):
            LedgerEntry.objects.create(
                transaction=posting,
                organization=books.organization,
                account=account,
                grant=owner,
                amount=D(amount),
            )
    assert set(differences(books)) == {"grant and its posting", "grant overspent"}
