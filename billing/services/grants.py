"""Promotional credit: given with an end, spent before paid money, and taken back where it was not spent.

A grant pays for usage by the hour in which a request began: from the hour in which the grant was given
until its end. Of several, the one that ends first pays first (``billing.funds``). When its end comes,
what is left of it is taken back, except for as much as charges that are not posted yet, and requests
under way, may still need; a day later the rest goes too, and a charge that arrives after that is paid
from the wallet. The wallet's limit moves in the same transaction.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from django_scopes import scope

from billing import funds
from billing.funds import ZERO, Line
from billing.models import Grant, LedgerTransaction
from billing.rollups import PATIENCE
from billing.services.wallet import (
    WalletError,
    check_amount,
    check_reason,
    close_posting,
    counter,
    locked,
    open_posting,
    unposted,
)
from tenants.models import Organization, User

logger = logging.getLogger(__name__)

# How long charges of requests that began before the end may come in late.
LATE = timedelta(days=1)
_ENDED = """
SELECT g.id, g.organization_id FROM billing_grant g JOIN billing_accountbalance b ON b.grant_id = g.id
WHERE g.expires_at <= %s AND b.balance <> 0 ORDER BY g.expires_at, g.id
"""


class BadExpiry(WalletError):
    """A grant whose end is not in the future."""


class OtherGrant(WalletError):
    """The reference belongs to a grant of another amount or end."""


def full_hour(moment: datetime) -> datetime:
    """``moment``, or the next full hour after it."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour if hour == moment else hour + timedelta(hours=1)


@transaction.atomic
def give_grant(
    *,
    acting_user: User,
    organization: Organization,
    amount: Decimal,
    expires_at: datetime,
    reason: str,
    reference: str,
) -> Grant:
    """Give ``organization`` ``amount`` US dollars of credit to be spent until ``expires_at``, which is
    moved to the next full hour.

    A person decides it and says why. The same ``reference`` again returns the first grant. Raises
    ``BadAmount``, ``BadExpiry``, ``ReasonMissing``, ``ReferenceUsed``, ``OtherGrant``.
    """
    check_amount(amount)
    check_reason(acting_user, reason)
    owner, now, end = locked(organization), timezone.now(), full_hour(expires_at)
    posting, is_new = open_posting(
        acting_user=acting_user, organization=owner, kind="grant", reference=reference, memo=reason.strip()
    )
    with scope(organization=owner):
        if not is_new:
            before = Grant.objects.get(posting=posting)
            if (before.amount, before.expires_at) != (amount, end):
                raise OtherGrant(f"The reference {reference!r} belongs to another grant.")
            return before
        if end <= now:
            raise BadExpiry("The end of a grant is in the future.")
        grant = Grant.objects.create(
            organization=owner,
            posting=posting,
            amount=amount,
            starts_at=now.replace(minute=0, second=0, microsecond=0),
            expires_at=end,
        )
    close_posting(
        acting_user=acting_user,
        posting=posting,
        lines=[Line("promotion", None, amount), Line("grants", grant.pk, -amount)],
        verb="granted",
        detail={"amount": amount, "expires_at": end, "memo": reason.strip()},
    )
    return grant


def expire_grants(now: datetime | None = None) -> int:
    """Take back what is left of grants that ended, each in its transaction; returns how many postings were
    made. One that fails is logged and left for the next time."""
    now = now or timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(_ENDED, [now])
        ended = cursor.fetchall()
    made = 0
    for grant_id, organization_id in ended:
        try:
            made += _expire(grant_id, organization_id, now)
        except DatabaseError as error:
            logger.exception("Grant %s could not be ended.", grant_id, exc_info=error)
    return made


@transaction.atomic
def _expire(grant_id: int, organization_id: int, now: datetime) -> bool:
    with connection.cursor() as cursor:
        # An organization whose rows are held must not hold up the others.
        cursor.execute(PATIENCE)
    owner = locked(Organization(pk=organization_id))
    wallet = counter(owner)
    with connection.cursor() as cursor:
        money = funds.read(cursor, owner.pk)
    open_charges, taken = max(unposted(wallet), ZERO), ZERO
    # What is still open is paid in the order of the posting, so it is kept back in that order.
    for grant in money.grants:
        kept = min(open_charges, grant.left)
        open_charges -= kept
        if grant.id == grant_id:
            taken = grant.left if now >= grant.expires_at + LATE else grant.left - kept
    if taken <= 0:
        return False
    with scope(organization=owner):
        times = LedgerTransaction.objects.filter(reference__startswith=f"grant:{grant_id}:ended:").count()
        memo = f"Not used until {Grant.objects.get(pk=grant_id).expires_at:%Y-%m-%d %H:%M} UTC"
    posting, _ = open_posting(
        acting_user=None,
        organization=owner,
        kind="grant_expiry",
        reference=f"grant:{grant_id}:ended:{times + 1}",
        memo=memo,
    )
    close_posting(
        acting_user=None,
        posting=posting,
        lines=[Line("grants", grant_id, taken), Line("promotion", None, -taken)],
        verb="expired",
        detail={"amount": taken, "grant": grant_id},
    )
    return True
