"""Adjustments and refunds: on both sides of the books, by a person, once, and never more than there is."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import connection
from django_scopes import scope, scopes_disabled

from billing import ledger, reconcile
from billing.models import LedgerEntry, LedgerTransaction
from billing.services import wallet
from tenants.models import AuditEntry, Organization, User
from tests.billing.made_usage import Tenant, make_tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Organization:
    """Prepaid, with 10 US dollars paid in under the reference wire-1."""
    organization = make_tenant("acme").organization
    organization.billing = "prepaid"
    with scopes_disabled():
        organization.save(update_fields=["billing"])
    wallet.top_up(acting_user=None, organization=organization, amount=Decimal(10), reference="wire-1")
    return organization


@pytest.fixture
def olga(db: None) -> User:
    return User.objects.create_user("olga@platform.example", is_staff=True)


def wire(organization: Organization) -> LedgerTransaction:
    with scope(organization=organization):
        return LedgerTransaction.objects.get(reference="wire-1")


def give(by: User, organization: Organization, amount: str, reference: str = "a1") -> LedgerTransaction:
    return wallet.adjust(
        acting_user=by,
        organization=organization,
        amount=Decimal(amount),
        reason="Outage of 3 March",
        reference=reference,
    )


def pay_back(by: User, organization: Organization, amount: str, reference: str = "r1") -> LedgerTransaction:
    return wallet.refund(
        acting_user=by,
        organization=organization,
        top_up=wire(organization),
        amount=Decimal(amount),
        reason="Contract ended",
        reference=reference,
    )


def count(organization: Organization, spent: str, held: str) -> None:
    """Have the wallet's counter say what was used."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_budget SET spent = %s, held = %s WHERE organization_id = %s",
            [spent, held, organization.pk],
        )


def lines(posting: LedgerTransaction) -> dict[str, Decimal]:
    with scopes_disabled():
        return dict(LedgerEntry.objects.filter(transaction=posting).values_list("account", "amount"))


def limit(organization: Organization) -> Decimal | None:
    found: Decimal | None = wallet.wallet(organization).limit
    return found


def test_an_adjustment_is_posted_on_both_sides_and_can_be_spent(acme: Organization, olga: User) -> None:
    posted = give(olga, acme, "2.5")
    assert lines(posted) == {"adjustment": Decimal("2.5"), "wallet": Decimal("-2.5")}
    assert (posted.kind, posted.memo, posted.actor) == ("adjustment", "Outage of 3 March", olga)
    assert limit(acme) == ledger.balance(acme) == Decimal("12.5")


def test_an_adjustment_may_take_money(acme: Organization, olga: User) -> None:
    assert lines(give(olga, acme, "-4")) == {"adjustment": Decimal(-4), "wallet": Decimal(4)}
    assert limit(acme) == ledger.balance(acme) == Decimal(6)


def test_the_same_reference_adjusts_once(acme: Organization, olga: User) -> None:
    assert give(olga, acme, "1").pk == give(olga, acme, "1").pk
    assert limit(acme) == Decimal(11)
    with scope(organization=acme):
        assert AuditEntry.objects.filter(verb="adjusted", actor=olga).count() == 1


@pytest.mark.parametrize("amount", ["2", "-1"])
def test_a_known_reference_with_another_amount_is_refused(
    acme: Organization, olga: User, amount: str
) -> None:
    give(olga, acme, "1")
    with pytest.raises(wallet.ReferenceUsed):
        give(olga, acme, amount)


def test_the_reference_of_a_top_up_is_not_one_of_an_adjustment(acme: Organization, olga: User) -> None:
    with pytest.raises(wallet.ReferenceUsed):
        give(olga, acme, "10", reference="wire-1")


@pytest.mark.parametrize("amount", ["0", "0.0000000000001", "NaN", "-Infinity"])
def test_what_is_no_amount_is_not_adjusted(acme: Organization, olga: User, amount: str) -> None:
    with pytest.raises(wallet.BadAmount):
        give(olga, acme, amount)


def test_without_a_reason_or_a_person_nothing_is_adjusted(acme: Organization, olga: User) -> None:
    for by, reason in ((olga, " "), (None, "why not")):
        with pytest.raises(wallet.ReasonMissing):
            wallet.adjust(
                acting_user=by,  # type: ignore[arg-type]  # what the type forbids is refused at run time too
                organization=acme,
                amount=Decimal(1),
                reason=reason,
                reference="a1",
            )
    assert limit(acme) == Decimal(10)


@pytest.mark.parametrize(("reference", "reason"), [("", "why"), ("x" * 121, "why"), ("a1", "y" * 301)])
def test_text_that_does_not_fit_is_refused(
    acme: Organization, olga: User, reference: str, reason: str
) -> None:
    with pytest.raises(wallet.WalletError):
        wallet.adjust(
            acting_user=olga, organization=acme, amount=Decimal(1), reason=reason, reference=reference
        )


def test_a_refund_takes_cash_and_wallet_back(acme: Organization, olga: User) -> None:
    posted = pay_back(olga, acme, "4")
    assert lines(posted) == {"cash": Decimal(-4), "wallet": Decimal(4)}
    assert (posted.kind, posted.memo, posted.actor) == ("refund", "Contract ended", olga)
    assert limit(acme) == ledger.balance(acme) == Decimal(6)
    with scope(organization=acme):
        assert AuditEntry.objects.filter(verb="refunded", actor=olga).count() == 1


def test_all_refunds_together_are_at_most_the_top_up(acme: Organization, olga: User) -> None:
    wallet.top_up(acting_user=None, organization=acme, amount=Decimal(50), reference="wire-2")
    pay_back(olga, acme, "4", "r1")
    with pytest.raises(wallet.NotRefundable, match=r"6\.00 US dollars are left"):
        pay_back(olga, acme, "6.000000000001", "r2")
    pay_back(olga, acme, "6", "r2")
    assert limit(acme) == Decimal(50)


def test_the_same_reference_refunds_once_even_when_nothing_is_left(acme: Organization, olga: User) -> None:
    assert pay_back(olga, acme, "10").pk == pay_back(olga, acme, "10").pk
    assert limit(acme) == Decimal(0)
    with pytest.raises(wallet.ReferenceUsed):
        pay_back(olga, acme, "9")


def test_a_prepaid_organization_gets_back_only_what_is_neither_used_nor_held(
    acme: Organization, olga: User
) -> None:
    count(acme, spent="3", held="0.5")
    with pytest.raises(wallet.NotRefundable, match=r"6\.50 US dollars that are not spent"):
        pay_back(olga, acme, "6.500000000001")
    pay_back(olga, acme, "6.5")
    assert limit(acme) == Decimal("3.5")


def test_a_postpaid_organization_may_get_back_more_than_is_unspent(acme: Organization, olga: User) -> None:
    wallet.set_terms(acting_user=None, organization=acme, billing="postpaid", credit_limit=Decimal(5))
    count(acme, spent="9", held="0")
    pay_back(olga, acme, "10")
    assert limit(acme) == Decimal(5)


def test_only_ones_own_top_up_is_refunded(acme: Organization, olga: User) -> None:
    other: Tenant = make_tenant("globex")
    adjustment = give(olga, acme, "1")
    for organization, posting in ((other.organization, wire(acme)), (acme, adjustment)):
        with pytest.raises(wallet.NotRefundable):
            wallet.refund(
                acting_user=olga,
                organization=organization,
                top_up=posting,
                amount=Decimal(1),
                reason="x",
                reference="r1",
            )


def test_the_books_balance_after_adjustments_and_refunds(acme: Organization, olga: User) -> None:
    give(olga, acme, "2.5")
    give(olga, acme, "-0.000000000001", "a2")
    pay_back(olga, acme, "3")
    assert limit(acme) == Decimal("9.499999999999")
    assert [d for d in reconcile.compare().differences if d.organization == "acme"] == []


def test_a_wallet_whose_limit_missed_an_adjustment_is_found(acme: Organization, olga: User) -> None:
    give(olga, acme, "2.5")
    with connection.cursor() as cursor:
        cursor.execute('UPDATE billing_budget SET "limit" = 10 WHERE organization_id = %s', [acme.pk])
    found = [d for d in reconcile.compare().differences if d.organization == "acme"]
    assert [(d.what, d.expected, d.found) for d in found] == [
        ("wallet limit and money received", "12.50", "10")
    ]
