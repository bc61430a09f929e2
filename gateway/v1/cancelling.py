"""Cancelling tasks that may take no notice of it the first time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

# A task that goes on for so long after it was cancelled is cancelled again.
AGAIN_SECONDS = 0.5


async def cancelled(tasks: Iterable[asyncio.Task[Any]], again_seconds: float = AGAIN_SECONDS) -> None:
    """Cancel ``tasks`` until each has ended; what they raise is left in them.

    ``asyncio.wait_for`` before Python 3.12 forgets a cancellation that meets the end of what it waits for
    (https://github.com/python/cpython/issues/86296), and redis-py sends with it.
    """
    going_on = set(tasks)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=again_seconds)
