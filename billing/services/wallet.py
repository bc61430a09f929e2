"""An organization's wallet: its counter, its top-ups, adjustments and refunds, and how it pays."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction
from django.db.models import Sum
from django_scopes import scope

from billing.calendars import BEGINNING
from billing.models import Budget, LedgerEntry, LedgerTransaction, UsageEvent
from billing.money import plain, rounded
from tenants.models import Organization, User
from tenants.services import audit
from tenants.services.organizations import change_terms

ZERO = Decimal(0)
LARGEST = Decimal(10) ** 12
REFERENCE_LENGTH, MEMO_LENGTH = 120, 300


class WalletError(ValueError):
    """A wallet that cannot be changed so."""


class BadAmount(WalletError):
    """An amount that is not more than zero, or has more places than money has."""


class ReasonMissing(WalletError):
    """An adjustment or a refund without a person or a reason."""


class NotRefundable(WalletError):
    """More than the top-up was, or than a prepaid wallet has left."""


class ReferenceUsed(WalletError):
    """The reference belongs to another posting."""


def paid_in(organization: Organization) -> Decimal:
    """US dollars that came into the wallet by other ways than usage: top-ups and adjustments, less refunds."""
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


def _post(
    *,
    acting_user: User | None,
    organization: Organization,
    kind: str,
    reference: str,
    memo: str,
    amount: Decimal,
    against: str,
    verb: str,
) -> LedgerTransaction:
    """Move the wallet by ``amount`` (positive: the customer gets it) against an account, with its limit.

    The organization's row is locked by the caller. The same reference again returns the first posting.
    """
    if not 0 < len(reference) <= REFERENCE_LENGTH or len(memo) > MEMO_LENGTH:
        raise WalletError(
            f"A reference has 1 to {REFERENCE_LENGTH} characters, a memo or reason at most {MEMO_LENGTH}."
        )
    with scope(organization=organization):
        posting = LedgerTransaction(
            organization=organization, kind=kind, reference=reference, memo=memo, actor=acting_user
        )
        # The reference is unique over all organizations, and the row may be written at the same time.
        LedgerTransaction.objects.bulk_create([posting], ignore_conflicts=True)
        posted = LedgerTransaction.objects.filter(reference=reference, kind=kind).first()
        if posted is None:
            raise ReferenceUsed(f"The reference {reference!r} belongs to another posting.")
        entries = LedgerEntry.objects.filter(transaction=posted, account="wallet")
        if (before := entries.first()) is not None:
            if before.amount != -amount:
                raise ReferenceUsed(f"The reference {reference!r} was posted with another amount.")
            return posted
        LedgerEntry.objects.bulk_create(
            [
                LedgerEntry(transaction=posted, organization=organization, account=against, amount=amount),
                LedgerEntry(transaction=posted, organization=organization, account="wallet", amount=-amount),
            ]
        )
        _set_limit(organization)
        audit.record(
            acting_user=acting_user,
            verb=verb,
            target=posted,
            organization=organization,
            detail={"amount": amount, "memo": memo},
        )
    return posted


def _check_amount(amount: Decimal) -> None:
    if not amount.is_finite() or not ZERO < amount < LARGEST or rounded(amount) != amount:
        raise BadAmount("An amount is more than 0 US dollars, with at most twelve decimal places.")


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
    _check_amount(amount)
    return _post(
        acting_user=acting_user,
        organization=_locked(organization),
        kind="top_up",
        reference=reference,
        memo=memo,
        amount=amount,
        against="cash",
        verb="topped up",
    )


@transaction.atomic
def adjust(
    *, acting_user: User, organization: Organization, amount: Decimal, reason: str, reference: str
) -> LedgerTransaction:
    """Give ``organization`` ``amount`` US dollars, or take them where it is negative, without a payment.

    A person decides it and says why. What is taken may leave the wallet below zero; requests are then
    refused until it is above. Posting the same ``reference`` again returns the first posting. Raises
    ``BadAmount``, ``ReasonMissing``, ``ReferenceUsed``.
    """
    _check_amount(abs(amount))
    _check_reason(acting_user, reason)
    return _post(
        acting_user=acting_user,
        organization=_locked(organization),
        kind="adjustment",
        reference=reference,
        memo=reason.strip(),
        amount=amount,
        against="adjustment",
        verb="adjusted",
    )


@transaction.atomic
def refund(
    *,
    acting_user: User,
    organization: Organization,
    top_up: LedgerTransaction,
    amount: Decimal,
    reason: str,
    reference: str,
) -> LedgerTransaction:
    """Post ``amount`` US dollars of ``top_up`` that were paid back to the customer.

    All refunds of a top-up together are at most what it was, and a prepaid organization is paid back
    at most what it has neither used nor holds for requests under way. Posting the same ``reference``
    for the same top-up again returns the first posting. Raises ``BadAmount``, ``NotRefundable``,
    ``ReasonMissing``, ``ReferenceUsed``.
    """
    _check_amount(amount)
    _check_reason(acting_user, reason)
    if not reference:
        raise WalletError("A refund needs a reference.")
    owner = _locked(organization)
    if top_up.organization_id != owner.pk or top_up.kind != "top_up":
        raise NotRefundable("Only a top-up of the same organization can be refunded.")
    # The top-up stands in the reference, so that its refunds can be found.
    of_this = f"refund:{top_up.pk}:"
    with scope(organization=owner):
        refunds = LedgerEntry.objects.filter(
            account="wallet", transaction__kind="refund", transaction__reference__startswith=of_this
        )
        if not refunds.filter(transaction__reference=of_this + reference).exists():
            paid = LedgerEntry.objects.filter(transaction=top_up, account="wallet").aggregate(
                total=Sum("amount")
            )
            back = refunds.aggregate(total=Sum("amount"))
            left = -(paid["total"] or ZERO) - (back["total"] or ZERO)
            if amount > left:
                raise NotRefundable(f"Of this top-up, {plain(left)} US dollars are left to refund.")
            _check_unspent(owner, amount)
    return _post(
        acting_user=acting_user,
        organization=owner,
        kind="refund",
        reference=of_this + reference,
        memo=reason.strip(),
        amount=-amount,
        against="cash",
        verb="refunded",
    )


def _locked(organization: Organization) -> Organization:
    """The organization's row, locked: one posting by hand at a time."""
    return Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)


def _check_reason(acting_user: User | None, reason: str) -> None:
    if acting_user is None or not reason.strip():
        raise ReasonMissing("An adjustment or a refund needs a person and a reason.")


def _check_unspent(organization: Organization, amount: Decimal) -> None:
    """Raise ``NotRefundable`` if a prepaid wallet has less than ``amount``; its counter stays locked."""
    if organization.billing != "prepaid":
        return
    locked = Budget.objects.select_for_update(no_key=True).get(pk=wallet(organization).pk)
    unspent = (locked.limit or ZERO) - locked.spent - locked.held
    if amount > unspent:
        raise NotRefundable(f"The wallet has {plain(max(unspent, ZERO))} US dollars that are not spent.")


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
