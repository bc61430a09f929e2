"""A way to PostgreSQL that can be silent: it then answers nothing, and takes every connection."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any


class Relay:
    """From a port of its own to the server of ``kwargs`` (psycopg's). ``taken`` counts the connections."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        host, port = str(kwargs["host"]), int(kwargs.get("port") or 5432)
        self._server = Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self.taken = 0
        self._lines: list[asyncio.StreamWriter] = []

    async def open(self) -> int:
        """Begin; returns the port."""
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Hang up on both sides."""
        self._listener.close()
        for line in self._lines:
            line.transport.abort()

    def silent(self, silent: bool) -> None:  # on or off
        """Stop relaying, or go on."""
        if silent:
            self._flows.clear()
        else:
            self._flows.set()

    async def _relay(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.taken += 1
        opening = (
            asyncio.open_unix_connection(self._server)
            if isinstance(self._server, Path)
            else asyncio.open_connection(*self._server)
        )
        far, far_out = await opening
        self._lines += [near_out, far_out]
        await asyncio.gather(self._copy(near, far_out), self._copy(far, near_out))

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                target.write(data)
                await target.drain()
        target.close()
