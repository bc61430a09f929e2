"""Between the relay and the client of a translated request: the chat answer goes in, its shape comes out.

The relay knows nothing of it: it sends a chat completion, or the events of a chat stream, as to any client.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from gateway.v1.errors import Headers
from gateway.v1.exchange import Exchange
from gateway.v1.translation.shape import Object, Shape

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
DROPPED_HEADER = b"x-weir-dropped-params"
# How the relay tells an error in mid-stream; no event of a provider's that passes as it is begins so.
_OWN_ERROR = b'data: {"error":'
_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d+)')
Keep = Callable[[Object], Awaitable[None]]


class Shown:
    """A ``send`` that shows a chat answer in a shape. Errors, which have a status of their own, pass.

    ``keep`` is given the whole answer before the client is, and may change it.
    """

    def __init__(
        self,
        send: Send,
        exchange: Exchange,
        make: Callable[..., Shape],
        keep: Keep | None = None,
    ) -> None:
        self._send = send
        self._exchange = exchange
        self._make = make
        self._keep = keep
        self._shape: Shape | None = None
        # Of a plain answer: its start, until the body is there.
        self._start: MutableMapping[str, Any] | None = None
        self._tail = b""
        # Of a stream that passes as it is: what the client got last.
        self._last = b""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Take one ASGI message of the relay's."""
        if message["type"] == "http.response.start":
            if message["status"] == 200:
                await self._begin(message)
            else:
                await self._send(message)
        elif self._shape is None:
            await self._send(message)
        elif self._start is not None:
            await self._plain(message)
        elif self._exchange.native:
            await self._passed(self._shape, message)
        else:
            await self._stream(self._shape, message)

    async def _begin(self, message: MutableMapping[str, Any]) -> None:
        facts = self._exchange.facts
        assert facts is not None  # noqa: S101  # read before anything is answered
        self._shape = self._make(facts, self._exchange.request_id)
        principal = self._exchange.principal
        headers: Headers = message["headers"]
        hidden = principal.hidden_headers if principal is not None else ()
        if not self._exchange.native and DROPPED_HEADER not in hidden:
            message["headers"] = headers = with_dropped(headers, facts.dropped)
        if any(name == b"content-type" and value.startswith(b"text/event") for name, value in headers):
            await self._send(message)
        else:
            self._start = message

    async def _plain(self, message: MutableMapping[str, Any]) -> None:
        start, shape = self._start, self._shape
        assert start is not None and shape is not None  # noqa: S101, PT018  # by the caller
        body = message["body"]
        if not self._exchange.native:
            answer = shape.plain(orjson.loads(body))
            if self._keep is not None:
                await self._keep(answer)
            body = orjson.dumps(answer)
        elif self._keep is not None:
            answer = orjson.loads(body)
            await self._keep(answer)
            body = orjson.dumps(answer)
        start["headers"] = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        start["headers"].append((b"content-length", str(len(body)).encode()))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})

    async def _passed(self, shape: Shape, message: MutableMapping[str, Any]) -> None:
        """A stream in the client's words already; only the gateway's own error event is not."""
        body: bytes = message.get("body", b"")
        if body.startswith(_OWN_ERROR):
            numbers = _SEQUENCE.findall(self._last)
            shape.begun(int(numbers[-1]) + 1 if numbers else 1)
            body = shape.failed(orjson.loads(body.removeprefix(b"data: "))["error"])
        elif self._exchange.whole and self._keep is not None:
            ending, _, done = body.partition(b"\n\n")
            name, _, data = ending.partition(b"\ndata: ")
            ended = orjson.loads(data)
            await self._keep(ended["response"])
            body = name + b"\ndata: " + orjson.dumps(ended) + b"\n\n" + done
        self._last = body or self._last
        await self._send({**message, "body": body})

    async def _stream(self, shape: Shape, message: MutableMapping[str, Any]) -> None:
        events = (self._tail + message.get("body", b"")).split(b"\n\n")
        self._tail = events.pop()
        shown = []
        for event in events:
            if not event.startswith(b"data:"):
                # A comment that keeps the connection alive.
                shown.append(event + b"\n\n")
                continue
            data = event[5:].strip()
            if data == b"[DONE]":
                final = shape.final()
                if final is not None and self._keep is not None:
                    await self._keep(final)
                shown.append(shape.done())
                continue
            chunk = orjson.loads(data)
            error = chunk.get("error")
            shown.append(shape.failed(error) if isinstance(error, dict) else shape.chunk(chunk))
        body = b"".join(shown)
        more = bool(message.get("more_body", False))
        if body or not more:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


def with_dropped(headers: Headers, dropped: tuple[str, ...]) -> Headers:
    """The headers with the names of parameters that had no place, behind those a provider could not take."""
    if not dropped:
        return headers
    names = list(dropped)
    kept = []
    for name, value in headers:
        if name == DROPPED_HEADER:
            names.insert(0, value.decode("latin-1"))
        else:
            kept.append((name, value))
    return [*kept, (DROPPED_HEADER, ", ".join(names).encode("latin-1"))]
