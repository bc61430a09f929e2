"""Look-ups of requests while PostgreSQL says nothing: an honest error, and no waiting for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.db import connection
from psycopg_pool import AsyncConnectionPool

from billing.management.commands.ship import connection_parameters
from gateway.v1.errors import Unavailable
from gateway.v1.principals import Principals, read_principal
from gateway.v1.stored import StoredResponses
from tests.cast import make_cast
from tests.relay import Relay

pytestmark = pytest.mark.django_db


def in_silence(play: Callable[[AsyncConnectionPool[Any]], Awaitable[None]]) -> None:
    """Run ``play`` with a pool whose connections fell silent."""
    kwargs = connection_parameters() | {"autocommit": True}

    async def run() -> None:
        relay = Relay(kwargs)
        way = kwargs | {"host": "127.0.0.1", "port": await relay.open(), "sslmode": "disable"}
        try:
            async with AsyncConnectionPool(kwargs=way, min_size=2, max_size=2) as pool:
                await pool.wait()
                relay.silent(True)
                await asyncio.wait_for(play(pool), 60)
                relay.silent(False)
        finally:
            relay.close()
            # The server's side ends in the next turn.
            await asyncio.sleep(0)

    asyncio.run(run())


def test_a_key_that_is_not_known_yet_is_answered_in_time() -> None:
    async def play(pool: AsyncConnectionPool[Any]) -> None:
        with pytest.raises(Unavailable):
            await Principals(pool).authenticate("Bearer sk-weir-unknown", "127.0.0.1")

    in_silence(play)


def test_a_stored_response_is_answered_in_time() -> None:
    principal = read_principal(connection.connection, make_cast("acme").search_key.digest)
    assert principal is not None

    async def play(pool: AsyncConnectionPool[Any]) -> None:
        with pytest.raises(Unavailable):
            await StoredResponses(pool).find(principal, "resp_unknown")

    in_silence(play)
