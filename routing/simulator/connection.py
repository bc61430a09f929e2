"""The client's connection: noticing that it left, waiting, and breaking it on purpose."""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_TRANSPORT = "simulator.transport"


class SimulatorProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol, which also hands the transport to the application, because ASGI
    has no message for breaking a connection."""

    def on_message_begin(self) -> None:
        """Begin a request's scope, with the transport in it."""
        super().on_message_begin()
        scope = cast("Scope", self.scope)  # uvicorn names each member; this one is ours
        scope[_TRANSPORT] = self.transport


class BrokenConnectionError(Exception):
    """Raised to make a server other than the simulator's own break the connection."""


class Client:
    """One request's client. `gone` becomes true when it has left; call `watch` first."""

    __slots__ = ("_receive", "_sleeper", "_transport", "_watcher", "gone", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.send = send
        self.gone = False
        self._receive = receive
        self._transport: asyncio.Transport | None = scope.get(_TRANSPORT)
        self._sleeper: asyncio.Future[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def left(self) -> bool:
        """Whether the connection is known to be closed, without having watched it."""
        return self.gone or (self._transport is not None and self._transport.is_closing())

    def watch(self) -> None:
        """Begin to watch for the client leaving. The request's body must have been read."""
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._wait_for_leaving())

    def unwatch(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _wait_for_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def pause(self, seconds: float) -> bool:
        """Wait `seconds` (0 lets other work run), less if the client leaves. True if it is
        still there."""
        if seconds <= 0:
            await asyncio.sleep(0)
        elif not self.gone:
            loop = asyncio.get_running_loop()
            sleeper: asyncio.Future[None] = loop.create_future()
            self._sleeper = sleeper
            timer = loop.call_later(seconds, _wake, sleeper)
            try:
                await sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        return not self.gone

    async def hang_up(self) -> None:
        """Close the connection once what was written is out (the peer sees an early end).

        Raises BrokenConnectionError under a server that gives no transport.
        """
        if self._transport is None:
            raise BrokenConnectionError
        self._transport.close()
        await self._until_closed()

    async def reset(self) -> None:
        """Break the connection at once with a TCP reset.

        Raises BrokenConnectionError under a server that gives no transport.
        """
        if self._transport is None:
            raise BrokenConnectionError
        kernel_socket = self._transport.get_extra_info("socket")
        # Lingering for zero seconds turns the close into a reset. The duplicate shares the option.
        with socket.socket(fileno=os.dup(kernel_socket.fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self._until_closed()

    async def _until_closed(self) -> None:
        """Wait until the server knows, so that it does not send an answer of its own."""
        self.watch()
        for _ in range(100):
            if not await self.pause(0.01):
                return


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
