"""The one seam to providers: an HTTP client, ``pyreqwest``, and its faults in our words.

Measured facts about pyreqwest that this module is built on (docs/decisions/0002): a streamed request
must set a read buffer limit of 0, or its headers come with the first of the body and an abort before
that never reaches the provider; a read timeout while waiting for headers is raised as a connect timeout, so timeouts after
connecting are kept by asyncio; a request cancelled while it waits for headers goes on all the same,
and nothing but a read timeout hangs up before they come; a cancellation that meets a chunk of the body
on its way is lost, so it is looked for after each; clients must be closed before the interpreter ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

from django.conf import settings
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectError, ConnectTimeoutError, PyreqwestError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from gateway.v1.forms import Posted


class UpstreamError(Exception):
    """A provider could not be reached or did not finish. ``reason`` is one word for logs."""

    reason = "error"


class ConnectFailed(UpstreamError):
    """No connection: refused, no such host, TLS."""

    reason = "connect"


class UpstreamTimeout(UpstreamError):
    """Too slow: ``phase`` is connect, first_token, idle or total."""

    def __init__(self, phase: str) -> None:
        super().__init__(f"timeout: {phase}")
        self.phase = phase
        self.reason = f"timeout_{phase}"


class ConnectionBroken(UpstreamError):
    """The provider closed the connection before its answer was whole."""

    reason = "broken"


class AnswerTooLarge(UpstreamError):
    """The provider's plain answer, or its error body, is over MAX_ANSWER_BYTES."""

    reason = "answer_too_large"


class Watch:
    """A timeout around many short waits of one task, one after the other.

    ``asyncio.timeout`` sets and removes a timer for each wait, which a stream of many chunks feels;
    this one lets its timer run and looks, when it fires, whether the wait of that moment is over.
    """

    __slots__ = ("_fired", "_task", "_timer", "_until")

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._until: float | None = None
        self._fired = False

    def start(self, until: float) -> None:
        """Cancel the current task if it does not call ``pause`` before the loop's time is ``until``."""
        self._until = until
        if self._timer is None:
            self._task = asyncio.current_task()
            self._timer = asyncio.get_running_loop().call_at(until, self._look)
        elif until < self._timer.when():
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(until, self._look)

    def pause(self) -> None:
        """The wait is over."""
        self._until = None

    def check(self) -> None:
        """Raise the cancellation of the task that waited, if its wait took no notice of it."""
        if self._task is not None and self._task.cancelling():
            raise asyncio.CancelledError

    def expired(self) -> bool:
        """Whether a cancellation that was caught is this timeout's, and nobody else's; takes it back."""
        if not self._fired or self._task is None:
            return False
        self._fired = False
        return self._task.uncancel() == 0

    def stop(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        assert self._task is not None  # noqa: S101  # set with the timer
        self._timer = None
        if self._until is None:
            return
        loop = self._task.get_loop()
        if loop.time() >= self._until:
            self._fired = True
            self._task.cancel()
        else:
            self._timer = loop.call_at(self._until, self._look)


# Beyond our own timeouts, so that those come first.
LATER = 1.0
# Requests that nobody waits for any more, until their headers come. Kept, or they would be collected.
_forsaken: set[asyncio.Task[None]] = set()


class _Opening:
    """Awaits the headers of ``request``. Cancelled, it hangs up as soon as they come."""

    __slots__ = ("_request", "_waiting")

    def __init__(self, request: StreamRequest) -> None:
        self._request = request
        self._waiting: Any = request.__aenter__()

    def __await__(self) -> Generator[Any, None, Response]:
        waiting = self._waiting
        while True:
            try:
                awaited = waiting.send(None)
            except StopIteration as done:
                response: Response = done.value
                return response
            try:
                yield awaited
            except asyncio.CancelledError:
                task = asyncio.get_running_loop().create_task(self._hang_up())
                _forsaken.add(task)
                task.add_done_callback(_forsaken.discard)
                raise

    async def _hang_up(self) -> None:
        with suppress(PyreqwestError):
            await self
            await self._request.__aexit__(None, None, None)


class Answer:
    """A provider's response, being read. Use as an async context manager: leaving it stops the provider."""

    __slots__ = ("_deadline", "_request", "_response", "_watch", "headers", "status")

    def __init__(self, request: StreamRequest, deadline: float) -> None:
        self._request = request
        self._deadline = deadline
        self._response: Response | None = None
        self._watch = Watch()
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def open(self, wait: float) -> None:
        """Send the request and wait up to ``wait`` seconds for the response's headers."""
        limit = self._limit(wait)
        try:
            async with asyncio.timeout(limit):
                response = await _Opening(self._request)
        except TimeoutError as error:
            if isinstance(error, ConnectTimeoutError):
                raise UpstreamTimeout("connect") from None
            raise UpstreamTimeout("first_token" if limit >= wait else "total") from None
        except ConnectError:
            raise ConnectFailed from None
        except PyreqwestError:
            raise ConnectionBroken from None
        self._response = response
        self.status = response.status
        self.headers = response.headers

    async def read(self, wait: float, phase: str = "idle") -> bytes:
        """The next bytes as they come; empty at the end. Waits up to ``wait`` seconds."""
        assert self._response is not None  # noqa: S101  # open() comes first
        # Once for each chunk of each stream: the clock is read once, and nothing is called that need not be.
        now = asyncio.get_running_loop().time()
        until = now + wait
        if until > self._deadline:
            until = self._deadline
            if now >= until:
                raise UpstreamTimeout("total")
        self._watch.start(until)
        try:
            chunk = await self._response.body_reader.read_chunk()
            self._watch.check()
        except asyncio.CancelledError:
            if self._watch.expired():
                raise UpstreamTimeout(phase if until < self._deadline else "total") from None
            raise
        except PyreqwestError:
            raise ConnectionBroken from None
        finally:
            self._watch.pause()
        return b"" if chunk is None else bytes(chunk)

    def hand_over(self) -> None:
        """From here on another task reads."""
        self._watch.stop()
        self._watch = Watch()

    async def read_all(self, wait: float) -> bytes:
        """The whole body. ``wait`` bounds each pause between its pieces. Raises AnswerTooLarge too."""
        first = await self.read(wait, "first_token")
        pieces = [first]
        size = len(first)
        while pieces[-1]:
            pieces.append(await self.read(wait))
            size += len(pieces[-1])
            if size > settings.MAX_ANSWER_BYTES:
                raise AnswerTooLarge
        return b"".join(pieces)

    def _limit(self, wait: float) -> float:
        left = self._deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise UpstreamTimeout("total")
        return min(wait, left)

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.stop()
        if self._response is not None:
            await self._request.__aexit__(kind, error, trace)


class Upstream:
    """HTTP clients, one for each pair of timeouts in use; connections are pooled within each."""

    def __init__(self) -> None:
        self._clients: dict[tuple[float, float], Client] = {}
        # Addresses of APIs, each with a model that its provider was found not to have there.
        self.missing: set[tuple[str, str]] = set()

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Posted,
        *,
        connect_timeout: float,
        silence: float,
        total_timeout: float,
    ) -> Answer:
        """A POST to be opened. ``total_timeout`` (seconds) counts from now.

        ``silence`` is how long a provider may say nothing before the connection is closed, even where
        nobody waits for it any more; each different one makes a pool of its own.
        """
        timeouts = connect_timeout, silence
        client = self._clients.get(timeouts) or self._client(timeouts)
        asked = client.post(url)
        if isinstance(body, Posted):
            length = {"content-type": body.content_type, "content-length": str(body.size)}
            asked = asked.headers({**headers, **length}).body_stream(body)
        else:
            asked = asked.headers(headers).body_bytes(body)
        request = asked.streamed_read_buffer_limit(0).build_streamed()
        return Answer(request, asyncio.get_running_loop().time() + total_timeout)

    def _client(self, timeouts: tuple[float, float]) -> Client:
        connect_timeout, silence = timeouts
        client = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=connect_timeout))
            .read_timeout(timedelta(seconds=silence + LATER))
            .follow_redirects(False)
            .user_agent("weir")
            .referer(False)
            .tcp_nodelay(True)
            .build()
        )
        self._clients[timeouts] = client
        return client

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()
