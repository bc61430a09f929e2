"""What a worker keeps in memory of a budget, and what a request holds of it. No input or output here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal

from billing.money import EXACT, QUANTUM

ZERO = Decimal(0)
# How much of the time to come a lease is for, at the rate of spending of late.
AHEAD_SECONDS = 60
# A slice is at most this part of what is left, so that many workers can share the end of a budget.
SHARE = Decimal(1) / 16
# How much of the rate is the last look's, of a rate that is known.
NEWEST = Decimal("0.25")


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """One budget that binds a request, as admission knows it.

    ``quota_id`` None is the organization's wallet. ``subject_kind`` is ``"end_user"`` for a quota that
    gives each end user a budget of its own (it binds no request that names none), otherwise empty.
    ``period`` is day, week, month or total, by the calendar of ``time_zone`` (an IANA name).
    ``limit`` in US dollars is for messages; the enforced one is in the database. A rule that is not
    ``hard`` is counted and never refuses. ``label`` is what a message calls it.
    """

    quota_id: int | None
    organization_id: int
    scope: str
    subject_kind: str
    period: str
    limit: Decimal | None
    hard: bool
    time_zone: str
    label: str


class BudgetExceeded(Exception):
    """A budget has too little left: ``limit`` and ``spent`` in US dollars.

    ``resets_at`` is when the period ends, None for a budget without periods. A part of what seems
    left can be held for requests under way; ``left`` is what a request of this worker could have.
    """

    def __init__(
        self,
        rule: BudgetRule,
        limit: Decimal,
        spent: Decimal,
        resets_at: datetime | None,
        left: Decimal = ZERO,
    ) -> None:
        super().__init__(f"The budget {rule.label!r} is used up.")
        self.rule = rule
        self.limit = limit
        self.spent = spent
        self.resets_at = resets_at
        self.left = left


class MoneyUnavailable(Exception):
    """PostgreSQL could not be asked, and no lease at hand is large enough."""


class Account:
    """One budget in one period, in this worker.

    ``free`` is what of the lease no request has reserved; it is negative where requests were charged
    more than the lease had. ``lowest`` is the least it has been since the last look for idle money.
    ``room`` is what the budget had left when the database was last asked. ``rate`` is what requests are
    charged in US dollars a second, smoothed; ``charged`` is what they were since the last look.
    """

    __slots__ = (
        "burst",
        "charged",
        "end",
        "free",
        "id",
        "idle_since",
        "limit",
        "lowest",
        "open",
        "organization_id",
        "period",
        "rate",
        "refilled_at",
        "refilling",
        "refused_need",
        "refused_until",
        "room",
        "settled_start",
        "spent",
        "start",
        "time_zone",
        "used",
        "wanted",
    )

    def __init__(self, budget_id: int, rule: BudgetRule, start: datetime, end: datetime | None) -> None:
        self.id = budget_id
        self.organization_id = rule.organization_id
        self.period = rule.period
        self.time_zone = rule.time_zone
        self.start = start
        self.end = end
        self.limit: Decimal | None = None
        self.spent = ZERO
        self.room = ZERO
        self.free = ZERO
        self.lowest = ZERO
        self.charged = ZERO
        self.rate = ZERO
        self.open = 0
        # When the request that was settled last had started.
        self.settled_start = start
        self.used = True
        self.idle_since = 0.0
        # Of requests that wait for a grant.
        self.wanted = ZERO
        self.burst = 16
        self.refilling: asyncio.Task[None] | None = None
        self.refilled_at = float("-inf")
        self.refused_until = float("-inf")
        self.refused_need = ZERO

    def covers(self, rule: BudgetRule, at: datetime) -> bool:
        """Whether this is the period of ``rule`` that ``at`` falls into."""
        return (
            self.start <= at
            and (self.end is None or at < self.end)
            and self.period == rule.period
            and self.time_zone == rule.time_zone
        )

    def note(self, limit: Decimal | None, spent: Decimal, held: Decimal) -> None:
        """Remember what the database said."""
        self.limit = limit
        self.spent = spent
        self.room = ZERO if limit is None else limit - spent - held

    def take(self, amount: Decimal) -> None:
        """Move ``amount`` (negative: give back) out of the free part."""
        self.free -= amount
        if self.free < self.lowest:  # noqa: PLR1730 # min() takes thrice as long, on every request
            self.lowest = self.free

    @property
    def in_use(self) -> bool:
        """Whether anything is reserved, asked for or left to return."""
        return bool(self.open or self.refilling or self.free > 0)

    @property
    def ahead(self) -> Decimal:
        """What is worth having of the lease for the next minute; less near the budget's end."""
        worth = max(min(self.rate * AHEAD_SECONDS, self.room * SHARE), ZERO)
        return worth.quantize(QUANTUM, rounding=ROUND_FLOOR, context=EXACT)

    def look(self, milliseconds: int, *, idle: bool) -> Decimal:
        """Learn the rate of spending from the time since the last look. Returns what of the lease was not
        needed meanwhile and is beyond the next minute's; below zero, what a lease in steady use lacks for it.

        Of what is idle, nothing is needed.
        """
        steady = self.rate > 0 and not idle
        rate = ZERO if idle else self.charged * 1000 / milliseconds
        self.rate = self.rate + (rate - self.rate) * NEWEST if steady else rate
        self.charged = ZERO
        ahead, lowest = self.ahead, self.lowest
        self.lowest = self.free
        # Filled up when half of it is gone, so that it is seldom asked for.
        if lowest > ahead or (steady and lowest < ahead / 2):
            return lowest - ahead
        return ZERO

    def exceeded(self, rule: BudgetRule) -> BudgetExceeded:
        """The refusal, with the numbers last seen."""
        left = max(self.free + max(self.room, ZERO), ZERO)
        return BudgetExceeded(rule, self.limit or ZERO, self.spent, self.end, left)


class Reservation:
    """Money set aside for one request, in US dollars, in every budget that binds it.

    End it once, with ``settle`` or ``release``; whatever is called after that does nothing.
    """

    __slots__ = ("_accounts", "_ended", "_leased", "amount", "budget_ids", "started_at")

    def __init__(self, amount: Decimal, started_at: datetime) -> None:
        self.amount = amount
        self.started_at = started_at
        self.budget_ids: list[int] = []
        self._accounts: list[Account] = []
        self._leased: list[Account] = []
        self._ended = False

    def add(self, account: Account, *, leased: bool) -> None:
        """Count the request in ``account``; where ``leased``, take the amount from its lease."""
        if leased:
            account.take(self.amount)
            self._leased.append(account)
        account.open += 1
        account.used = True
        self._accounts.append(account)
        self.budget_ids.append(account.id)

    @property
    def binding(self) -> bool:
        """Whether a limit stands behind it, rather than counters alone."""
        return bool(self._leased)

    def settle(self, charge: Decimal) -> None:
        """The request was charged ``charge``: the rest returns to the leases of this worker.

        What is charged beyond the reserved amount is taken from the leases too, below zero if need be.
        """
        if charge < 0:
            raise ValueError("A charge is not negative.")
        self._end(self.amount - charge)
        for account in self._leased:
            account.settled_start = self.started_at
            account.charged += charge

    def release(self) -> None:
        """The request cost nothing."""
        self._end(self.amount)

    def _end(self, back: Decimal) -> None:
        if self._ended:
            return
        self._ended = True
        for account in self._leased:
            account.take(-back)
        for account in self._accounts:
            account.open -= 1
            account.used = True
