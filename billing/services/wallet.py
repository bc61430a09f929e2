"""An organization's wallet: its counter, its top-ups, adjustments and refunds, and how it pays."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.db import connection, transaction
from django.db.models import Sum
from django_scopes import scope

from billing import funds, ledger, spending
from billing.calendars import BEGINNING
from billing.funds import Line
from billing.models import CUSTOMER_ACCOUNTS, Budget, LedgerEntry, LedgerTransaction
from billing.money import plain, rounded
from tenants.models import Organization, User
from tenants.services import audit
from tenants.services.organizations import change_terms

SPENT = (
    f"WITH RECURSIVE {spending.pieces(spending.EVERYTHING, quota=False)}"
    f" {spending.charged(spending.EVERYTHING, quota=False)}"
)
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
    """US dollars that came in by other ways than usage: top-ups, codes, adjustments and grants, less
    refunds and what expired."""
    with scope(organization=organization):
        received = (
            LedgerEntry.objects.filter(account__in=CUSTOMER_ACCOUNTS)
            .exclude(transaction__kind="usage")
            .aggregate(total=Sum("amount"))
        )
    # What is owed to the customer: money that comes in is a credit, negative.
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
        spent = _spent(organization)
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


def _spent(organization: Organization) -> Decimal:
    """US dollars that were ever charged to the organization."""
    with connection.cursor() as cursor:
        cursor.execute(SPENT, {"organization": organization.pk, "start": BEGINNING, "end": None})
        found: Decimal = cursor.fetchone()[0]
        return found


def counter(organization: Organization) -> Budget:
    """The wallet's counter, its row locked: nobody spends or leases while the transaction lasts."""
    found = wallet(organization)
    with scope(organization=organization):
        return Budget.objects.select_for_update(no_key=True).get(pk=found.pk)


def unposted(found: Budget) -> Decimal:
    """US dollars of the wallet ``found`` that are spent and not in the ledger yet, or held for requests
    under way. The ledger's lock is held."""
    # Nothing but usage touches this account.
    used: Decimal = found.spent + found.held
    return used + ledger.balances(found.organization).get("revenue", ZERO)


def _set_limit(organization: Organization) -> Budget:
    """Bring the wallet's limit up to date, under a lock on its row."""
    found = counter(organization)
    with scope(organization=organization):
        limit = spendable(organization)
        if found.limit != limit:
            found.limit = limit
            found.save(update_fields=["limit"])
    return found


def post_money(
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
    """Move the customer's money by ``amount`` (positive: the customer gets it) against an account, with
    the wallet's limit and an audit entry.

    The organization is ``locked`` by the caller. The same reference again returns the first posting.
    Raises ``WalletError``, ``ReferenceUsed``.
    """
    posting, is_new = open_posting(
        acting_user=acting_user, organization=organization, kind=kind, reference=reference, memo=memo
    )
    with scope(organization=organization):
        if not is_new:
            before = LedgerEntry.objects.filter(transaction=posting, account__in=CUSTOMER_ACCOUNTS)
            if before.aggregate(total=Sum("amount"))["total"] != -amount:
                raise ReferenceUsed(f"The reference {reference!r} was posted with another amount.")
            return posting
        with connection.cursor() as cursor:
            moved = funds.read(cursor, organization.pk).move(amount)
    close_posting(
        acting_user=acting_user,
        posting=posting,
        lines=[Line(against, None, amount), *moved],
        verb=verb,
        detail={"amount": amount, "memo": memo},
    )
    return posting


def open_posting(
    *, acting_user: User | None, organization: Organization, kind: str, reference: str, memo: str
) -> tuple[LedgerTransaction, bool]:
    """The posting with this reference, and whether it is new and still needs its entries.

    Raises ``WalletError``, and ``ReferenceUsed`` if it is another kind's or organization's.
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
        return posted, not LedgerEntry.objects.filter(transaction=posted).exists()


def close_posting(
    *,
    acting_user: User | None,
    posting: LedgerTransaction,
    lines: Sequence[Line],
    verb: str,
    detail: dict[str, Any],
) -> None:
    """Give a new posting its entries, move the wallet's limit, and write the audit entry."""
    organization = posting.organization
    with scope(organization=organization):
        LedgerEntry.objects.bulk_create(
            LedgerEntry(
                transaction=posting,
                organization=organization,
                account=line.account,
                grant_id=line.grant_id,
                amount=line.amount,
            )
            for line in lines
        )
        _set_limit(organization)
        audit.record(
            acting_user=acting_user, verb=verb, target=posting, organization=organization, detail=detail
        )


def check_amount(amount: Decimal) -> None:
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
    check_amount(amount)
    return post_money(
        acting_user=acting_user,
        organization=locked(organization),
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
    check_amount(abs(amount))
    check_reason(acting_user, reason)
    return post_money(
        acting_user=acting_user,
        organization=locked(organization),
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
    check_amount(amount)
    check_reason(acting_user, reason)
    if not reference:
        raise WalletError("A refund needs a reference.")
    owner = locked(organization)
    if top_up.organization_id != owner.pk or top_up.kind != "top_up":
        raise NotRefundable("Only a top-up of the same organization can be refunded.")
    # The top-up stands in the reference, so that its refunds can be found.
    of_this = f"refund:{top_up.pk}:"
    with scope(organization=owner):
        refunds = LedgerEntry.objects.filter(
            account="cash", transaction__kind="refund", transaction__reference__startswith=of_this
        )
        if not refunds.filter(transaction__reference=of_this + reference).exists():
            paid = LedgerEntry.objects.filter(transaction=top_up, account="cash").aggregate(
                total=Sum("amount")
            )
            back = refunds.aggregate(total=Sum("amount"))
            left = (paid["total"] or ZERO) + (back["total"] or ZERO)
            if amount > left:
                raise NotRefundable(f"Of this top-up, {plain(left)} US dollars are left to refund.")
            _check_unspent(owner, amount)
    return post_money(
        acting_user=acting_user,
        organization=owner,
        kind="refund",
        reference=of_this + reference,
        memo=reason.strip(),
        amount=-amount,
        against="cash",
        verb="refunded",
    )


def locked(organization: Organization) -> Organization:
    """The organization's row, locked, and with it the ledger: one posting at a time."""
    found = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    ledger.lock(found)
    return found


def check_reason(acting_user: User | None, reason: str) -> None:
    if acting_user is None or not reason.strip():
        raise ReasonMissing("An adjustment or a refund needs a person and a reason.")


def _check_unspent(organization: Organization, amount: Decimal) -> None:
    """Raise ``NotRefundable`` if a prepaid organization has less than ``amount`` of money it paid; its
    counter stays locked."""
    if organization.billing != "prepaid":
        return
    found = counter(organization)
    with connection.cursor() as cursor:
        money = funds.read(cursor, organization.pk)
    # What is used and not posted yet, or under way, is paid from grants first; those are not paid back.
    given = max(sum((grant.left for grant in money.grants), ZERO) - unposted(found), ZERO)
    unspent = (found.limit or ZERO) - found.spent - found.held - given
    if amount > unspent:
        raise NotRefundable(f"The wallet has {plain(max(unspent, ZERO))} US dollars that are not spent.")


@transaction.atomic
def set_terms(
    *, acting_user: User | None, organization: Organization, billing: str, credit_limit: Decimal | None = None
) -> Organization:
    """Change how an organization pays ("prepaid" or "postpaid", with a limit in US dollars or without).

    The wallet's limit moves in the same transaction. Raises ``BadTerms``, ``InvalidRow``.
    """
    changed = change_terms(
        acting_user=acting_user, organization=organization, billing=billing, credit_limit=credit_limit
    )
    _set_limit(changed)
    return changed
