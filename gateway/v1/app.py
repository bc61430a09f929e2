"""The entry of ``/v1``: a plain ASGI application, one ``handle`` for the way of one request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import orjson
from django.conf import settings

from gateway.v1 import facts as facts_of
from gateway.v1.admission import Grant
from gateway.v1.capacity import Hold
from gateway.v1.errors import (
    NO_RETRY,
    BodyTooLarge,
    Headers,
    Internal,
    MethodNotAllowed,
    NotFound,
    Unavailable,
    V1Error,
)
from gateway.v1.exchange import CLIENT_GONE_STATUS, Exchange, Offer
from gateway.v1.offers import no_model, offers_after, offers_for, printable
from gateway.v1.relay import JSON_HEADERS, cancelled_by
from gateway.v1.stream import error_event
from gateway.v1.turns import patience_of
from gateway.v1.worker import Worker
from routing.table import GroupSpec

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ENDPOINTS = {"/v1/chat/completions": "chat.completions", "/v1/embeddings": "embeddings"}


class App:
    """``/v1``. Created once a process; ``worker`` is set by the lifespan."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    async def startup(self) -> None:
        """Open the worker. Raises if it cannot serve."""
        worker = Worker()
        await worker.start()
        self.worker = worker

    async def shutdown(self) -> None:
        """Close the worker, after the last request."""
        if self.worker is not None:
            await self.worker.stop()
            self.worker = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request under ``/v1``. Every answer carries ``x-request-id``."""
        endpoint = ENDPOINTS.get(scope["path"], "")
        exchange = Exchange(endpoint)
        base: Headers = [(b"x-request-id", exchange.request_id.encode())]
        grants: list[Grant] = []
        try:
            try:
                await self._route(scope, receive, send, exchange, base, grants)
            except V1Error as error:
                await self._refuse(exchange, error, base, send, grants)
            except Exception:
                logger.exception("Defect while serving %s", exchange.request_id)
                defect = Internal(
                    "The gateway failed. The operator can find the cause by the request id.", headers=NO_RETRY
                )
                await self._refuse(exchange, defect, base, send, grants)
        except asyncio.CancelledError:
            if not exchange.client_gone:
                self._finish(exchange, grants, "interrupted", 500, "interrupted")
                raise
            self._finish(exchange, grants, "client_gone", CLIENT_GONE_STATUS)

    async def _route(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        base: Headers,
        grants: list[Grant],
    ) -> None:
        path, method = scope["path"], scope["method"]
        worker = self.worker
        if worker is None:
            raise Unavailable("The gateway is starting or stopping.", headers=[(b"retry-after", b"1")])
        headers = _headers(scope)
        client = scope.get("client")
        if not _known(path):
            raise NotFound(f"Invalid URL ({method} {printable(path)})", code="unknown_url")
        exchange.principal = await worker.principals.authenticate(
            headers.get(b"authorization", b"").decode("latin-1"), client[0] if client else ""
        )
        if b"x-request-id" in exchange.principal.hidden_headers:
            base.clear()
        expected = "POST" if exchange.endpoint else "GET"
        if method != expected:
            raise MethodNotAllowed(
                f"Not allowed to {method} on {printable(path)}. Use {expected}.",
                headers=[(b"allow", expected.encode())],
            )
        if exchange.endpoint:
            hold = worker.capacity.take()
            try:
                await self._infer(worker, receive, send, exchange, base, headers, grants, hold)
            finally:
                hold.release()
        else:
            await self._models(worker, exchange, path, base, send)

    async def _infer(
        self,
        worker: Worker,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        base: Headers,
        headers: dict[bytes, bytes],
        grants: list[Grant],
        hold: Hold,
    ) -> None:
        raw = await _body(receive, headers, hold)
        if raw is None:
            exchange.client_gone = True
            self._finish(exchange, grants, "client_gone", CLIENT_GONE_STATUS)
            return
        exchange.facts = facts = facts_of.READERS[exchange.endpoint](
            raw, headers.get(b"x-end-user", b"").decode("utf-8", "replace")
        )
        facts_of.narrow(facts, headers)
        exchange.patience = patience_of(headers)
        principal, task = exchange.principal, asyncio.current_task()
        assert principal is not None and task is not None  # noqa: S101, PT018  # an ASGI application runs in a task
        watch = asyncio.create_task(cancelled_by(task, receive, exchange))
        try:
            offers = offers_for(worker, exchange)
            grant, limits = await worker.admission.admit(exchange, offers)
            grants.append(grant)
            exchange.offer = offers[0]
            worker.journal.begin(exchange)

            def after_refusal(reason: str, tried: set[int]) -> list[Offer]:
                # Only what the reservation covers too.
                found = offers_after(worker, exchange, reason, tried)
                return [offer for offer in found if grant.covers(facts, offer, principal.markup)]

            end = await worker.relay.run(exchange, offers, after_refusal, [*base, *limits], send)
            self._finish(exchange, grants, *end)
        finally:
            watch.cancel()

    # --- models --------------------------------------------------------------------------------

    async def _models(self, worker: Worker, exchange: Exchange, path: str, base: Headers, send: Send) -> None:
        principal = exchange.principal
        assert principal is not None  # noqa: S101  # authenticated by the caller
        usable = [group for name, group in sorted(worker.table.groups.items()) if principal.may_use(name)]
        if path == "/v1/models":
            body: dict[str, Any] = {"object": "list", "data": [_model(group) for group in usable]}
        else:
            name = unquote(path.removeprefix("/v1/models/"))
            found = next((group for group in usable if group.name == name), None)
            if found is None:
                raise no_model(name)
            body = _model(found)
        await _answer(send, 200, [*base, *JSON_HEADERS], orjson.dumps(body))

    # --- ends ----------------------------------------------------------------------------------

    def _finish(
        self, exchange: Exchange, grants: list[Grant], end_reason: str, status: int, error_code: str = ""
    ) -> None:
        """Account for the exchange, exactly once: journal, then money, then rate limits. Never waits."""
        if exchange.finished:
            return
        exchange.finished = True
        usage = exchange.ended(end_reason, status, error_code)
        if exchange.attempts and not exchange.attempts[-1].reason:
            exchange.attempts[-1].reason = end_reason
        # Model listings and strangers are not usage.
        if self.worker is not None and exchange.principal is not None and exchange.endpoint:
            self.worker.journal.end(exchange, usage)
        for grant in grants:
            grant.settle(exchange.charge, usage.total)

    async def _refuse(
        self,
        exchange: Exchange,
        error: V1Error,
        base: Headers,
        send: Send,
        grants: list[Grant],
    ) -> None:
        """Answer with an error; in mid-stream as an event, without ``[DONE]``."""
        reason = exchange.end_reason or ("refused" if error.status in (429, 503) else "invalid")
        if error.status == 500:
            reason = "gateway_error"
        if reason == "refused":
            exchange.refusal = error.message
        answering = exchange.answering
        self._finish(exchange, grants, reason, 200 if answering else error.status, error.code or "")
        if answering:
            await send({"type": "http.response.body", "body": error_event(error)})
            return
        await _answer(send, error.status, [*base, *JSON_HEADERS, *error.headers], error.body())


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _known(path: str) -> bool:
    return path in ENDPOINTS or path == "/v1/models" or path.startswith("/v1/models/")


def _model(group: GroupSpec) -> dict[str, Any]:
    return {"id": group.name, "object": "model", "created": group.created, "owned_by": "weir"}


async def _body(receive: Receive, headers: dict[bytes, bytes], hold: Hold) -> bytes | None:
    """The whole request body; None if the client left before it was whole.

    Raises BodyTooLarge, or Unavailable where the worker has no room for it.
    """
    limit: int = settings.MAX_BODY_BYTES
    declared = headers.get(b"content-length", b"")
    pieces: list[bytes] = []
    size = int(declared) if declared.isdigit() else 0
    if size <= limit:
        hold.buffer(size)
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            hold.buffer(size)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if size > limit:
                break
    # The server goes on reading and forgets the rest, so the client gets to read this answer.
    raise BodyTooLarge(f"The request body is larger than {limit} bytes.")


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    size = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, size]})
    await send({"type": "http.response.body", "body": body})
