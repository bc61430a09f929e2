"""The ASGI entry: ``/v1`` goes to the data plane, everything else to Django.

The data plane is dispatched before Django's handler because that alone costs ten times what a
plain ASGI callable does (docs/decisions/0001).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")

from django.core.asgi import get_asgi_application

django_application: Any = get_asgi_application()

from gateway.draining import Draining, closing
from gateway.v1 import websocket
from gateway.v1.app import App

draining = Draining()
v1 = App(draining)


async def application(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Dispatch by path. ``/healthz`` answers 200 while this worker serves ``/v1`` and is not asked to end."""
    kind = scope["type"]
    if kind == "http":
        path: str = scope["path"]
        if draining.begun:
            send = closing(send)
        if path.startswith("/v1/") or path == "/v1":
            await v1(scope, receive, send)
        elif path == "/healthz":
            await _health(send)
        else:
            await django_application(scope, receive, send)
    elif kind == "lifespan":
        await _lifespan(receive, send)
    elif kind == "websocket":
        await websocket.refuse(scope, receive, send)


async def _health(send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
    ready = v1.worker is not None and not draining.begun
    body = b"ok" if ready else b"stopping" if draining.begun else b"starting"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200 if ready else 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await v1.startup()
                draining.follow(v1.busy, v1.leave_abandoned)
            except Exception as error:  # noqa: BLE001  # uvicorn is told, and ends the process
                await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await v1.shutdown()
            await send({"type": "lifespan.shutdown.complete"})
            return
