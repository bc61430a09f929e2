"""Conversations with PostgreSQL that end in time, also where it says nothing any more.

A server that is stopped, or behind a network that lost the way to it, neither answers nor hangs up. Cancelling the
task that waits is no way out: psycopg then asks the server to cancel the statement, which it does not answer either,
and waits for up to ten seconds. Here it is asked too, since a statement that only waited for a lock must not be
carried out later; but if it says nothing, the connection is ended, and whoever waits hears of it at once.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

# What a request that waits, and what is done beside them, gives PostgreSQL.
REQUEST_SECONDS = 3.0
BACKGROUND_SECONDS = 30.0
# In which a server that is there has cancelled a statement.
GRACE_SECONDS = 0.5


@asynccontextmanager
async def patient(pool: AsyncConnectionPool[Any], seconds: float) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection of ``pool``, whose connections are in autocommit. Raises OperationalError (PoolTimeout is one)
    if getting it and the block together take longer than ``seconds``, and a moment in which that is sorted out."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    async with pool.connection(timeout=seconds) as connection, within(connection, until - loop.time()):
        yield connection


@asynccontextmanager
async def within(connection: AsyncConnection[Any], seconds: float) -> AsyncIterator[None]:
    """Have what waits for ``connection`` raise OperationalError if the block takes longer than ``seconds``."""
    deadline = _Deadline(connection, seconds)
    try:
        yield
    finally:
        await deadline.over()


class _Deadline:
    def __init__(self, connection: AsyncConnection[Any], seconds: float) -> None:
        self._connection = connection
        self._timer = asyncio.get_running_loop().call_later(seconds, self._come)
        self._asking: asyncio.Task[None] | None = None

    def _come(self) -> None:
        loop = asyncio.get_running_loop()
        self._asking = loop.create_task(self._ask())
        self._timer = loop.call_later(GRACE_SECONDS, self._cut)

    async def _ask(self) -> None:
        with suppress(psycopg.Error, OSError):
            await self._connection.cancel_safe(timeout=GRACE_SECONDS)

    def _cut(self) -> None:
        # Without closing it: the file's number is psycopg's, and stays so until it has seen the end.
        with (
            suppress(psycopg.Error, OSError),
            socket.socket(fileno=os.dup(self._connection.pgconn.socket)) as wire,
        ):
            wire.shutdown(socket.SHUT_RDWR)

    async def over(self) -> None:
        """The block has ended."""
        self._timer.cancel()
        if self._asking is not None:
            # Or it might cancel what the connection does next. Its own timeout is libpq's from version 17 on.
            await asyncio.wait([self._asking], timeout=2 * GRACE_SECONDS)
