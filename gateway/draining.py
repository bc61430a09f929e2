"""The end of a server worker: it says so while its port is open, so that new requests go elsewhere."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
LOOK_SECONDS = 0.05


class Draining:
    """From SIGTERM on: ``begun``, later ``refusing`` new requests, and then the server's own end.

    The server would close its port at once, and with it all that could say so. Instead this worker goes
    on for ``SHUTDOWN_DELAY_SECONDS`` (balancers see ``/healthz`` fail meanwhile), then refuses new
    requests while those it has finish, for at most ``SHUTDOWN_SECONDS``.
    """

    def __init__(self) -> None:
        self.begun = False
        self.refusing = False
        self._task: asyncio.Task[None] | None = None

    def follow(self, busy: Callable[[], bool], on_begin: Callable[[], None]) -> None:
        """Put this before the server's own handler of SIGTERM. ``busy``: whether requests are under way."""
        servers = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(servers):
            return
        loop = asyncio.get_running_loop()

        def end() -> None:
            servers(signal.SIGTERM, None)

        def begin() -> None:
            on_begin()
            self._task = loop.create_task(self._drain(busy, end))

        def asked(_number: int, _frame: object) -> None:
            if self.begun:
                # Asked twice: without more ado.
                end()
            else:
                self.begun = True
                loop.call_soon_threadsafe(begin)

        signal.signal(signal.SIGTERM, asked)

    async def _drain(self, busy: Callable[[], bool], end: Callable[[], None]) -> None:
        await asyncio.sleep(settings.SHUTDOWN_DELAY_SECONDS)
        self.refusing = True
        clock = asyncio.get_running_loop().time
        until = clock() + settings.SHUTDOWN_SECONDS
        while busy() and clock() < until:  # noqa: ASYNC110  # a request's end must cost nothing for this
            await asyncio.sleep(LOOK_SECONDS)
        end()


def closing(send: Send) -> Send:
    """A ``send`` whose answers close their connection, so that the client opens its next one elsewhere."""

    async def closed(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return closed
