"""Postings of usage to the ledger, and balances read from it.

A debit is positive, a credit negative. The wallet is what we owe the customer: a top-up credits
it, usage debits it. Per organization and hour the ledger holds what the rollups sum to; when late
events change an hour, the difference is posted, never the past changed.
"""

from __future__ import annotations

import logging
from datetime import datetime
from decimal import Decimal

from django.db import DatabaseError, connection, transaction

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
_POST = """
WITH due AS (
    SELECT asked.hour, coalesce(used.charge, 0) - coalesce(posted.charge, 0) AS charge,
        coalesce(used.cost, 0) - coalesce(posted.cost, 0) AS cost,
        posted.times
    FROM unnest(%(hours)s::timestamptz[]) AS asked(hour)
    CROSS JOIN LATERAL (
        SELECT sum(charge) AS charge, sum(cost) AS cost FROM billing_usagerollup
        WHERE organization_id = %(organization)s AND hour = asked.hour
    ) AS used
    CROSS JOIN LATERAL (
        SELECT sum(e.amount) FILTER (WHERE e.account = 'wallet') AS charge,
            sum(e.amount) FILTER (WHERE e.account = 'provider_cost') AS cost,
            count(DISTINCT t.id) AS times
        FROM billing_ledgertransaction t JOIN billing_ledgerentry e ON e.transaction_id = t.id
        WHERE t.organization_id = %(organization)s AND t.usage_hour = asked.hour AND t.kind = 'usage'
    ) AS posted
), made AS (
    INSERT INTO billing_ledgertransaction (organization_id, kind, reference, memo, usage_hour)
    SELECT %(organization)s, 'usage',
        'usage:' || %(organization)s || ':' || to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24"Z"')
            || ':' || times + 1,
        '', hour
    FROM due WHERE charge <> 0 OR cost <> 0 ORDER BY hour
    RETURNING id, usage_hour
), lines AS (
    INSERT INTO billing_ledgerentry (transaction_id, organization_id, account, amount, currency)
    SELECT made.id, %(organization)s, line.account, line.amount, 'USD'
    FROM made JOIN due ON due.hour = made.usage_hour
    CROSS JOIN LATERAL (VALUES
        ('wallet', due.charge), ('revenue', -due.charge),
        ('provider_cost', due.cost), ('provider_payable', -due.cost)
    ) AS line(account, amount)
    WHERE line.amount <> 0
)
SELECT count(*) FROM made
"""
_ACCOUNTS = """
SELECT account, sum(amount) FROM billing_ledgerentry WHERE organization_id = %(organization)s GROUP BY account
"""


def post_usage(limit: int = 500) -> int:
    """Post the usage of up to ``limit`` organizations whose rollups changed; returns the number of
    ledger transactions made. What another process is posting, or what fails (logged), is left for
    the next call."""
    with connection.cursor() as cursor:
        cursor.execute(_PENDING, {"limit": limit})
        pending = [row[0] for row in cursor.fetchall()]
    made = 0
    for organization_id in pending:
        try:
            made += _post(organization_id)
        except DatabaseError as error:
            logger.exception(
                "The usage of organization %s could not be posted.", organization_id, exc_info=error
            )
    return made


def _post(organization_id: int) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(PATIENCE)
        cursor.execute(_LOCK, {"organization": organization_id})
        if not cursor.fetchone()[0]:
            return 0
        cursor.execute(_TAKE, {"organization": organization_id})
        hours: list[datetime] = [row[0] for row in cursor.fetchall()]
        if not hours:
            return 0
        # A statement of its own: it must see rollups committed after the hours were queued.
        cursor.execute(_POST, {"organization": organization_id, "hours": sorted(hours)})
        made: int = cursor.fetchone()[0]
    return made


def balances(organization: Organization) -> dict[str, Decimal]:
    """The sum of each account that has entries, in US dollars; debits positive."""
    with connection.cursor() as cursor:
        cursor.execute(_ACCOUNTS, {"organization": organization.id})
        return dict(cursor.fetchall())


def balance(organization: Organization) -> Decimal:
    """The money the organization has with us by the ledger, in US dollars; negative: it owes us."""
    return -balances(organization).get("wallet", Decimal(0))
