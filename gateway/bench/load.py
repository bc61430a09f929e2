"""The client: a process of its own that asks over kept-alive connections and checks every answer.

Run as ``python -m gateway.bench.load``; it reads an Order as JSON and writes a Report as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import httptools
import uvloop

from gateway.bench import measure

DONE = b"data: [DONE]\n\n"
EVENT = b"data: "
MOST_ERRORS = 5
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to ask, of whom, and how long.

    ``rate`` is requests a second; None: each connection asks again as soon as it was answered.
    ``events`` is how many events a stream has, None for a plain answer. Times are seconds: a warm-up of
    ``warm_seconds`` is followed by as many requests as should take ``seconds``. ``watch`` are the
    processes whose use is measured.
    """

    port: int
    secret: str
    body: str
    connections: int
    seconds: float
    warm_seconds: float
    watch: list[int]
    rate: float | None = None
    events: int | None = None


@dataclass(slots=True)
class Report:
    """What came of an Order. ``warm`` requests came before the ``requests`` measured; ``reads`` is
    in how many pieces their answers arrived. Latencies are in milliseconds; ``first_*`` is the first
    content of a stream. CPU and memory are those of the processes watched."""

    warm: int = 0
    requests: int = 0
    seconds: float = 0.0
    reads: int = 0
    p50: float = 0.0
    p99: float = 0.0
    first_p50: float | None = None
    first_p99: float | None = None
    cpu_seconds: float = 0.0
    kernel_seconds: float = 0.0
    rss_bytes: int = 0
    thread_seconds: dict[str, float] = field(default_factory=dict)
    client_cpu_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


def fault(status: int, body: bytes, events: int | None) -> str:
    """What is wrong with an answer; empty if it is whole. ``events`` as in Order."""
    if status != 200:
        return f"status {status}: {body[:200].decode(errors='replace')}"
    if events is None:
        return "" if b'"finish_reason":"stop"' in body and body.endswith(b"}") else "an incomplete answer"
    if not body.endswith(DONE):
        return "a stream without [DONE] at its end"
    found = body.count(EVENT)
    return "" if found == events else f"a stream of {found} events, not {events}"


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self, request: bytes, events: int | None, ended: Callable[[Connection, str], None]) -> None:
        self._request = request
        self._events = events
        self._ended = ended
        self._pieces: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self.busy = False
        self.started = 0.0
        self.first: float | None = None
        self.reads = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to the other side."""
        # uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, due: float | None = None) -> None:
        """Send the request. Its latency counts from ``due``, if it should have been sent then."""
        self.busy, self.first, self.reads = True, None, 0
        self._pieces.clear()
        self.started = time.perf_counter() if due is None else due
        if self.transport.is_closing():
            self._end("the connection was closed between two answers")
            return
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read a piece of the answer."""
        self.reads += 1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        """Called by the parser. Keep the piece, and note when the first content came."""
        self._pieces.append(body)
        if self.first is None and self._events is not None and _has_content(body):
            self.first = time.perf_counter()

    def on_message_complete(self) -> None:
        """Called by the parser. The answer is whole."""
        problem = fault(self._parser.get_status_code(), b"".join(self._pieces), self._events)
        if not problem and not self._parser.should_keep_alive():
            problem = "the connection was not kept"
        self._end(problem)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The other side closed, or this one."""
        if self.busy:
            self._end("the connection closed in the middle of an answer")

    def _end(self, problem: str) -> None:
        self.busy = False
        self._ended(self, problem)


def _has_content(body: bytes) -> bool:
    at = body.find(b'"content":"')
    return at >= 0 and body[at + 11 : at + 12] != b'"'


class Client:
    """Carries out one Order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._left = 0
        self._open = 0
        self._until = 0.0
        self._idle: asyncio.Future[None] | None = None
        self._begun = 0.0
        self._issued = 0
        self._errors: list[str] = []
        self._latencies: list[float] = []
        self._firsts: list[float] = []
        self._reads = 0

    async def run(self) -> Report:
        """Warm up, measure, report."""
        order = self._order
        loop = asyncio.get_running_loop()
        request = _request(order)
        self._connections = [
            (
                await loop.create_connection(
                    lambda: Connection(request, order.events, self._ended), "127.0.0.1", order.port
                )
            )[1]
            for _ in range(order.connections)
        ]
        # The first requests make connections and fill caches; those after them tell the speed.
        cold, _ = await self._round(1 << 30, order.warm_seconds / 2)
        warm, took = await self._round(1 << 30, order.warm_seconds / 2)
        if not self._errors:
            speed = order.rate or warm / took
            # Every connection asks equally often, so that none is left to work alone at the end.
            count = max(1, round(speed * order.seconds / order.connections)) * order.connections
            before, clock = measure.used(order.watch), time.process_time()
            threads = _threads(order.watch)
            count, took = await self._round(count, order.seconds * 4 + 10)
            use, client = measure.used(order.watch) - before, time.process_time() - clock
            by_thread = {name: now - threads.get(name, 0.0) for name, now in _threads(order.watch).items()}
        if self._errors:
            return Report(warm=cold + warm, errors=self._errors)
        for connection in self._connections:
            connection.transport.close()
        return Report(
            warm=cold + warm,
            requests=count,
            seconds=took,
            reads=self._reads,
            p50=measure.percentile(self._latencies, 0.5),
            p99=measure.percentile(self._latencies, 0.99),
            first_p50=measure.percentile(self._firsts, 0.5) if self._firsts else None,
            first_p99=measure.percentile(self._firsts, 0.99) if self._firsts else None,
            cpu_seconds=use.cpu_seconds,
            kernel_seconds=use.kernel_seconds,
            rss_bytes=use.rss_bytes,
            thread_seconds=by_thread,
            client_cpu_seconds=client,
        )

    async def _round(self, count: int, seconds: float) -> tuple[int, float]:
        """Ask ``count`` times, or for ``seconds``; returns how often and how long, all answered."""
        self._latencies, self._firsts, self._reads = [], [], 0
        self._left, self._issued = count, 0
        self._idle = asyncio.get_running_loop().create_future()
        self._begun = time.perf_counter()
        self._until = self._begun + seconds
        self._open = len(self._connections)
        for position, connection in enumerate(self._connections):
            self._next(connection, position)
        # Answers that were under way at the end of the time are waited for.
        try:
            async with asyncio.timeout(seconds + PATIENCE_SECONDS):
                await self._idle
        except TimeoutError:
            self._errors.append(f"no answer within {PATIENCE_SECONDS:.0f} s")
        if count < 1 << 30 and self._left and not self._errors:
            self._errors.append(
                f"too slow: {self._left} of {count} requests were not made in {seconds:.0f} s"
            )
        return len(self._latencies), time.perf_counter() - self._begun

    def _next(self, connection: Connection, position: int | None = None) -> None:
        """Let ``connection`` ask again, or rest if the round is over. At a rate, requests fall due one
        after another, and a connection takes the next as soon as it is free."""
        now = time.perf_counter()
        if self._left <= 0 or now >= self._until or self._errors:
            self._open -= 1
            if self._open == 0 and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return
        self._left -= 1
        if self._order.rate is None:
            connection.ask()
            return
        due = self._begun + self._issued / self._order.rate
        self._issued += 1
        if due <= now:
            # Late because every connection was busy: that wait is the server's.
            connection.ask(due if position is None else None)
        else:
            asyncio.get_running_loop().call_later(due - now, connection.ask)

    def _ended(self, connection: Connection, problem: str) -> None:
        now = time.perf_counter()
        if problem:
            if len(self._errors) < MOST_ERRORS:
                self._errors.append(problem)
        else:
            self._latencies.append((now - connection.started) * 1000)
            self._reads += connection.reads
            if connection.first is not None:
                self._firsts.append((connection.first - connection.started) * 1000)
        self._next(connection)


def _request(order: Order) -> bytes:
    body = order.body.encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"host: 127.0.0.1:{order.port}\r\n"
        f"authorization: Bearer {order.secret}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _threads(watch: list[int]) -> dict[str, float]:
    return measure.threads(watch[0]) if watch else {}


def main() -> None:
    """Carry out the Order on standard input."""
    order = Order(**json.load(sys.stdin))
    report: dict[str, Any] = asdict(uvloop.run(Client(order).run()))
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
