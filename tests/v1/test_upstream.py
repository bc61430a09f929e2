"""The timeout around a provider's many short waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.v1.upstream import Watch


def run(test: Coroutine[Any, Any, str]) -> str:
    return asyncio.run(asyncio.wait_for(test, 20))


async def waiting(watch: Watch, seconds: float, limit: float) -> str:
    """Wait ``seconds`` under a limit; what came of it."""
    watch.start(limit)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if watch.expired():
            return "expired"
        raise
    finally:
        watch.pause()
    return "done"


def test_a_wait_that_is_too_long_expires() -> None:
    assert run(waiting(Watch(), 10, 0.05)) == "expired"


def test_many_short_waits_never_add_up_to_one_that_is_too_long() -> None:
    async def test() -> str:
        watch = Watch()
        return ",".join({await waiting(watch, 0.02, 0.1) for _ in range(15)})

    assert run(test()) == "done"


def test_a_shorter_limit_after_a_longer_one_counts() -> None:
    async def test() -> str:
        watch = Watch()
        await waiting(watch, 0, 30)
        return await waiting(watch, 10, 0.05)

    assert run(test()) == "expired"


def test_a_wait_after_one_that_expired_has_its_whole_time() -> None:
    async def test() -> str:
        watch = Watch()
        await waiting(watch, 10, 0.05)
        return await waiting(watch, 0.1, 5)

    assert run(test()) == "done"


def test_a_pause_between_waits_does_not_count() -> None:
    async def test() -> str:
        watch = Watch()
        await waiting(watch, 0, 0.05)
        await asyncio.sleep(0.2)
        return await waiting(watch, 0, 0.05)

    assert run(test()) == "done"


def test_the_cancellation_of_somebody_else_stays_theirs() -> None:
    async def test() -> str:
        task = asyncio.create_task(waiting(Watch(), 10, 20))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "cancelled"

    assert run(test()) == "cancelled"
