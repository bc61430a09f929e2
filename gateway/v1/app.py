"""The entry of ``/v1``: a plain ASGI application, one ``handle`` for the way of one request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
from django.conf import settings

from gateway.draining import Draining
from gateway.v1.admission import Grant
from gateway.v1.blocking import demand_not_blocked
from gateway.v1.capacity import Hold
from gateway.v1.content_log import Heard
from gateway.v1.cors import preflight, readable
from gateway.v1.endpoints import ENDPOINTS, Endpoint, errors_of
from gateway.v1.error_shapes import ANTHROPIC, ErrorShape
from gateway.v1.errors import (
    NO_RETRY,
    BodyTooLarge,
    Conflict,
    EndUserBlocked,
    Headers,
    Internal,
    MethodNotAllowed,
    Unavailable,
    V1Error,
)
from gateway.v1.exchange import CLIENT_GONE_STATUS, Exchange, Offer
from gateway.v1.facts import Facts, decode, narrow
from gateway.v1.fetch import JSON_HEADERS
from gateway.v1.forms import Form, read_form
from gateway.v1.idempotency import HEADER, REPLAYED, Kept, Recorder
from gateway.v1.offers import no_address, offers_after, offers_for, printable
from gateway.v1.principals import Principal
from gateway.v1.resources import Asking, Resource, resource_at
from gateway.v1.shown import Shown
from gateway.v1.stream import error_event
from gateway.v1.translation.response_items import normal_items, with_ids
from gateway.v1.translation.response_requests import response_facts
from gateway.v1.turns import patience_of
from gateway.v1.worker import Worker

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


STOPPED = Unavailable(
    "The gateway was stopped in the middle of this answer; it is not complete.", code="gateway_stopping"
)


@dataclass(slots=True)
class Call:
    """One HTTP request and what belongs to it until it is answered. ``send`` may be a ``Shown``."""

    scope: Scope
    receive: Receive
    send: Send
    exchange: Exchange
    endpoint: Endpoint | None
    errors: ErrorShape
    # The ``send`` that leads to the client itself.
    client: Send = field(init=False)
    headers: dict[bytes, bytes] = field(init=False)
    base: Headers = field(init=False)
    # The request's id, unless it is hidden from the caller.
    told_id: str | None = field(init=False)
    grants: list[Grant] = field(default_factory=list)
    # What is sent, where the client may ask for it again.
    recorder: Recorder | None = None
    form: Form | None = None
    # What the client asked and got, where that is stored.
    heard: Heard | None = None

    def __post_init__(self) -> None:
        self.client = self.send
        self.headers = dict(self.scope["headers"])
        self.told_id = self.exchange.request_id
        request_id = self.told_id.encode()
        self.base = [(b"x-request-id", request_id)]
        if self.errors is ANTHROPIC:
            # Where Anthropic's SDKs look.
            self.base.append((b"request-id", request_id))

    @property
    def authorization(self) -> str:
        """The value of ``Authorization``, or of Anthropic's ``x-api-key`` in its place."""
        given = self.headers.get(b"authorization")
        if given is None and b"x-api-key" in self.headers:
            given = b"Bearer " + self.headers[b"x-api-key"]
        return (given or b"").decode("latin-1")

    async def read(self, hold: Hold) -> bytes | Form | None:
        """The body; None: the client left in the middle of it. Raises V1Error."""
        if self.endpoint is not None and self.endpoint.form is not None:
            self.form = await read_form(self.receive, self.headers, hold)
            return self.form
        raw = await _body(self.receive, self.headers, hold)
        if self.heard is not None and raw is not None:
            self.heard.ask(raw)
        return raw


class App:
    """``/v1``. Created once a process; ``worker`` is set by the lifespan. While ``draining`` is refusing,
    new requests are."""

    def __init__(self, draining: Draining) -> None:
        self.worker: Worker | None = None
        self._draining = draining

    def busy(self) -> bool:
        """Whether requests are under way."""
        return self.worker is not None and self.worker.capacity.in_flight > 0

    def leave_abandoned(self) -> None:
        """Stop the providers that go on for clients who have left."""
        if self.worker is not None:
            self.worker.abandoned.close()

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
        path: str = scope["path"]
        endpoint = ENDPOINTS.get(path)
        exchange = Exchange(endpoint.name if endpoint is not None else "")
        call = Call(scope, receive, send, exchange, endpoint, errors_of(path))
        self._show_through(call, call.client)
        try:
            try:
                await self._route(call)
            except V1Error as error:
                await self._refuse(call, error)
            except Exception:
                logger.exception("Defect while serving %s", exchange.request_id)
                defect = Internal(
                    "The gateway failed. The operator can find the cause by the request id.", headers=NO_RETRY
                )
                await self._refuse(call, defect)
        except asyncio.CancelledError:
            if not exchange.client_gone:
                self._finish(call, "interrupted", 500, "interrupted")
                if exchange.answering and exchange.scanner is not None:
                    await call.send({"type": "http.response.body", "body": error_event(STOPPED)})
                raise
            self._finish(call, "client_gone", CLIENT_GONE_STATUS)
        finally:
            if call.heard is not None and self.worker is not None:
                self.worker.contents.add(exchange, call.heard)

    def _show_through(self, call: Call, send: Send) -> None:
        """Have what is answered shown to the client in the words of its API, and recorded where it may ask again."""
        endpoint, call.send = call.endpoint, send
        if endpoint is not None and HEADER in call.headers:
            call.send = call.recorder = Recorder(send, call.exchange)
        if endpoint is not None and endpoint.shape is not None:
            keep = partial(self._keep, call.exchange) if endpoint.kept else None
            call.send = Shown(call.send, call.exchange, endpoint.shape, keep)

    def _heed(self, call: Call, principal: Principal) -> None:
        """Do with the answer, whatever it is, as the caller's organization wants."""
        if principal.logs_content and call.endpoint is not None:
            call.heard = Heard(call.client)
            self._show_through(call, call.heard)
        if b"x-request-id" in principal.hidden_headers:
            call.base.clear()
            call.told_id = None
        if principal.cors_origins:
            call.base += readable(call.headers, principal)

    async def _route(self, call: Call) -> None:
        path, method = call.scope["path"], call.scope["method"]
        worker = self.worker
        if worker is None or self._draining.refusing:
            raise Unavailable(
                "The gateway is starting or stopping. Try again shortly.",
                code="gateway_stopping",
                headers=[(b"retry-after", b"1")],
            )
        found = None
        if call.endpoint is None and (found := resource_at(path)) is None:
            raise no_address(method, path)
        allowed = ("POST",) if found is None else tuple(found[0].methods)
        if method == "OPTIONS" and (given := preflight(call.headers, worker.origins, allowed)):
            await call.send({"type": "http.response.start", "status": 204, "headers": [*call.base, *given]})
            await call.send({"type": "http.response.body", "body": b""})
            return
        client = call.scope.get("client")
        call.exchange.principal = await worker.principals.authenticate(
            call.authorization, client[0] if client else ""
        )
        self._heed(call, call.exchange.principal)
        if method not in allowed:
            raise MethodNotAllowed(
                f"Not allowed to {method} on {printable(path)}. Use {' or '.join(allowed)}.",
                headers=[(b"allow", ", ".join(allowed).encode())],
            )
        if found is not None and method != "POST":
            await self._serve(worker, call, *found, b"")
            return
        hold = worker.capacity.take()
        try:
            raw = await call.read(hold)
            if raw is None:
                call.exchange.client_gone = True
                self._finish(call, "client_gone", CLIENT_GONE_STATUS)
            elif found is not None and isinstance(raw, bytes):
                await self._serve(worker, call, *found, raw)
            elif call.recorder is not None:
                await self._once(worker, call, raw, call.recorder)
            else:
                await self._infer(worker, call, raw)
        finally:
            hold.release()
            if call.form is not None:
                call.form.close()

    async def _serve(self, worker: Worker, call: Call, resource: Resource, name: str, raw: bytes) -> None:
        """Answer for a resource, which asks no model and is no usage."""
        principal = call.exchange.principal
        assert principal is not None  # noqa: S101  # authenticated by the caller
        query = call.scope.get("query_string", b"").decode("latin-1")
        asking = Asking(worker, principal, call.exchange.request_id, name, query, raw, call.headers, [])
        body = await resource.methods[call.scope["method"]](asking)
        await _answer(call.send, 200, [*call.base, *asking.limits, *JSON_HEADERS], orjson.dumps(body))

    async def _once(self, worker: Worker, call: Call, raw: bytes | Form, recorder: Recorder) -> None:
        """Ask a model, unless the same was asked before with the same Idempotency-Key."""
        exchange, principal = call.exchange, principal_of(call.exchange)
        taken = await worker.idempotency.take(
            principal,
            call.headers[HEADER],
            call.scope["path"],
            raw if isinstance(raw, bytes) else raw.digest(),
            exchange.request_id,
        )
        if isinstance(taken, Kept | Conflict):
            # It asks no model, and is one of the key's requests all the same.
            limits = await worker.admission.one_request(principal, exchange.request_id)
            if isinstance(taken, Conflict):
                raise taken
            await self._replay(call, taken, limits, recorder)
            return
        exchange.once, recorder.claim = True, taken
        try:
            await self._infer(worker, call, raw)
        finally:
            if recorder.claim is not None:
                await taken.release()

    async def _replay(self, call: Call, kept: Kept, limits: Headers, recorder: Recorder) -> None:
        """Give an answer once more. It costs nothing."""
        exchange = call.exchange
        exchange.facts = Facts(exchange.endpoint, {}, kept.model, kept.streamed)
        exchange.replay_of, exchange.answering = kept.request_id, True
        await _answer(recorder.send, 200, [*call.base, *limits, *kept.headers, REPLAYED], kept.body)
        self._finish(call, "replay", 200)

    async def _infer(self, worker: Worker, call: Call, raw: bytes | Form) -> None:
        """Ask a model: read, route, admit, journal, relay."""
        exchange, endpoint, headers = call.exchange, call.endpoint, call.headers
        assert endpoint is not None  # noqa: S101  # by the caller
        end_user = headers.get(b"x-end-user", b"").decode("utf-8", "replace")
        if isinstance(raw, Form):
            assert endpoint.form is not None  # noqa: S101  # or it would be no form
            facts = endpoint.form(raw, end_user)
        else:
            read = endpoint.read
            if endpoint.kept and b"previous_response_id" in raw:
                read = await self._continued(worker, call, raw)
            assert read is not None  # noqa: S101  # an endpoint reads either
            facts = read(raw, end_user)
        exchange.facts = facts
        if endpoint.kept:
            facts.kept = (
                principal_of(exchange).stores_responses and (facts.asked or {}).get("store") is not False
            )
        narrow(facts, headers)
        exchange.patience = patience_of(headers)
        principal, task = exchange.principal, asyncio.current_task()
        assert principal is not None and task is not None  # noqa: S101, PT018  # an ASGI application runs in a task
        demand_not_blocked(worker.blocked, principal, facts)

        def leave() -> None:
            for grant in call.grants:
                grant.leave()

        watch = asyncio.create_task(worker.abandoned.watch(task, call.receive, exchange, leave))
        try:
            offers = offers_for(worker, exchange)
            grant, limits = await worker.admission.admit(exchange, offers)
            call.grants.append(grant)
            exchange.offer = offers[0]
            worker.journal.begin(exchange)

            def after_refusal(reason: str, tried: set[int]) -> list[Offer]:
                # Only what the reservation covers too.
                found = offers_after(worker, exchange, reason, tried)
                return [offer for offer in found if grant.covers(facts, offer, principal.markup)]

            end = await worker.relay.run(exchange, offers, after_refusal, [*call.base, *limits], call.send)
            self._finish(call, *end)
        finally:
            watch.cancel()

    async def _continued(self, worker: Worker, call: Call, raw: bytes) -> Callable[[bytes, str], Facts]:
        """A reader that knows what the request goes on from."""
        previous = decode(raw).get("previous_response_id")
        if not isinstance(previous, str) or not previous:
            return response_facts
        earlier = await worker.stored.earlier(principal_of(call.exchange), previous)
        return partial(response_facts, earlier=earlier)

    async def _keep(self, exchange: Exchange, response: dict[str, Any]) -> None:
        """Keep a response before the client learns that it is complete, and may go on from it."""
        facts, worker = exchange.facts, self.worker
        if facts is None or worker is None or not facts.kept:
            return
        seed = exchange.request_id.removeprefix("req_")
        items = with_ids(normal_items(facts.asked or {}), seed)
        response["store"] = await worker.stored.keep(principal_of(exchange), response, items)

    # --- ends ----------------------------------------------------------------------------------

    def _finish(self, call: Call, end_reason: str, status: int, error_code: str = "") -> None:
        """Account for the exchange, exactly once: journal, then money, then rate limits. Never waits."""
        exchange = call.exchange
        if exchange.finished:
            return
        exchange.finished = True
        if exchange.client_gone:
            # Whatever the provider made of it since.
            end_reason, status, error_code = "client_gone", CLIENT_GONE_STATUS, ""
        usage = exchange.ended(end_reason, status, error_code)
        if exchange.attempts and not exchange.attempts[-1].reason:
            exchange.attempts[-1].reason = end_reason
        # Model listings and strangers are not usage.
        if self.worker is not None and exchange.principal is not None and exchange.endpoint:
            self.worker.journal.end(exchange, usage)
            if exchange.conversation and end_reason == "completed":
                self.worker.affinity.answered(exchange, usage)
        for grant in call.grants:
            grant.settle(exchange.charge, usage.total)

    async def _refuse(self, call: Call, error: V1Error) -> None:
        """Answer with an error; in mid-stream as an event, without ``[DONE]``."""
        exchange = call.exchange
        ours = error.status in (429, 503) or isinstance(error, EndUserBlocked)
        reason = exchange.end_reason or ("refused" if ours else "invalid")
        if error.status == 500:
            reason = "gateway_error"
        if reason == "refused":
            exchange.refusal = error.message
        answering = exchange.answering
        status = 200 if answering else call.errors.status(error)
        self._finish(call, reason, status, error.code or "")
        if answering and exchange.facts is not None and exchange.facts.binary:
            # Among bytes an error cannot be told: the answer is left without its end.
            return
        if answering:
            await call.send({"type": "http.response.body", "body": error_event(error)})
            return
        body = call.errors.body(error, call.told_id)
        await _answer(call.send, status, [*call.base, *JSON_HEADERS, *error.headers], body)


def principal_of(exchange: Exchange) -> Principal:
    """Whose request it is, once authenticated."""
    assert exchange.principal is not None  # noqa: S101  # by the caller
    return exchange.principal


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
