"""WebSocket, which nothing here speaks: refused with the 404 of an address that is not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.v1.offers import no_address

Message = MutableMapping[str, Any]


async def refuse(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Refuse a connection: with a whole HTTP answer where the server can send one (the ASGI extension
    ``websocket.http.response``), else by closing, which servers tell as a 403."""
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1000, "reason": "This gateway serves no WebSocket."})
        return
    body = no_address("WebSocket", scope["path"]).body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
