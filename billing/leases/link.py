"""The way to PostgreSQL, and the memory of whether it was there a moment ago."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from billing.leases.account import MoneyUnavailable
from billing.leases.rows import Connection

PATIENCE_SECONDS = 3.0
PAUSE_SECONDS = 0.25

log = logging.getLogger(__name__)


class Link:
    """Connections from ``pool``. After a failure none is tried for a moment, so that a crowd of requests
    does not queue up for a database that is away."""

    def __init__(self, pool: AsyncConnectionPool[Any], clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._away_until = float("-inf")
        self.failures = 0

    @property
    def away(self) -> bool:
        """Whether PostgreSQL failed a moment ago."""
        return self._away_until > self._clock()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection, committed at the end of the block. Raises ``MoneyUnavailable`` for any failure
        in the block or of the commit, and if it all takes longer than three seconds."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._pool.connection() as connection:
                yield connection
        except (psycopg.Error, OSError, TimeoutError) as error:
            self.failures += 1
            # A bad value or a deadlock says nothing about the next attempt.
            deadlock = isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("40")
            if (
                isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
                and not deadlock
            ):
                self._away_until = self._clock() + PAUSE_SECONDS
            log.warning("Budgets could not be asked: %s", type(error).__name__)
            raise MoneyUnavailable from error
