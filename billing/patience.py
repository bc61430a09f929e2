"""Conversations with PostgreSQL that end in time, also where it says nothing any more.

A server that is stopped, or behind a network that lost the way to it, neither answers nor hangs up. Cancelling the
task that waits is no way out: psycopg then asks the server to cancel the statement, which it does not answer either,
and waits for up to ten seconds. So it is the connection that is ended, and whoever waits hears of it at once.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg_pool import AsyncConnectionPool

# What a request that waits, and what is done beside them, gives PostgreSQL.
REQUEST_SECONDS = 3.0
BACKGROUND_SECONDS = 30.0


@asynccontextmanager
async def patient(pool: AsyncConnectionPool[Any], seconds: float) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection of ``pool``, committed at the end of the block. Raises OperationalError (or PoolTimeout, which
    is one) if getting it, the block and the commit together take longer than ``seconds``."""
    until = asyncio.get_running_loop().time() + seconds
    timer: asyncio.TimerHandle | None = None
    try:
        async with pool.connection(timeout=seconds) as connection:
            timer = asyncio.get_running_loop().call_at(until, _cut, connection)
            yield connection
    finally:
        if timer is not None:
            timer.cancel()


@contextmanager
def within(connection: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """End ``connection`` if the block takes longer than ``seconds``; what waits for it raises OperationalError."""
    timer = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: AsyncConnection[Any]) -> None:
    # Without closing it: the file's number is psycopg's, and stays so until it has seen the end.
    with suppress(OSError, OperationalError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as wire:
        wire.shutdown(socket.SHUT_RDWR)
