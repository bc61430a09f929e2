"""A worker's leases: reserve in memory, ask PostgreSQL only when a lease is short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool

from billing.calendars import BEGINNING, period_bounds
from billing.leases import rows
from billing.leases.account import ZERO, Account, BudgetRule, MoneyUnavailable, Reservation
from billing.money import EXACT, QUANTUM

log = logging.getLogger(__name__)
# A slice is at most this part of what is left, so that many workers can share the end of a budget.
SHARE = Decimal(1) / 16
MOST_BURST = 4096
REFUSAL_SECONDS = 0.25
IDLE_SECONDS = 2.0
FORGET_SECONDS = 300.0
PATIENCE_SECONDS = 3.0
# How long an ended period is kept for requests that started in it.
GRACE = timedelta(seconds=60)

Key = tuple[int | None, int, str]


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


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
        self._pool = pool
        self._worker = worker
        self._clock = clock
        self._now = now
        self._current: dict[Key, Account] = {}
        self._accounts: dict[tuple[Key, datetime], Account] = {}
        self._finding: dict[tuple[Key, datetime], asyncio.Task[Account | None]] = {}
        self._away_until = float("-inf")
        self._looked_at = clock()
        self._closed = False
        # Counters for metrics.
        self.grants = 0
        self.refusals = 0
        self.failures = 0

    async def reserve(
        self, rules: Sequence[BudgetRule], end_user: str, amount: Decimal, started_at: datetime
    ) -> Reservation:
        """Set ``amount`` (US dollars, at most twelve places) aside in every budget, or in none.

        ``started_at`` chooses the period. While leases suffice this neither waits nor yields. Raises
        ``BudgetExceeded`` for the first budget that has too little left, and ``MoneyUnavailable``
        where PostgreSQL is needed and away.
        """
        reservation = Reservation(amount)
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
        """Return idle money and forget what is not used. To be called about once a second.

        Idle is what stayed free for two seconds, and whatever is free in a period that has ended.
        While PostgreSQL is away, nothing is returned.
        """
        clock = self._clock()
        look = clock - self._looked_at >= IDLE_SECONDS
        if look:
            self._looked_at = clock
        idle: list[tuple[Account, Decimal]] = []
        uncapped: list[Account] = []
        ended_before = self._now() - GRACE
        for place, account in list(self._accounts.items()):
            if account.used:
                account.used = False
                account.idle_since = clock
            ended = account.end is not None and account.end <= ended_before
            spare = account.free if ended else account.lowest if look else ZERO
            if look:
                account.lowest = account.free
            if spare > 0:
                idle.append((account, spare))
            elif account.open or account.refilling or account.free > 0:
                pass
            elif ended or clock - account.idle_since >= FORGET_SECONDS:
                self._forget(place)
                continue
            if account.limit is None:
                uncapped.append(account)
        await self._give_back(idle)
        await self._reread(uncapped)

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
                task.add_done_callback(lambda done: self._found(place, done))
            account = await asyncio.shield(task)
        else:
            account.period, account.time_zone, account.end = rule.period, rule.time_zone, end
        if account is not None and account.covers(rule, at):
            latest = self._current.get(key)
            if latest is None or latest.start <= account.start or not latest.covers(rule, latest.start):
                self._current[key] = account
        return account

    def _found(self, place: tuple[Key, datetime], task: asyncio.Task[Account | None]) -> None:
        del self._finding[place]
        if not task.cancelled():
            task.exception()  # Whoever waits has it; nobody may be left to.

    async def _load(
        self, place: tuple[Key, datetime], rule: BudgetRule, end: datetime | None
    ) -> Account | None:
        (_, _, subject), start = place
        async with self._connection() as connection:
            row = await rows.find_or_make(connection, rule, subject, start, end)
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
                # A task of its own: a request that is cancelled must not lose money on its way.
                account.refilling = asyncio.create_task(self._grant(account, amount))
                account.refilling.add_done_callback(lambda done: self._refilled(account, done))
            await asyncio.shield(account.refilling)
        finally:
            account.wanted -= amount

    def _refilled(self, account: Account, task: asyncio.Task[None]) -> None:
        account.refilling = None
        if not task.cancelled():
            task.exception()

    async def _grant(self, account: Account, amount: Decimal) -> None:
        """Lease what ``amount`` lacks, and a slice ahead of need. Notes a refusal in the account."""
        clock = self._clock()
        recently = clock - account.refilled_at < 1.0
        account.burst = min(account.burst * 2, MOST_BURST) if recently else max(account.burst // 2, 16)
        account.refilled_at = clock
        async with self._connection() as connection:
            for _ in range(4):
                need = (amount - account.free).quantize(QUANTUM, rounding=ROUND_CEILING, context=EXACT)
                if need <= 0:
                    return
                ahead = min(account.room * SHARE, account.wanted * account.burst)
                wished = max(need, ahead.quantize(QUANTUM, rounding=ROUND_FLOOR, context=EXACT))
                row = await rows.grant(connection, self._worker, account.id, wished)
                if row is not None:
                    self.grants += 1
                    account.note(row.limit, row.spent, row.held)
                    account.free += wished
                    account.refused_until = float("-inf")
                    return
                # What was known of the room was stale, or there is none.
                row = (await rows.read(connection, [account.id])).get(account.id)
                if row is None:
                    self._drop(account)
                    return
                account.note(row.limit, row.spent, row.held)
                if row.limit is not None and account.room < need:
                    break
        account.refused_need = need
        account.refused_until = self._clock() + REFUSAL_SECONDS

    async def _give_back(self, idle: Sequence[tuple[Account, Decimal]]) -> None:
        """Return parts of the free money of accounts to PostgreSQL."""
        parts = [(account, spare) for account, spare in idle if spare > 0]
        if not parts or self._away_until > self._clock():
            return
        for account, spare in parts:
            account.take(spare)
        committing = False
        try:
            async with self._connection() as connection, connection.transaction():
                await rows.give_back(
                    connection, self._worker, {account.id: spare for account, spare in parts}
                )
                committing = True
        except MoneyUnavailable:
            if not committing:
                for account, spare in parts:
                    account.take(-spare)

    async def _reread(self, accounts: Sequence[Account]) -> None:
        """See whether a budget without a limit has got one."""
        if not accounts or self._away_until > self._clock():
            return
        with contextlib.suppress(MoneyUnavailable):
            async with self._connection() as connection:
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
        if self._closed or self._away_until > self._clock():
            raise MoneyUnavailable

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[rows.Connection]:
        """A connection; a failure in the block becomes ``MoneyUnavailable``, and none is tried for a moment."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._pool.connection() as connection:
                yield connection
        except (psycopg.Error, OSError, TimeoutError) as error:
            self.failures += 1
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError | TimeoutError):
                self._away_until = self._clock() + REFUSAL_SECONDS
            log.warning("Budgets could not be asked: %s", type(error).__name__)
            raise MoneyUnavailable from error
