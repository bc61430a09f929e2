"""Postings of usage to the ledger, and balances read from it.

A debit is positive, a credit negative. The wallet is what we owe the customer: a top-up credits
it, usage debits it (``billing.funds`` says which account pays). Per organization and hour the ledger
holds what the rollups sum to; when late events change an hour, the difference is posted, never the
past changed.
"""

from __future__ import annotations

import logging
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import DatabaseError, connection, transaction

from billing import funds
from billing.funds import Line
from billing.models import CUSTOMER_ACCOUNTS
from billing.rollups import PATIENCE
from tenants.models import Organization

logger = logging.getLogger(__name__)

_PENDING = """
SELECT organization_id FROM billing_unpostedhour GROUP BY organization_id ORDER BY min(id) LIMIT %(limit)s
"""
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('billing.ledger:' || %(organization)s, 0))"
_TAKE = """
WITH taken AS (DELETE FROM billing_unpostedhour WHERE organization_id = %(organization)s RETURNING hour)
SELECT DISTINCT hour FROM taken
"""
_HOLD = "SELECT pg_advisory_xact_lock(hashtextextended('billing.ledger:' || %(organization)s, 0))"
_DUE = """
SELECT asked.hour, coalesce(used.charge, 0) - coalesce(posted.charge, 0) AS charge,
    coalesce(used.cost, 0) - coalesce(posted.cost, 0) AS cost, posted.times
FROM unnest(%(hours)s::timestamptz[]) AS asked(hour)
CROSS JOIN LATERAL (
    SELECT sum(charge) AS charge, sum(cost) AS cost FROM billing_usagerollup
    WHERE organization_id = %(organization)s AND hour = asked.hour
) AS used
CROSS JOIN LATERAL (
    SELECT -sum(e.amount) FILTER (WHERE e.account = 'revenue') AS charge,
        sum(e.amount) FILTER (WHERE e.account = 'provider_cost') AS cost,
        count(DISTINCT t.id) AS times
    FROM billing_ledgertransaction t JOIN billing_ledgerentry e ON e.transaction_id = t.id
    WHERE t.organization_id = %(organization)s AND t.usage_hour = asked.hour AND t.kind = 'usage'
) AS posted
WHERE (coalesce(used.charge, 0), coalesce(used.cost, 0)) <> (coalesce(posted.charge, 0), coalesce(posted.cost, 0))
ORDER BY asked.hour
"""
_MAKE = """
INSERT INTO billing_ledgertransaction (organization_id, kind, reference, memo, usage_hour)
SELECT %(organization)s, 'usage',
    'usage:' || %(organization)s || ':' || to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24"Z"') || ':' || times,
    '', hour
FROM unnest(%(hours)s::timestamptz[], %(times)s::bigint[]) AS due(hour, times) ORDER BY hour
RETURNING usage_hour, id
"""
_WRITE = """
INSERT INTO billing_ledgerentry (transaction_id, organization_id, account, grant_id, amount, currency)
SELECT line.posting, %(organization)s, line.account, line.grant_id, line.amount, 'USD'
FROM unnest(%(postings)s::bigint[], %(accounts)s::text[], %(grants)s::bigint[], %(amounts)s::numeric[])
    AS line(posting, account, grant_id, amount)
"""
_ACCOUNTS = """
SELECT account, sum(balance) FROM billing_accountbalance
WHERE organization_id = %(organization)s AND currency = 'USD' GROUP BY account
"""


def waiting(limit: int | None = None) -> list[int]:
    """The organizations with usage to post, at most ``limit``, who waits longest first."""
    with connection.cursor() as cursor:
        cursor.execute(_PENDING, {"limit": limit})
        return [row[0] for row in cursor.fetchall()]


def post_usage(limit: int = 500) -> int:
    """Post the usage of up to ``limit`` organizations whose rollups changed; returns the number of
    ledger transactions made. What another process is posting, or what fails (logged), is left for
    the next call."""
    return sum(map(post_usage_of, waiting(limit)))


def post_usage_of(organization_id: int) -> int:
    """``post_usage`` of one organization."""
    try:
        return _post(organization_id)
    except DatabaseError as error:
        logger.exception("The usage of organization %s could not be posted.", organization_id, exc_info=error)
        return 0


def lock(organization: Organization) -> None:
    """Wait until nobody else posts to the organization's ledger, and keep it so until the transaction
    ends. So postings are numbered in the order of their commits, and may depend on the balances."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLD, {"organization": organization.pk})


def _post(organization_id: int) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(PATIENCE)
        cursor.execute(_LOCK, {"organization": organization_id})
        if not cursor.fetchone()[0]:
            return 0
        return post_pending(cursor, organization_id)


def post_pending(cursor: Any, organization_id: int) -> int:
    """Post what the organization's rollups gained, under its ledger lock; returns the number of postings."""
    cursor.execute(_TAKE, {"organization": organization_id})
    hours: list[datetime] = [row[0] for row in cursor.fetchall()]
    if not hours:
        return 0
    # A statement of its own: it must see rollups committed after the hours were queued.
    cursor.execute(_DUE, {"organization": organization_id, "hours": sorted(hours)})
    due = cursor.fetchall()
    if not due:
        return 0
    made = {
        "organization": organization_id,
        "hours": [row[0] for row in due],
        "times": [row[3] + 1 for row in due],
    }
    cursor.execute(_MAKE, made)
    postings = dict(cursor.fetchall())
    money = funds.read(cursor, organization_id)
    lines = [
        (postings[hour], line)
        for hour, charge, cost, _ in due
        for line in (
            *money.charge(charge, hour),
            Line("revenue", None, -charge),
            Line("provider_cost", None, cost),
            Line("provider_payable", None, -cost),
        )
        if line.amount
    ]
    entries = {
        "organization": organization_id,
        "postings": [posting for posting, _ in lines],
        "accounts": [line.account for _, line in lines],
        "grants": [line.grant_id for _, line in lines],
        "amounts": [line.amount for _, line in lines],
    }
    cursor.execute(_WRITE, entries)
    return len(due)


def balances(organization: Organization) -> dict[str, Decimal]:
    """The sum of each account that has entries, in US dollars; debits positive."""
    with connection.cursor() as cursor:
        cursor.execute(_ACCOUNTS, {"organization": organization.id})
        return dict(cursor.fetchall())


def balance(organization: Organization) -> Decimal:
    """The money the organization has with us by the ledger, in US dollars; negative: it owes us."""
    found = balances(organization)
    return -sum((found.get(account, Decimal(0)) for account in CUSTOMER_ACCOUNTS), Decimal(0))
