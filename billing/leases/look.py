"""How a request would stand with its budgets: the rows that decide, read and not touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import Connection

from billing.calendars import BEGINNING, period_bounds
from billing.leases import rows
from billing.leases.account import BudgetExceeded, BudgetRule


@dataclass(frozen=True, slots=True)
class BudgetLook:
    """One budget in US dollars; a None ``limit`` enforces nothing. ``ends_at`` is when its period does.

    ``held`` is leased to workers: for requests under way, and for the next ones. A part of that may be free
    for this very request, so ``fits`` is sure, and its opposite only where ``held_in_the_way`` is not.
    """

    rule: BudgetRule
    limit: Decimal | None
    spent: Decimal
    held: Decimal
    take: Decimal
    fits: bool
    ends_at: datetime | None

    @property
    def left(self) -> Decimal:
        """What nobody has spent or holds; zero where nothing is enforced."""
        return Decimal(0) if self.limit is None else max(self.limit - self.spent - self.held, Decimal(0))

    @property
    def held_in_the_way(self) -> bool:
        """Whether it would fit but for what workers hold."""
        return not self.fits and self.limit is not None and self.spent + self.take <= self.limit

    def refusal(self) -> BudgetExceeded:
        """What a worker would raise."""
        return BudgetExceeded(self.rule, self.limit or Decimal(0), self.spent, self.ends_at, self.left)


def look_at_budgets(
    connection: Connection[Any], rules: Sequence[BudgetRule], end_user: str, amount: Decimal, at: datetime
) -> list[BudgetLook]:
    """How a request of at most ``amount`` US dollars stands with each of ``rules``; parameters as of
    ``LeaseBook.reserve``. A counter that is not there yet is worked out. Rules whose quota is gone are left out."""
    found = []
    for rule in rules:
        if rule.quota_id is None:
            start, end = BEGINNING, None
        else:
            start, end = period_bounds(rule.period, at, rule.time_zone)
        values = {
            "organization": rule.organization_id,
            "quota": rule.quota_id,
            "subject": rows.stored(end_user) if rule.subject_kind else "",
            "start": start,
            "end": end,
            "amount": amount,
        }
        row = connection.execute(rows.LOOK, values).fetchone()
        if row is None:
            unmade = rows.LOOK_WALLET if rule.quota_id is None else rows.LOOK_QUOTA[rule.scope]
            row = connection.execute(unmade, values).fetchone()
        if row is None:
            continue
        limit, spent, held, fits = row
        # A rule that is not hard counts, and what costs nothing passes.
        passes = fits or not rule.hard or not amount
        found.append(BudgetLook(rule, limit, spent, held, amount, passes, end))
    return found
