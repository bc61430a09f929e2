"""What a worker process holds between requests: its pool, its tables, its journal, its leases."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from psycopg import AsyncConnection, OperationalError
from psycopg_pool import AsyncConnectionPool

from billing import durability
from billing.journal import JournalWriter
from billing.leases import LeaseBook
from billing.patience import BACKGROUND_SECONDS, patient, within
from billing.rate_limits import RateLimiter
from gateway.v1 import rates
from gateway.v1.abandoned import Abandoned
from gateway.v1.admission import Admission
from gateway.v1.affinity import Affinity
from gateway.v1.blocking import NOBODY, Blocked, load_blocked
from gateway.v1.board import Board
from gateway.v1.cancelling import cancelled
from gateway.v1.capacity import Capacity
from gateway.v1.content_log import ContentLog
from gateway.v1.cors import load_origins
from gateway.v1.idempotency import IdempotencyKeys
from gateway.v1.journal import Journal
from gateway.v1.principals import Principals
from gateway.v1.pulse import Pulse
from gateway.v1.rates import RateBook, load_rates
from gateway.v1.relay import Relay
from gateway.v1.stored import StoredResponses
from gateway.v1.upstream import Upstream
from gateway.v1.usage_checks import UsageChecks
from routing import table
from routing.table import RoutingTable, load_table

logger = logging.getLogger(__name__)

CHANNEL = "weir_changed"
# How a worker's connection is named that follows changes; the moment of its newest reading comes after it.
READ_AT = "weir worker, read at "
# Notifications that come together are answered by one reload.
SETTLE_SECONDS = 0.02
MAINTAIN_SECONDS = 1.0
POOL_SIZE = 8
RECONNECT_SECONDS = 1.0


def database_dsn() -> str:
    """The address of PostgreSQL for connections of our own, from Django's settings: all that libpq knows of it,
    such as how to prove who the server is."""
    from django.db import connection
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    parameters = connection.get_connection_params().items()
    kept = {name: value for name, value in parameters if name in known and value not in {None, ""}}
    return make_conninfo(**{**kept, "application_name": "weir-v1"})


class Worker:
    """One process of the data plane. ``start`` before the first request, ``stop`` after the last."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.table: RoutingTable = table.EMPTY
        self.rates: RateBook = rates.EMPTY
        # Of the pages that may ask, whoever's key they have.
        self.origins: frozenset[bytes] = frozenset()
        # End users whose requests are refused.
        self.blocked: Blocked = NOBODY
        self._dsn = database_dsn()
        self.pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            self._dsn,
            min_size=1,
            max_size=POOL_SIZE,
            open=False,
            timeout=5,
            kwargs={"autocommit": True},
            # A grant that PostgreSQL forgot could be spent a second time.
            configure=durability.insist,
        )
        self.principals = Principals(self.pool)
        self.stored = StoredResponses(self.pool)
        self.pulse = Pulse()
        self.capacity = Capacity(
            settings.MAX_IN_FLIGHT, settings.MAX_BUFFERED_BYTES, settings.MAX_SPOOLED_BYTES
        )
        self.abandoned = Abandoned(settings.ABANDONED_SECONDS, settings.ABANDONED_TOKENS)
        self.upstream = Upstream()
        self._checks = UsageChecks(self.pool, settings.ACCOUNTING_SAMPLE)
        self.contents = ContentLog(self._dsn)
        self.relay = Relay(self.upstream, self.pulse, self._checks)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open everything and read the tables. Raises if PostgreSQL or the journal is not to be had."""
        await self.pool.open(wait=True, timeout=30)
        # Otherwise the pauses between attempts double for as long as PostgreSQL is away. A pool that gave up
        # tries anew when it is asked.
        self.pool.reconnect_timeout = RECONNECT_SECONDS
        self._writer = JournalWriter(settings.WEIR_DATA_DIR / "journal", self.id)
        self.journal = Journal(self._writer)
        self._leases = LeaseBook(self.pool, self.id)
        self._limiter = RateLimiter(
            settings.REDIS_URL, self.id.hex, workers=int(os.environ.get("WEB_CONCURRENCY", "1"))
        )
        self.admission = Admission(self._leases, self._limiter)
        self._board = Board(settings.REDIS_URL, self.pulse)
        self.pulse.ask_others = self._board.claims
        self.affinity = Affinity(settings.REDIS_URL)
        self.idempotency = IdempotencyKeys(settings.REDIS_URL)
        await self.reload()
        self._tasks = [
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._maintain()),
            asyncio.create_task(self._board.run()),
            asyncio.create_task(self.affinity.run()),
            asyncio.create_task(self._checks.run()),
            asyncio.create_task(self.contents.run()),
        ]

    async def stop(self) -> None:
        """Give back what is held and close."""
        await cancelled(self._tasks)
        await self._checks.close()
        await self.contents.close()
        try:
            await self._leases.close()
        except Exception:  # the shipper returns the leases of a worker that is gone
            logger.warning("Leases could not be returned; the shipper will.", exc_info=True)
        self._writer.close()
        await self._board.close()
        await self.affinity.close()
        await self.idempotency.close()
        await self._limiter.close()
        await self.upstream.close()
        await self.pool.close()

    async def reload(self) -> None:
        """Read routing table, prices, origins and blocked end users anew, and swap them in."""
        async with patient(self.pool, BACKGROUND_SECONDS) as connection:
            fresh_table = await load_table(connection)
            fresh_rates = await load_rates(connection, self.rates)
            fresh_origins = await load_origins(connection)
            fresh_blocked = await load_blocked(connection)
        self.table, self.rates, self.origins = fresh_table, fresh_rates, fresh_origins
        self.blocked = fresh_blocked

    async def _listen(self) -> None:
        """Follow changes by LISTEN; after a break, and every RELOAD_POLL_SECONDS, look for oneself."""
        while True:
            try:
                connecting = AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=10)
                async with await connecting as connection:
                    async with within(connection, BACKGROUND_SECONDS):
                        await connection.execute(f"LISTEN {CHANNEL}")
                    began = datetime.now(UTC)
                    # Whatever changed while nobody listened.
                    self.principals.clear()
                    await self.reload()
                    await _tell(connection, began)
                    while True:
                        await self._follow(connection)
            except (OperationalError, OSError) as error:
                logger.warning("No connection to PostgreSQL for changes: %s", type(error).__name__)
                await asyncio.sleep(1)

    async def _follow(self, connection: AsyncConnection[Any]) -> None:
        changed: set[str] = set()
        timeout: float = settings.RELOAD_POLL_SECONDS
        async for notification in connection.notifies(timeout=timeout, stop_after=1):
            changed.add(notification.payload)
        if changed:
            async for notification in connection.notifies(timeout=SETTLE_SECONDS):
                changed.add(notification.payload)
        began = datetime.now(UTC)
        if "tenants" in changed:
            self.principals.clear()
            async with patient(self.pool, BACKGROUND_SECONDS) as connection_of_ours:
                self.origins = await load_origins(connection_of_ours)
        if "end_users" in changed:
            async with patient(self.pool, BACKGROUND_SECONDS) as connection_of_ours:
                self.blocked = await load_blocked(connection_of_ours)
        if "routing" in changed or not changed:
            # Without a notification this is the poll, which also proves that the connection lives.
            await self.reload()
        await _tell(connection, began)

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTAIN_SECONDS)
            try:
                await self._leases.maintain()
            except Exception:
                logger.exception("Leases could not be maintained.")


async def _tell(connection: AsyncConnection[Any], read_at: datetime) -> None:
    """Say in PostgreSQL's list of connections that all which was committed by ``read_at`` is known here."""
    name = f"{READ_AT}{read_at:%Y-%m-%dT%H:%M:%S.%fZ}"
    async with within(connection, BACKGROUND_SECONDS):
        await connection.execute("SELECT set_config('application_name', %s, false)", [name])
