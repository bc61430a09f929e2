"""A PostgreSQL that says nothing any more is left in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from billing.management.commands.ship import connection_parameters
from billing.patience import patient, within
from tests.relay import Relay

pytestmark = pytest.mark.django_db


def through(play: Callable[[Relay, dict[str, Any]], Awaitable[None]]) -> None:
    """Run ``play`` with a relay and the parameters of connections through it."""
    kwargs = connection_parameters() | {"autocommit": True}

    async def run() -> None:
        relay = Relay(kwargs)
        way = kwargs | {"host": "127.0.0.1", "port": await relay.open(), "sslmode": "disable"}
        try:
            await asyncio.wait_for(play(relay, way), 60)
        finally:
            relay.close()
            # The server's side ends in the next turn.
            await asyncio.sleep(0)

    asyncio.run(run())


def test_a_silent_server_is_left_sooner_than_psycopg_would() -> None:
    async def play(relay: Relay, way: dict[str, Any]) -> None:
        async with await AsyncConnection.connect(**way) as connection:
            relay.silent(True)
            # It takes ten.
            async with asyncio.timeout(8):
                with pytest.raises(psycopg.OperationalError):
                    async with within(connection, 0.2):
                        await connection.execute("SELECT 1")
            assert connection.broken

    through(play)


def test_a_server_that_is_only_slow_is_asked_to_cancel_and_keeps_the_connection() -> None:
    async def play(_: Relay, way: dict[str, Any]) -> None:
        async with await AsyncConnection.connect(**way) as connection:
            with pytest.raises(psycopg.errors.QueryCanceled):
                async with within(connection, 0.2):
                    await connection.execute("SELECT pg_sleep(60)")
            await connection.execute("SELECT 1")

    through(play)


def test_a_connection_that_answered_in_time_stays() -> None:
    async def play(_: Relay, way: dict[str, Any]) -> None:
        async with await AsyncConnection.connect(**way) as connection:
            async with within(connection, 0.2):
                await connection.execute("SELECT 1")
            # Longer than its patience and the grace.
            await asyncio.sleep(1)
            await connection.execute("SELECT 1")

    through(play)


def test_a_pool_gives_up_a_silent_connection_and_opens_another_when_the_server_is_back() -> None:
    async def play(relay: Relay, way: dict[str, Any]) -> None:
        async with AsyncConnectionPool(kwargs=way, min_size=1, max_size=1) as pool:
            relay.silent(True)
            with pytest.raises(psycopg.OperationalError):
                async with patient(pool, 0.2) as connection:
                    await connection.execute("SELECT 1")
            relay.silent(False)
            async with patient(pool, 30) as connection:
                assert await (await connection.execute("SELECT 2")).fetchone() == (2,)

    through(play)


def test_waiting_for_a_connection_counts_too() -> None:
    async def play(_: Relay, way: dict[str, Any]) -> None:
        async with AsyncConnectionPool(kwargs=way, min_size=1, max_size=1) as pool, pool.connection():
            with pytest.raises(PoolTimeout):
                async with patient(pool, 0.2):
                    pass

    through(play)
