"""The way to PostgreSQL, and the memory of whether it was there a moment ago."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from billing.leases.account import MoneyUnavailable
from billing.leases.rows import Connection
from billing.patience import REQUEST_SECONDS, patient

PAUSE_SECONDS = 0.25
# Of the one request that tries again after a failure, while all others are told at once.
PROBE_SECONDS = 0.5

log = logging.getLogger(__name__)


class Link:
    """Connections from ``pool``. After a failure none is tried for a moment, and then one at a time until
    one succeeds, so that a crowd of requests does not queue up for a database that is away."""

    def __init__(self, pool: AsyncConnectionPool[Any], clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._away_until = float("-inf")
        self._failed = False
        self._probing = False
        self.failures = 0

    @property
    def away(self) -> bool:
        """Whether PostgreSQL failed a moment ago, or failed and is being tried."""
        return self._probing or self._away_until > self._clock()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection, committed at the end of the block. Raises ``MoneyUnavailable`` for any failure
        in the block or of the commit, if it all takes longer than three seconds (half a second where the
        last attempt failed), and at once while another attempt finds out whether PostgreSQL is back."""
        if self._probing:
            raise MoneyUnavailable
        probe = self._probing = self._failed
        try:
            seconds = PROBE_SECONDS if probe else REQUEST_SECONDS
            async with patient(self._pool, seconds) as connection:
                yield connection
        except (psycopg.Error, OSError) as error:
            self.failures += 1
            # A bad value or a deadlock says nothing about the next attempt.
            deadlock = isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("40")
            if (
                isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
                and not deadlock
            ):
                self._failed = True
                self._away_until = self._clock() + PAUSE_SECONDS
            log.warning("Budgets could not be asked: %s", type(error).__name__)
            raise MoneyUnavailable from error
        else:
            self._failed = False
        finally:
            if probe:
                self._probing = False
