"""What was asked and answered, of organizations that have it stored (``log_content``), off the way of a request.

A ``Heard`` between the gateway and the client remembers the beginning of what is sent; when the request is over
it waits in memory, in bounds, to be encrypted in a thread and written over a connection of its own. What cannot
be written soon is dropped and counted: no request waits for this or is refused because of it, and the journal
knows nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from billing.patience import within
from billing.request_content import MOST_BYTES, MOST_READ, Content, Text
from gateway.v1.exchange import Exchange

logger = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

WRITE_SECONDS: Final = 0.5
CLOSE_SECONDS: Final = 3.0
# Longer than statements may take there, for a server that says nothing.
PATIENCE_SECONDS: Final = 15.0
# Of what waits in a worker; beyond it, it is dropped.
MOST_WAITING: Final = 1_000
MOST_WAITING_BYTES: Final = 64 * 1024 * 1024
BATCH: Final = 50
_PATIENCE: Final = "SET statement_timeout = '10s'; SET lock_timeout = '5s'"
# Nothing is stored of an organization that is gone or has switched it off meanwhile.
_INSERT: Final = """
INSERT INTO billing_requestcontent (organization_id, request_id, started_at, content)
SELECT id, %s, %s, %s FROM tenants_organization WHERE id = %s AND log_content
ON CONFLICT DO NOTHING
"""
_LOST: Final = """
INSERT INTO billing_contentloss AS known (organization_id, day, requests)
SELECT id, %s, %s FROM tenants_organization WHERE id = %s
ON CONFLICT (organization_id, day) DO UPDATE SET requests = known.requests + excluded.requests
"""
_TEXT: Final = (b"application/json", b"text/", b"application/x-ndjson")


class Heard:
    """A ``send`` that remembers the beginning of what the client gets, if it is text, and what it asked."""

    __slots__ = ("_send", "_text", "answer", "answer_size", "asked", "asked_size")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._text = False
        # None: there was no body, or it was a form.
        self.asked: bytes | None = None
        self.asked_size = 0
        self.answer: bytearray | None = None
        self.answer_size = 0

    def ask(self, body: bytes) -> None:
        """Remember the beginning of the request's body."""
        self.asked, self.asked_size = body[:MOST_READ], len(body)

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Take one ASGI message."""
        if message["type"] == "http.response.start":
            if any(name == b"content-type" and value.startswith(_TEXT) for name, value in message["headers"]):
                self.answer = bytearray()
        elif self.answer is not None:
            piece = message.get("body", b"")
            self.answer_size += len(piece)
            if len(self.answer) < MOST_BYTES:
                self.answer += piece[: MOST_BYTES - len(self.answer)]
        await self._send(message)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is to be written of one request. ``size``: the bytes it holds in memory."""

    organization_id: int
    request_id: str
    started_at: datetime
    heard: Heard
    size: int


class ContentLog:
    """One worker's. ``waiting`` is what is not written yet, ``lost`` what was dropped and not counted in the
    database yet, by organization and day (UTC)."""

    def __init__(self, dsn: str, most_waiting: int = MOST_WAITING) -> None:
        self._dsn = dsn
        self._most = most_waiting
        self._connection: AsyncConnection[Any] | None = None
        self._size = 0
        self.waiting: deque[Waiting] = deque()
        self.lost: Counter[tuple[int, date]] = Counter()

    def add(self, exchange: Exchange, heard: Heard) -> None:
        """Have a request stored that is over. Never waits, never raises."""
        principal = exchange.principal
        assert principal is not None  # noqa: S101  # nobody else's is listened to
        if heard.asked is None and heard.answer is None:
            return
        size = len(heard.asked or b"") + len(heard.answer or b"")
        if len(self.waiting) >= self._most or self._size + size > MOST_WAITING_BYTES:
            self.lost[principal.organization_id, exchange.started_at.date()] += 1
            return
        self._size += size
        self.waiting.append(
            Waiting(principal.organization_id, exchange.request_id, exchange.started_at, heard, size)
        )

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.write()
            except Exception:
                logger.exception("Stored content is dropped.")
                self._drop()

    async def close(self) -> None:
        """Write what waits, for a moment at most, and hang up."""
        # It may have been broken off in the middle of a statement.
        await self._hang_up()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.write()
        except Exception as error:  # noqa: BLE001  # what is not stored must not keep the worker from ending
            logger.warning("Stored content could not be written at the end: %s", type(error).__name__)
        if self.waiting:
            logger.warning("The content of %s requests is lost with this worker.", len(self.waiting))
        await self._hang_up()

    async def write(self) -> None:
        """Write down what waits, and what was lost; all of it stays for the next time if that cannot be."""
        while self.waiting or self.lost:
            try:
                await self._write_some()
            except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
                logger.warning("Stored content has to wait: %s", type(error).__name__)
                await self._hang_up()
                return
            except psycopg.Error as error:
                # Nothing that comes later waits for what can never be written.
                logger.warning("Stored content is dropped: %s", type(error).__name__)
                self._drop()

    async def _write_some(self) -> None:
        batch = [self.waiting[place] for place in range(min(BATCH, len(self.waiting)))]
        rows = await asyncio.to_thread(_sealed, batch)
        connection = await self._connected()
        lost = self.lost.copy()
        async with within(connection, PATIENCE_SECONDS):
            await self._insert(connection, rows, lost)
        self._forget(len(batch))
        self.lost -= lost

    async def _insert(
        self,
        connection: AsyncConnection[Any],
        rows: list[tuple[str, datetime, bytes, int]],
        lost: Counter[tuple[int, date]],
    ) -> None:
        async with connection.transaction(), connection.cursor() as cursor:
            if rows:
                await cursor.executemany(_INSERT, rows)
            for (organization_id, day), requests in lost.items():
                await cursor.execute(_LOST, (day, requests, organization_id))

    def _forget(self, count: int) -> list[Waiting]:
        """Let go of the first that wait."""
        gone = [self.waiting.popleft() for _ in range(count)]
        self._size -= sum(each.size for each in gone)
        return gone

    def _drop(self) -> None:
        gone = self._forget(min(BATCH, len(self.waiting)))
        if not gone:
            # Not even that they are lost can be written.
            self.lost.clear()
        for each in gone:
            self.lost[each.organization_id, each.started_at.date()] += 1

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=5)
            await self._connection.execute(_PATIENCE)
        return self._connection

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                await connection.close()


def _sealed(batch: Sequence[Waiting]) -> list[tuple[str, datetime, bytes, int]]:
    rows = []
    for each in batch:
        heard = each.heard
        asked = None if heard.asked is None else Text.of(heard.asked, heard.asked_size)
        answered = None if heard.answer is None else Text.of(bytes(heard.answer), heard.answer_size)
        rows.append(
            (each.request_id, each.started_at, Content(asked, answered).sealed(), each.organization_id)
        )
    return rows
