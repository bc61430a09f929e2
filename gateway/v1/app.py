"""The entry of ``/v1``: a plain ASGI application, one ``handle`` for the way of one request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from random import Random
from typing import Any
from urllib.parse import unquote

import orjson
from django.conf import settings

from gateway.v1 import facts as facts_of
from gateway.v1.admission import Grant
from gateway.v1.errors import (
    NO_RETRY,
    BodyTooLarge,
    Headers,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotAllowed,
    NotFound,
    Unavailable,
    V1Error,
)
from gateway.v1.exchange import CLIENT_GONE_STATUS, Exchange, Offer
from gateway.v1.relay import JSON_HEADERS, cancelled_by
from gateway.v1.stream import error_event
from gateway.v1.worker import Worker
from routing import policy
from routing.policy import Candidate, Need, NoCandidate, Signals
from routing.table import DeploymentSpec, GroupSpec

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ENDPOINTS = {"/v1/chat/completions": "chat.completions", "/v1/embeddings": "embeddings"}


class App:
    """``/v1``. Created once a process; ``worker`` is set by the lifespan."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self._random = Random()  # noqa: S311  # spreads load, guards nothing

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
            raise NotFound(f"Invalid URL ({method} {_printable(path)})", code="unknown_url")
        exchange.principal = await worker.principals.authenticate(
            headers.get(b"authorization", b"").decode("latin-1"), client[0] if client else ""
        )
        expected = "POST" if exchange.endpoint else "GET"
        if method != expected:
            raise MethodNotAllowed(
                f"Not allowed to {method} on {_printable(path)}. Use {expected}.",
                headers=[(b"allow", expected.encode())],
            )
        if exchange.endpoint:
            await self._infer(worker, receive, send, exchange, base, headers, grants)
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
    ) -> None:
        raw = await _body(receive, headers)
        if raw is None:
            exchange.client_gone = True
            self._finish(exchange, grants, "client_gone", CLIENT_GONE_STATUS)
            return
        exchange.facts = facts_of.READERS[exchange.endpoint](
            raw, headers.get(b"x-end-user", b"").decode("utf-8", "replace")
        )
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # an ASGI application runs in a task
        watch = asyncio.create_task(cancelled_by(task, receive, exchange))
        try:
            offers = self._offers(worker, exchange)
            grant, limits = await worker.admission.admit(exchange, offers)
            grants.append(grant)
            exchange.offer = offers[0]
            worker.journal.begin(exchange)

            def after_refusal(reason: str, tried: set[int]) -> list[Offer]:
                return self._after_refusal(worker, exchange, reason, tried)

            end = await worker.relay.run(exchange, offers, after_refusal, [*base, *limits], send)
            self._finish(exchange, grants, *end)
        finally:
            watch.cancel()

    # --- which deployments ---------------------------------------------------------------------

    def _offers(self, worker: Worker, exchange: Exchange) -> list[Offer]:
        principal, facts = exchange.principal, exchange.facts
        assert principal is not None and facts is not None  # noqa: S101, PT018  # set by the caller
        group = worker.table.groups.get(facts.model)
        if group is None or not principal.may_see(facts.model):
            raise _no_model(facts.model)
        if not principal.may_use(facts.model):
            raise NotAllowed(
                f"This API key may not use the model `{_printable(facts.model)}`.",
                param="model",
                code="model_not_allowed",
            )
        signals = self._signals(worker, exchange)
        try:
            found = policy.order(
                worker.table, group, self._need(exchange), signals, self._random, principal.may_use
            )
        except NoCandidate as problem:
            raise _unserved(problem) from None
        offers = self._priced(worker, exchange, found)
        if not offers:
            raise _unserved(
                NoCandidate("unpriced", f"The model {group.name} has no price, so it is not served.")
            )
        return offers

    def _after_refusal(self, worker: Worker, exchange: Exchange, reason: str, tried: set[int]) -> list[Offer]:
        """More offers after a refusal that another model group may not share.

        Their worst case may exceed what was reserved, so only those within it are taken.
        """
        assert exchange.offer is not None and exchange.principal is not None  # noqa: S101, PT018  # an attempt was made
        group: GroupSpec = exchange.offer.candidate.group
        names = {"context_window": group.on_context_window, "content_filter": group.on_content_filter}.get(
            reason, ()
        )
        if not names:
            return []
        found = policy.fallbacks(
            worker.table,
            names,
            self._need(exchange),
            self._signals(worker, exchange),
            self._random,
            exchange.principal.may_use,
            tried,
        )
        return self._priced(worker, exchange, found)

    def _priced(self, worker: Worker, exchange: Exchange, candidates: list[Candidate]) -> list[Offer]:
        """The candidates with the prices in force; those that are not priced for this endpoint are left out."""
        offers = []
        for candidate in candidates:
            cost = worker.rates.cost(candidate.deployment.id, exchange.started_at)
            price = worker.rates.price(candidate.group.id, exchange.started_at)
            if cost is None or not cost.priced_for(exchange.endpoint):
                continue
            if price is not None and not price.priced_for(exchange.endpoint):
                continue
            offers.append(Offer(candidate, cost, price))
        return offers

    def _need(self, exchange: Exchange) -> Need:
        facts, principal = exchange.facts, exchange.principal
        assert principal is not None and facts is not None  # noqa: S101, PT018  # set by the caller
        return Need(facts.input_tokens, facts.output_bound or 0, facts.needs, principal.plan, principal.team)

    def _signals(self, worker: Worker, exchange: Exchange) -> Signals:
        facts = exchange.facts
        assert facts is not None  # noqa: S101  # set by the caller
        output = facts.output_bound or facts_of.DEFAULT_OUTPUT_TOKENS

        def cost(deployment: DeploymentSpec) -> Any:
            rates = worker.rates.cost(deployment.id, exchange.started_at)
            if rates is None or not rates.priced_for(exchange.endpoint):
                return None
            return rates.most(facts.input_tokens, output)

        return Signals(
            cost,
            lambda deployment: worker.pulse.in_flight(deployment.id),
            lambda deployment: worker.pulse.latency(deployment.id),
        )

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
                raise _no_model(name)
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


def _printable(text: str) -> str:
    """What a client sent, as an error may repeat it: short and without control characters."""
    return "".join(character for character in text[:200] if character.isprintable())


def _no_model(name: str) -> NotFound:
    return NotFound(
        f"The model `{_printable(name)}` does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def _unserved(problem: NoCandidate) -> V1Error:
    match problem.reason:
        case "context_window":
            return InvalidRequest(str(problem), param="messages", code="context_length_exceeded")
        case "capability":
            return InvalidRequest(str(problem), code="unsupported_by_model")
        case "unpriced":
            return NotFound(str(problem), param="model", code="model_not_priced")
        case _:
            return Unavailable(str(problem), code="no_deployment")


def _model(group: GroupSpec) -> dict[str, Any]:
    return {"id": group.name, "object": "model", "created": group.created, "owned_by": "weir"}


async def _body(receive: Receive, headers: dict[bytes, bytes]) -> bytes | None:
    """The whole request body; None if the client left before it was whole. Raises BodyTooLarge."""
    limit: int = settings.MAX_BODY_BYTES
    declared = headers.get(b"content-length", b"")
    pieces: list[bytes] = []
    size = int(declared) if declared.isdigit() else 0
    if size <= limit:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
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
