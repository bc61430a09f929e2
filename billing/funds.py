"""From which account a charge is paid, and to which one money goes. Pure but for ``read``.

A charge takes from the grants that cover its hour, the one that expires first before the others;
then from the wallet, down to zero; the rest is receivable. Money that comes in pays what is owed, and
the rest goes into the wallet. So an organization never has money and owes some at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

ZERO = Decimal(0)
_READ = """
SELECT b.account, -b.balance, g.id, g.starts_at, g.expires_at
FROM billing_accountbalance b LEFT JOIN billing_grant g ON g.id = b.grant_id
WHERE b.organization_id = %s AND b.currency = 'USD' AND b.account IN ('wallet', 'grants', 'receivable')
    AND b.balance <> 0
ORDER BY g.expires_at, g.id
"""


class Line(NamedTuple):
    """An entry to be made: debits positive, US dollars."""

    account: str
    grant_id: int | None
    amount: Decimal


@dataclass(slots=True)
class GrantLeft:
    """What is left of a grant, in US dollars, and the usage it pays for: hours in ``[starts_at, expires_at)``."""

    id: int
    starts_at: datetime
    expires_at: datetime
    left: Decimal

    def covers(self, hour: datetime) -> bool:
        """Whether usage of that hour may be paid from it."""
        return self.starts_at <= hour < self.expires_at


@dataclass(slots=True)
class Funds:
    """An organization's money as the ledger has it: ``wallet`` it has, ``owed`` it owes, ``grants`` by expiry.

    Each method says which entries a posting needs, and counts as if they were made.
    """

    grants: list[GrantLeft]
    wallet: Decimal = ZERO
    owed: Decimal = ZERO

    def charge(self, amount: Decimal, hour: datetime) -> list[Line]:
        """Entries for usage of ``hour``; a negative amount is money back."""
        lines: list[Line] = []
        for grant in self.grants:
            taken = min(amount, grant.left)
            if taken > 0 and grant.covers(hour):
                grant.left -= taken
                amount -= taken
                lines.append(Line("grants", grant.id, taken))
        return lines + self.move(-amount)

    def move(self, amount: Decimal) -> list[Line]:
        """Entries for money that comes in, or goes out where ``amount`` is negative. Grants stay."""
        if amount > 0:
            to_debt = min(amount, max(self.owed, ZERO))
            to_wallet = amount - to_debt
        else:
            to_wallet = -min(-amount, max(self.wallet, ZERO))
            to_debt = amount - to_wallet
        self.owed -= to_debt
        self.wallet += to_wallet
        return [
            Line(account, None, -moved)
            for account, moved in (("receivable", to_debt), ("wallet", to_wallet))
            if moved
        ]


def read(cursor: Any, organization_id: int) -> Funds:
    """What the ledger says; the caller holds the organization's ledger lock (``billing.ledger.lock``)."""
    cursor.execute(_READ, [organization_id])
    funds = Funds([])
    for account, amount, grant_id, starts_at, expires_at in cursor.fetchall():
        if account == "grants":
            funds.grants.append(GrantLeft(grant_id, starts_at, expires_at, amount))
        elif account == "wallet":
            funds.wallet = amount
        else:
            funds.owed = -amount
    return funds
