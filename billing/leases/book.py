"""A worker's leases: reserve in memory, ask PostgreSQL only when a lease is short."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import partial
from typing import Any
from uuid import UUID

from psycopg_pool import AsyncConnectionPool

from billing.calendars import BEGINNING, period_bounds
from billing.leases import rows
from billing.leases.account import SHARE, ZERO, Account, BudgetRule, MoneyUnavailable, Reservation
from billing.leases.link import Link
from billing.money import EXACT, QUANTUM

# How many requests' worth to lease at a time: more where leases run out within a second.
LEAST_BURST = 16
MOST_BURST = 4096
REFUSAL_SECONDS = 0.25
IDLE_SECONDS = 2.0
FORGET_SECONDS = 300.0
# How long an ended period is kept for requests that started in it.
GRACE = timedelta(seconds=60)

Key = tuple[int | None, int, str]


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


def heard(task: asyncio.Task[Any]) -> None:
    """Take note of a task's failure, since all who waited for it may have gone."""
    if not task.cancelled():
        task.exception()


class LeaseBook:
    """The leases of one worker process. Use it from one event loop.

    For each budget and this worker, with everything in US dollars::

        lease.remaining (database) = free + reserved + settled here but not yet shipped
        budget.held     (database) = the sum of lease.remaining over all workers

    - A grant adds x to ``held`` and ``remaining`` in one statement, and then to ``free``. The statement
      refuses what would lift ``spent + held`` over the limit, so no sum of reservations can either.
    - Reserving moves money from ``free`` to reserved; ``settle`` moves the unspent part back. Neither
      touches the database: the spent part stays inside ``remaining`` until the shipper, in the
      transaction that inserts the usage event, moves it from ``held`` and ``remaining`` to ``spent``.
    - Returning x takes it out of ``free`` first, and then lowers ``held`` and ``remaining`` by x. Only
      ``free`` is ever returned, so what a request may yet spend, or has spent, stays held.
    - Where a step ends in doubt (the connection breaks during a commit), memory keeps the smaller
      number: ``remaining`` may be too large, never too small. What is then held for nobody returns with
      the worker's end, when the shipper returns its leases.

    A charge above its reservation can leave ``free`` below zero. The next grant covers the debt first.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        worker: UUID,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``pool`` must be open; autocommit saves a round trip. ``clock`` counts seconds, for waiting."""
        self._link = Link(pool, clock)
        self._worker = worker
        self._clock = clock
        self._now = now
        self._current: dict[Key, Account] = {}
        self._accounts: dict[tuple[Key, datetime], Account] = {}
        self._finding: dict[tuple[Key, datetime], asyncio.Task[Account | None]] = {}
        self._looked_at = clock()
        self._closed = False
        # Counters for metrics.
        self.grants = 0
        self.refusals = 0

    @property
    def failures(self) -> int:
        """How often PostgreSQL was needed in vain."""
        return self._link.failures

    async def reserve(
        self, rules: Sequence[BudgetRule], end_user: str, amount: Decimal, started_at: datetime
    ) -> Reservation:
        """Set ``amount`` (US dollars, at most twelve places) aside in every budget, or in none.

        ``started_at`` chooses the period. While leases suffice this neither waits nor yields. Raises
        ``BudgetExceeded`` for the first budget that has too little left, and ``MoneyUnavailable``
        where PostgreSQL is needed and away.
        """
        reservation = Reservation(amount, started_at)
        try:
            for rule in rules:
                subject = ""
                if rule.subject_kind:
                    if not end_user:
                        continue
                    subject = end_user
                key = (rule.quota_id, rule.organization_id, subject)
                account = self._current.get(key)
                if account is None or not account.covers(rule, started_at):
                    account = await self._find(key, rule, started_at)
                    if account is None:
                        continue
                leased = rule.hard and account.limit is not None
                while leased and amount > account.free and amount:
                    await self._refill(account, rule, amount)
                    leased = account.limit is not None
                reservation.add(account, leased=leased)
        except BaseException:
            reservation.release()
            raise
        return reservation

    async def maintain(self) -> None:
        """Keep leases as large as they should be, and forget what is not used. To be called about once a
        second.

        A lease should cover the next minute at the rate of late, and less near the budget's end. What
        was free beyond that for two seconds returns, and whatever is free where nothing is spent any more
        or in a period that has ended; a lease that fell below half of it grows. While PostgreSQL is
        away, neither is done.
        """
        clock = self._clock()
        since = clock - self._looked_at
        look = since >= IDLE_SECONDS
        if look:
            self._looked_at = clock
        idle: list[tuple[Account, Decimal]] = []
        # Whose numbers in the database others change.
        shared: list[Account] = []
        short: list[tuple[Account, Decimal]] = []
        indebted: list[Account] = []
        ended_before = self._now() - GRACE
        for place, account in list(self._accounts.items()):
            if account.used:
                account.used = False
                account.idle_since = clock
            ended = account.end is not None and account.end <= ended_before
            quiet = not account.open and clock - account.idle_since >= IDLE_SECONDS
            spare = ZERO
            if ended:
                spare = account.free
            elif look:
                spare = account.look(round(since * 1000), idle=quiet)
            if spare < 0:
                short.append((account, -spare))
            if spare > 0:
                idle.append((account, spare))
            elif not account.in_use and (ended or clock - account.idle_since >= FORGET_SECONDS):
                self._forget(place)
                continue
            if account.limit is None or account.rate:
                shared.append(account)
            elif account.free < 0 and quiet:
                indebted.append(account)
        await self._give_back(idle)
        await self._reread(shared)
        for account, lack in short:
            await self._unasked(account, partial(self._grow, account, lack))
        for account in indebted:
            if not account.open:
                await self._unasked(account, partial(self._square, account))

    async def close(self) -> None:
        """Return all that is free, at the worker's end. Reserving then raises ``MoneyUnavailable``."""
        self._closed = True
        under_way = [account.refilling for account in self._accounts.values() if account.refilling]
        if under_way:
            await asyncio.wait(under_way)
        await self._give_back([(account, account.free) for account in self._accounts.values()])

    async def _find(self, key: Key, rule: BudgetRule, at: datetime) -> Account | None:
        """The account of ``rule`` in the period of ``at``; one query however many ask."""
        if rule.quota_id is None:
            start, end = BEGINNING, None
        else:
            start, end = period_bounds(rule.period, at, rule.time_zone)
        place = (key, start)
        account = self._accounts.get(place)
        if account is None:
            self._check_reachable()
            task = self._finding.get(place)
            if task is None:
                task = asyncio.create_task(self._load(place, rule, end))
                self._finding[place] = task
                task.add_done_callback(heard)
            account = await asyncio.shield(task)
        else:
            account.period, account.time_zone, account.end = rule.period, rule.time_zone, end
        if account is not None and account.covers(rule, at):
            latest = self._current.get(key)
            if latest is None or latest.start <= account.start or not latest.covers(rule, latest.start):
                self._current[key] = account
        return account

    async def _load(
        self, place: tuple[Key, datetime], rule: BudgetRule, end: datetime | None
    ) -> Account | None:
        (_, _, subject), start = place
        try:
            async with self._link.connection() as connection:
                row = await rows.find_or_make(connection, rule, subject, start, end)
        finally:
            del self._finding[place]
        if row is None:
            return None
        account = Account(row.id, rule, start, end)
        account.idle_since = self._clock()
        account.note(row.limit, row.spent, row.held)
        self._accounts[place] = account
        return account

    async def _refill(self, account: Account, rule: BudgetRule, amount: Decimal) -> None:
        """Wait for one attempt to make the lease larger; others that wait share it."""
        if account.refused_until > self._clock() and amount - account.free >= account.refused_need:
            self.refusals += 1
            raise account.exceeded(rule)
        self._check_reachable()
        account.wanted += amount
        try:
            if account.refilling is None:
                await self._alone(account, self._grant(account, amount))
            else:
                await asyncio.shield(account.refilling)
        finally:
            account.wanted -= amount

    async def _alone(self, account: Account, change: Coroutine[Any, Any, None]) -> None:
        """Run the one change of the lease at a time. A task of its own: what it moves must not get lost
        with a request that is cancelled."""

        async def change_alone() -> None:
            try:
                await change
            finally:
                # Not in a callback: until that ran, a newcomer would wait for what is over, for ever.
                account.refilling = None

        task = account.refilling = asyncio.create_task(change_alone())
        task.add_done_callback(heard)
        await asyncio.shield(task)

    async def _unasked(self, account: Account, change: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Make a change of the lease that no request waits for, unless another one is under way."""
        if account.refilling is None and not self._link.away:
            with contextlib.suppress(MoneyUnavailable):
                await self._alone(account, change())

    async def _grant(self, account: Account, amount: Decimal) -> None:
        """Lease what ``amount`` lacks, and a slice ahead of need. Notes a refusal in the account."""
        clock = self._clock()
        recently = clock - account.refilled_at < 1.0
        account.burst = (
            min(account.burst * 2, MOST_BURST) if recently else max(account.burst // 2, LEAST_BURST)
        )
        account.refilled_at = clock
        async with self._link.connection() as connection:
            granted = await self._ask(connection, account, amount)
        # Only what is committed is there to be spent.
        if granted > 0:
            self.grants += 1
            account.free += granted
            account.refused_until = float("-inf")

    async def _ask(self, connection: rows.Connection, account: Account, amount: Decimal) -> Decimal:
        """What the database granted: at least what ``amount`` lacks, or zero."""
        for _ in range(4):
            need = (amount - account.free).quantize(QUANTUM, rounding=ROUND_CEILING, context=EXACT)
            if need <= 0:
                return ZERO
            ahead = max(account.ahead, min(account.room * SHARE, account.wanted * account.burst))
            wished = max(need, ahead.quantize(QUANTUM, rounding=ROUND_FLOOR, context=EXACT))
            row = await rows.grant(connection, self._worker, account.id, wished)
            if row is not None:
                account.note(row.limit, row.spent, row.held)
                return wished
            # What was known of the room was stale, or there is none.
            row = (await rows.read(connection, [account.id])).get(account.id)
            if row is None:
                self._drop(account)
                return ZERO
            account.note(row.limit, row.spent, row.held)
            if row.limit is not None and account.room < need:
                break
        account.refused_need = need
        account.refused_until = self._clock() + REFUSAL_SECONDS
        return ZERO

    async def _grow(self, account: Account, amount: Decimal) -> None:
        """Add about ``amount`` to a lease that nobody waits for, unless the budget has less than that."""
        wished = min(amount, account.room * SHARE).quantize(QUANTUM, rounding=ROUND_FLOOR, context=EXACT)
        if wished <= 0:
            return
        async with self._link.connection() as connection:
            row = await rows.grant(connection, self._worker, account.id, wished)
        if row is not None:
            account.note(row.limit, row.spent, row.held)
            self.grants += 1
            account.free += wished
            # Or it would look as short at the next look as at this one.
            account.lowest += wished

    async def _give_back(self, idle: Sequence[tuple[Account, Decimal]]) -> None:
        """Return parts of the free money of accounts to PostgreSQL."""
        parts = [(account, spare) for account, spare in idle if spare > 0]
        if not parts or self._link.away:
            return
        for account, spare in parts:
            account.take(spare)
        committing = False
        try:
            async with self._link.connection() as connection, connection.transaction():
                await rows.give_back(
                    connection, self._worker, {account.id: spare for account, spare in parts}
                )
                committing = True
        except MoneyUnavailable:
            pass
        finally:
            if not committing:
                for account, spare in parts:
                    account.take(-spare)

    async def _square(self, account: Account) -> None:
        """Forget a debt that has been shipped: it is in ``spent``, and the lease it was taken from is empty.

        Nothing is reserved here, and others wait while this runs. The journal ships in order, so with
        the last request's event all of this worker's charges are in the database.
        """
        async with self._link.connection() as connection, connection.transaction():
            shipped = await rows.shipped(
                connection, account.id, account.organization_id, account.settled_start
            )
            if shipped:
                await rows.give_back(connection, self._worker, {account.id: None})
        if shipped:
            account.free = account.lowest = ZERO

    async def _reread(self, accounts: Sequence[Account]) -> None:
        """See what budgets have left, and whether one without a limit has got one."""
        if not accounts or self._link.away:
            return
        with contextlib.suppress(MoneyUnavailable):
            async with self._link.connection() as connection:
                found = await rows.read(connection, [account.id for account in accounts])
            for account in accounts:
                row = found.get(account.id)
                if row is None:
                    self._drop(account)
                else:
                    account.note(row.limit, row.spent, row.held)

    def _drop(self, account: Account) -> None:
        """The row is gone, with its quota: enforce nothing, and look anew for the next request."""
        account.limit = None
        for place, known in list(self._accounts.items()):
            if known is account:
                self._forget(place)

    def _forget(self, place: tuple[Key, datetime]) -> None:
        account = self._accounts.pop(place)
        if self._current.get(place[0]) is account:
            del self._current[place[0]]

    def _check_reachable(self) -> None:
        if self._closed or self._link.away:
            raise MoneyUnavailable
