"""The rows behind budgets and leases: the SQL, one function a statement or transaction.

Locks are always taken in this order: budgets by ascending id, then leases. Whoever else writes both
tables must keep to it, or PostgreSQL will break the tie by ending one of the transactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from billing import spending
from billing.leases.account import BudgetRule

Connection = AsyncConnection[tuple[Any, ...]]


class BudgetRow(NamedTuple):
    """A row of ``billing_budget``: US dollars; a None ``limit`` enforces nothing."""

    id: int
    limit: Decimal | None
    spent: Decimal
    held: Decimal


# A temporary increase ends by PostgreSQL's clock, for all workers at once.
LIMIT: LiteralString = 'CASE WHEN raised_until > now() THEN raised_to ELSE "limit" END'
# Whether a budget has ``amount`` left beyond what is held.
FITS: LiteralString = f'("limit" IS NULL OR spent + held + %(amount)s <= {LIMIT})'
OF_RULE: LiteralString = """
    FROM billing_budget
    WHERE organization_id = %(organization)s AND quota_id IS NOT DISTINCT FROM %(quota)s::bigint
      AND subject = %(subject)s AND period_start = %(start)s
"""
FIND: LiteralString = f"SELECT id, {LIMIT}, spent, held {OF_RULE}"
LOOK: LiteralString = f"SELECT {LIMIT}, spent, held, {FITS} {OF_RULE}"
COUNTER: LiteralString = (
    'organization_id, quota_id, subject, period_start, period_end, "limit", raised_to, raised_until,'
    " spent, held, opening"
)

# Waits for a change of the terms that is under way, and makes a later one find the new counter. Before
# the quota, since whoever sets an organization's quotas takes the two in that order.
HOLD_ORGANIZATION: LiteralString = "SELECT 1 FROM tenants_organization WHERE id = %(organization)s FOR SHARE"

# A new counter of the one row in ``quota``. A soft budget has no limit here; it only counts.
_OF_QUOTA: LiteralString = """
    SELECT %(organization)s, quota.id, %(subject)s, %(start)s, %(end)s,
        CASE WHEN quota.hard THEN quota."limit" END, CASE WHEN quota.hard THEN quota.raised_to END,
        CASE WHEN quota.hard THEN quota.raised_until END, used.charge, 0, used.charge
    FROM quota, LATERAL ({charged}) AS used
"""
_OF_SCOPE: dict[str, LiteralString] = {
    name: _OF_QUOTA.replace("{charged}", spending.charged(share, quota=True))
    for name, share in spending.SHARES.items()
}
# By scope.
MAKE_QUOTA: dict[str, LiteralString] = {
    name: f"""
    WITH RECURSIVE quota AS (SELECT * FROM billing_quota WHERE id = %(quota)s FOR SHARE),
        {spending.pieces(share, quota=True)}
    INSERT INTO billing_budget ({COUNTER}) {_OF_SCOPE[name]}
    ON CONFLICT DO NOTHING RETURNING id, {LIMIT}, spent, held
"""  # noqa: S608  # of constants
    for name, share in spending.SHARES.items()
}
# The same counter, unmade.
LOOK_QUOTA: dict[str, LiteralString] = {
    name: f"""
    WITH RECURSIVE quota AS (SELECT * FROM billing_quota WHERE id = %(quota)s),
        {spending.pieces(share, quota=True)}, counter ({COUNTER}) AS ({_OF_SCOPE[name]})
    SELECT {LIMIT}, spent, held, {FITS} FROM counter
"""  # noqa: S608  # of constants
    for name, share in spending.SHARES.items()
}

# What comes in by top-up or adjustment credits the customer's accounts, and a credit is negative.
OF_WALLET: LiteralString = f"""
    SELECT organization.id, NULL::bigint, '', %(start)s, NULL::timestamptz,
        CASE organization.billing
            WHEN 'prepaid' THEN paid.amount
            ELSE paid.amount + organization.credit_limit END,
        NULL::numeric, NULL::timestamptz, used.charge, 0, used.charge
    FROM tenants_organization organization,
        LATERAL (
            SELECT coalesce(-sum(entry.amount), 0) AS amount
            FROM billing_ledgerentry entry JOIN billing_ledgertransaction posted ON posted.id = entry.transaction_id
            WHERE entry.organization_id = organization.id AND posted.kind <> 'usage'
              AND entry.account IN ('wallet', 'grants', 'receivable')
        ) paid,
        LATERAL ({spending.charged(spending.EVERYTHING, quota=False)}) used
    WHERE organization.id = %(organization)s
"""  # noqa: S608  # of constants
_PIECES_OF_WALLET = spending.pieces(spending.EVERYTHING, quota=False)
MAKE_WALLET: LiteralString = f"""
    WITH RECURSIVE {_PIECES_OF_WALLET}
    INSERT INTO billing_budget ({COUNTER}) {OF_WALLET}
    ON CONFLICT DO NOTHING RETURNING id, "limit", spent, held
"""  # of constants
LOOK_WALLET: LiteralString = f"""
    WITH RECURSIVE {_PIECES_OF_WALLET}, counter ({COUNTER}) AS ({OF_WALLET}) SELECT {LIMIT}, spent, held, {FITS} FROM counter
"""  # noqa: S608  # of constants

# One statement, so the hold and the lease appear together or not at all.
GRANT: LiteralString = f"""
    WITH granted AS (
        UPDATE billing_budget SET held = held + %(amount)s
        WHERE id = %(budget)s AND {FITS}
        RETURNING id, {LIMIT} AS "limit", spent, held
    ), lease AS (
        INSERT INTO billing_lease (budget_id, worker, remaining, updated_at)
        SELECT id, %(worker)s, %(amount)s, now() FROM granted
        ON CONFLICT (budget_id, worker)
        DO UPDATE SET remaining = billing_lease.remaining + EXCLUDED.remaining, updated_at = now()
    )
    SELECT id, "limit", spent, held FROM granted
"""  # noqa: S608  # of constants


def stored(subject: str) -> str:
    """An end user as the shipper stores it."""
    return subject.replace("\0", "")[:256]


async def find_or_make(
    connection: Connection, rule: BudgetRule, subject: str, start: datetime, end: datetime | None
) -> BudgetRow | None:
    """The counter of ``rule`` in the period from ``start``. None if the quota is gone.

    A new counter opens with what was already spent in its period.
    """
    values: dict[str, Any] = {
        "organization": rule.organization_id,
        "quota": rule.quota_id,
        "subject": stored(subject),
        "start": start,
        "end": end,
    }
    row = await (await connection.execute(FIND, values)).fetchone()
    if row is None:
        make = MAKE_WALLET if rule.quota_id is None else MAKE_QUOTA[rule.scope]
        async with connection.transaction():
            await connection.execute(HOLD_ORGANIZATION, values)
            row = await (await connection.execute(make, values)).fetchone()
            if row is None:
                # Another worker was faster, or there is no such quota.
                row = await (await connection.execute(FIND, values)).fetchone()
    return None if row is None else BudgetRow(*row)


async def grant(connection: Connection, worker: UUID, budget_id: int, amount: Decimal) -> BudgetRow | None:
    """Add ``amount`` to the worker's lease if the budget has it. The row as it is then, or None."""
    values = {"budget": budget_id, "worker": worker, "amount": amount}
    row = await (await connection.execute(GRANT, values)).fetchone()
    return None if row is None else BudgetRow(*row)


async def read(connection: Connection, budget_ids: Sequence[int]) -> dict[int, BudgetRow]:
    """The rows with these ids, by id."""
    statement: LiteralString = f"SELECT id, {LIMIT}, spent, held FROM billing_budget WHERE id = ANY(%s)"  # noqa: S608  # likewise
    rows = await (await connection.execute(statement, [list(budget_ids)])).fetchall()
    return {row[0]: BudgetRow(*row) for row in rows}


async def give_back(connection: Connection, worker: UUID, amounts: Mapping[int, Decimal | None]) -> None:
    """Return parts of the worker's leases, by budget id: None is all of it, and of a lease that has less
    than the amount, what it has. Must run inside a transaction.
    """
    ids = sorted(amounts)
    await connection.execute(
        "SELECT 1 FROM billing_budget WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [ids]
    )
    leases = await connection.execute(
        "SELECT budget_id, remaining FROM billing_lease WHERE worker = %s AND budget_id = ANY(%s) "
        "ORDER BY budget_id FOR NO KEY UPDATE",
        [worker, ids],
    )
    returned: list[tuple[Decimal, int]] = []
    for budget_id, remaining in await leases.fetchall():
        amount = amounts[budget_id]
        returned.append((remaining if amount is None else min(amount, remaining), budget_id))
    async with connection.cursor() as cursor:
        await cursor.executemany("UPDATE billing_budget SET held = held - %s WHERE id = %s", returned)
        await cursor.executemany(
            "UPDATE billing_lease SET remaining = remaining - %s, updated_at = now() "
            "WHERE budget_id = %s AND worker = %s",
            [(amount, budget, worker) for amount, budget in returned],
        )


async def shipped(connection: Connection, budget_id: int, organization_id: int, started_at: datetime) -> bool:
    """Whether the event of the request that started then, and is counted in this budget, has arrived."""
    found = await connection.execute(
        "SELECT 1 FROM billing_usageevent WHERE organization_id = %s AND started_at = %s "
        "AND %s = ANY(budget_ids) LIMIT 1",
        [organization_id, started_at, budget_id],
    )
    return await found.fetchone() is not None
