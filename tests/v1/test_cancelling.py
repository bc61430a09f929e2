"""Ending tasks that lose a cancellation, which would keep a worker from ending."""

from __future__ import annotations

import asyncio

from gateway.v1.cancelling import cancelled


def test_a_task_that_loses_its_first_cancellation_ends_all_the_same() -> None:
    async def play() -> bool:
        waits: list[asyncio.Future[None]] = []

        async def work() -> None:
            while True:
                # As redis-py sends. A later Python than 3.11 loses nothing here.
                waits.append(asyncio.get_running_loop().create_future())
                await asyncio.wait_for(waits[-1], 60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        # Done and cancelled in the same turn of the loop.
        waits[-1].set_result(None)
        await asyncio.wait_for(cancelled([task], again_seconds=0.01), 10)
        return task.cancelled()

    assert asyncio.run(play())


def test_a_task_that_has_ended_is_left_as_it_is() -> None:
    async def play() -> int:
        async def answer() -> int:
            return 42

        task = asyncio.create_task(answer())
        await task
        await cancelled([task])
        return task.result()

    assert asyncio.run(play()) == 42
