"""Requests whose client has left: their providers may go on for a moment, so that their real usage is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.v1.exchange import Exchange
from gateway.v1.fetch import DELIVERED

# So many providers at a time may go on for nobody, of one worker.
MOST = 64
# How often it is looked whether one has said enough.
LOOK_SECONDS = 0.05


class Abandoned:
    """The bound of one worker: a provider goes on for ``seconds`` and about ``tokens``; 0: it is stopped at once."""

    def __init__(self, seconds: float, tokens: int) -> None:
        self._seconds = seconds
        self._tokens = tokens
        self._closed = False
        self.going_on = 0

    def close(self) -> None:
        """The worker is asked to end: no provider goes on for nobody."""
        self._closed = True

    async def watch(
        self,
        task: asyncio.Task[Any],
        receive: Callable[[], Awaitable[Any]],
        exchange: Exchange,
        leave: Callable[[], None],
    ) -> None:
        """Wait until the client closes; then ``leave``, give the provider its time, and cancel ``task``.

        Cancelling stops the provider, unless the exchange has ended by then.
        """
        while (await receive())["type"] != "http.disconnect":
            pass
        if exchange.finished or (exchange.attempts and exchange.attempts[-1].reason == DELIVERED):
            return
        exchange.client_gone = True
        if exchange.once:
            # Whoever asks again gets this answer, so it is made to its end and keeps its slot until then.
            return
        leave()
        if exchange.sent and self.going_on < MOST:
            self.going_on += 1
            try:
                await self._enough(exchange)
            finally:
                self.going_on -= 1
        task.cancel()

    async def _enough(self, exchange: Exchange) -> None:
        clock = asyncio.get_running_loop().time
        until, most = clock() + self._seconds, _said(exchange) + self._tokens
        # No event tells how much was said, and looking now and then costs a stream's chunks nothing.
        while not self._closed and clock() < until and _said(exchange) < most:  # noqa: ASYNC110  # as said
            await asyncio.sleep(LOOK_SECONDS)


def _said(exchange: Exchange) -> int:
    """About how many tokens the provider has sent so far."""
    return exchange.scanner.estimated_output_tokens if exchange.scanner is not None else 0
