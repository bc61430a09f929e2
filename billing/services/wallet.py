"""An organization's wallet: its counter, its top-ups, and how it pays."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction
from django.db.models import Sum
from django_scopes import scope

from billing.calendars import BEGINNING
from billing.models import Budget, LedgerEntry, LedgerTransaction, UsageEvent
from billing.money import rounded
from tenants.models import Organization, User
from tenants.services import audit
from tenants.services.organizations import change_terms

ZERO = Decimal(0)
LARGEST = Decimal(10) ** 12


class WalletError(ValueError):
    """A wallet that cannot be changed so."""


class BadAmount(WalletError):
    """A top-up that is not more than zero, or has more places than money has."""


class ReferenceUsed(WalletError):
    """The reference belongs to another posting."""


def paid_in(organization: Organization) -> Decimal:
    """US dollars that came into the wallet by other ways than usage: top-ups and adjustments."""
    with scope(organization=organization):
        received = (
            LedgerEntry.objects.filter(account="wallet")
            .exclude(transaction__kind="usage")
            .aggregate(total=Sum("amount"))
        )
    # The wallet is what is owed to the customer, so money that comes in is a credit: negative.
    return -(received["total"] or ZERO)


def spendable(organization: Organization) -> Decimal | None:
    """What the wallet's limit must be, in US dollars: what was paid in, and the credit limit of a
    postpaid organization. None: postpaid without a limit."""
    if organization.billing == "postpaid":
        return (
            None if organization.credit_limit is None else paid_in(organization) + organization.credit_limit
        )
    return paid_in(organization)


@transaction.atomic
def wallet(organization: Organization) -> Budget:
    """The counter of everything the organization ever spent; made on first use."""
    with scope(organization=organization):
        rows = Budget.objects.filter(quota__isnull=True, subject="")
        found = rows.first()
        if found is not None:
            return found
        spent = UsageEvent.objects.aggregate(total=Sum("charge"))["total"] or ZERO
        Budget.objects.bulk_create(
            [
                Budget(
                    organization=organization,
                    period_start=BEGINNING,
                    limit=spendable(organization),
                    spent=spent,
                    opening=spent,
                )
            ],
            ignore_conflicts=True,  # another process may make it at the same time
        )
        return rows.get()


def _set_limit(organization: Organization) -> Budget:
    """Bring the wallet's limit up to date, under a lock on its row."""
    found = wallet(organization)
    with scope(organization=organization):
        locked = Budget.objects.select_for_update(no_key=True).get(pk=found.pk)
        limit = spendable(organization)
        if locked.limit != limit:
            locked.limit = limit
            locked.save(update_fields=["limit"])
    return locked


@transaction.atomic
def top_up(
    *,
    acting_user: User | None,
    organization: Organization,
    amount: Decimal,
    reference: str,
    memo: str = "",
) -> LedgerTransaction:
    """Post ``amount`` US dollars that ``organization`` paid in, and let it spend them.

    Posting the same ``reference`` again returns the first posting and changes nothing. Raises
    ``BadAmount``, and ``ReferenceUsed`` if that posting was another amount or organization's.
    """
    if not amount.is_finite() or not ZERO < amount < LARGEST or rounded(amount) != amount:
        raise BadAmount("A top-up is more than 0 US dollars, with at most twelve decimal places.")
    owner = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    with scope(organization=owner):
        posting = LedgerTransaction(
            organization=owner, kind="top_up", reference=reference, memo=memo, actor=acting_user
        )
        # The reference is unique over all organizations, and the row may be written at the same time.
        LedgerTransaction.objects.bulk_create([posting], ignore_conflicts=True)
        posted = LedgerTransaction.objects.filter(reference=reference, kind="top_up").first()
        if posted is None:
            raise ReferenceUsed(f"The reference {reference!r} belongs to another posting.")
        entries = LedgerEntry.objects.filter(transaction=posted, account="wallet")
        if (before := entries.first()) is not None:
            if before.amount != -amount:
                raise ReferenceUsed(f"The reference {reference!r} was posted with another amount.")
            return posted
        LedgerEntry.objects.bulk_create(
            [
                LedgerEntry(transaction=posted, organization=owner, account="cash", amount=amount),
                LedgerEntry(transaction=posted, organization=owner, account="wallet", amount=-amount),
            ]
        )
        _set_limit(owner)
        audit.record(
            acting_user=acting_user,
            verb="topped up",
            target=posted,
            organization=owner,
            detail={"amount": amount, "memo": memo},
        )
    return posted


@transaction.atomic
def set_terms(
    *, acting_user: User | None, organization: Organization, billing: str, credit_limit: Decimal | None = None
) -> Organization:
    """Change how an organization pays ("prepaid" or "postpaid", with a limit in US dollars or without).

    The wallet's limit moves in the same transaction. Raises ``BadTerms``, ``InvalidRow``.
    """
    locked = change_terms(
        acting_user=acting_user, organization=organization, billing=billing, credit_limit=credit_limit
    )
    _set_limit(locked)
    return locked
