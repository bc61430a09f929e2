"""The lines of an organization's account as a bank would print them, each with the balance after it.

The account is the wallet, promotional credit and what is owed, taken together.
A positive amount is money that came to the customer, a negative one what was used or paid back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from asgiref.sync import sync_to_async
from django.db import connection

from billing.usage_export import CHUNK, CURRENCY, csv_lines, moment
from tenants.models import Organization

# Kinds of posting that touch the customer's accounts, as people call them.
KINDS = {
    "top_up": "Top-up",
    "code": "Code",
    "grant": "Credit",
    "usage": "Usage",
    "adjustment": "Adjustment",
    "refund": "Refund",
    "grant_expiry": "Credit expired",
}
COLUMNS = (
    "number",
    "posted_at",
    "kind",
    "account",
    "usage_hour",
    "memo",
    "reference",
    "person",
    "amount",
    "balance",
    "currency",
)

# Only the lines between the first and the last of a page are run through the window; what came before
# is one sum. A line keeps its number, so a page stays what it was while others are posted.
_PAGE = """
WITH page AS (
    SELECT e.id, t.posted_at, t.kind, e.account, t.memo, t.reference, t.usage_hour, u.email, -e.amount AS amount
    FROM billing_ledgerentry e JOIN billing_ledgertransaction t ON t.id = e.transaction_id
    LEFT JOIN tenants_user u ON u.id = t.actor_id
    WHERE e.organization_id = %(organization)s AND e.account IN ('wallet', 'grants', 'receivable')
        AND (%(kind)s = '' OR t.kind = %(kind)s)
        AND (%(start)s::timestamptz IS NULL OR t.posted_at >= %(start)s)
        AND (%(end)s::timestamptz IS NULL OR t.posted_at < %(end)s)
        AND (%(before)s::bigint IS NULL OR e.id < %(before)s)
        AND (%(after)s::bigint IS NULL OR e.id > %(after)s)
    ORDER BY e.id {order} LIMIT %(size)s
), bounds AS (
    SELECT min(id) AS first, max(id) AS last FROM page
), earlier AS (
    SELECT -coalesce(sum(e.amount), 0) AS balance FROM billing_ledgerentry e
    WHERE e.organization_id = %(organization)s AND e.account IN ('wallet', 'grants', 'receivable')
        AND e.id < (SELECT first FROM bounds)
), running AS (
    SELECT e.id, (SELECT balance FROM earlier) - sum(e.amount) OVER (ORDER BY e.id) AS balance
    FROM billing_ledgerentry e
    WHERE e.organization_id = %(organization)s AND e.account IN ('wallet', 'grants', 'receivable')
        AND e.id BETWEEN (SELECT first FROM bounds) AND (SELECT last FROM bounds)
)
SELECT page.id, posted_at, kind, account, memo, reference, usage_hour, coalesce(email, ''), amount, balance
FROM page JOIN running USING (id) ORDER BY page.id {order}
"""
_NEWEST_FIRST, _OLDEST_FIRST = _PAGE.format(order="DESC"), _PAGE.format(order="ASC")


@dataclass(frozen=True, slots=True)
class WalletLine:
    """One entry of the customer's accounts. ``amount`` and ``balance`` (after it) are exact US dollars."""

    number: int
    posted_at: datetime
    kind: str
    # Which of the customer's accounts it moves: wallet, grants or receivable.
    account: str
    memo: str
    reference: str
    # The hour of UTC that a posting of usage is for.
    usage_hour: datetime | None
    # The e-mail address of whoever posted it; empty for the system.
    person: str
    amount: Decimal
    balance: Decimal

    @property
    def kind_name(self) -> str:
        """What people call it."""
        return KINDS.get(self.kind, self.kind.replace("_", " ").capitalize())


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lines: of one kind (empty: all), posted in ``[start, end)`` (None: open)."""

    kind: str = ""
    start: datetime | None = None
    end: datetime | None = None


EVERYTHING = Selection()


def wallet_lines(
    organization: Organization,
    selection: Selection = EVERYTHING,
    *,
    before: int | None = None,
    after: int | None = None,
    size: int = 50,
    newest_first: bool = True,
) -> list[WalletLine]:
    """At most ``size`` lines with a number below ``before`` or above ``after``.

    The balance counts every line of the account, also those that ``selection`` leaves out.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _NEWEST_FIRST if newest_first else _OLDEST_FIRST,
            {
                "organization": organization.pk,
                "kind": selection.kind,
                "start": selection.start,
                "end": selection.end,
                "before": before,
                "after": after,
                "size": size,
            },
        )
        return [WalletLine(*row) for row in cursor.fetchall()]


def _cells(line: WalletLine) -> list[object]:
    return [
        line.number,
        moment(line.posted_at),
        line.kind,
        line.account,
        None if line.usage_hour is None else moment(line.usage_hour),
        line.memo,
        line.reference,
        line.person,
        line.amount,
        line.balance,
        CURRENCY,
    ]


def _pieces(organization: Organization, selection: Selection, after: int) -> Iterator[list[WalletLine]]:
    while True:
        lines = wallet_lines(organization, selection, after=after, size=CHUNK, newest_first=False)
        if lines:
            yield lines
            after = lines[-1].number
        if len(lines) < CHUNK:
            return


async def streamed_lines(
    organization: Organization, selection: Selection = EVERYTHING
) -> AsyncIterator[bytes]:
    """The lines as CSV, oldest first, in pieces; the balance of the last one is that of the account
    unless ``selection`` leaves out what came later."""
    yield csv_lines([COLUMNS])
    pieces = _pieces(organization, selection, 0)
    while (lines := await sync_to_async(lambda: next(pieces, None))()) is not None:
        yield csv_lines(_cells(line) for line in lines)
