"""The attempts of one request: try candidates in order until one answers, and pass its answer on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from random import Random
from typing import Any

from billing.token_usage import from_openai
from gateway.v1 import answers
from gateway.v1.asking import ask, kept
from gateway.v1.contracts import Contract, contract_for, kept_answer, kept_stream
from gateway.v1.errors import NO_RETRY, Headers, ProviderFailed
from gateway.v1.exchange import Attempt, Exchange, Offer
from gateway.v1.facts import Facts
from gateway.v1.failures import (
    AttemptFailed,
    BrokenStream,
    broken,
    failed,
    incomplete,
    read_reported,
    refused,
    unsupported,
)
from gateway.v1.pulse import Pulse
from gateway.v1.refusals import read_refusal
from gateway.v1.repairing import scanner_for
from gateway.v1.stream import StreamScanner, error_event, has_content, identity
from gateway.v1.turns import Turn, Turns, idle_wait, retry_after_of
from gateway.v1.upstream import Answer, Upstream, UpstreamError
from routing.dialects import CannotCarry, Dialect, dialect

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# How long to wait, in seconds, for a provider to close its stream after [DONE], so that the
# connection can be used again.
CLOSING_WAIT = 0.2
# What goes on after [DONE] for longer is given up.
MOST_CLOSING_READS = 16
# The reason of an attempt that the client has whole.
DELIVERED = "ok"
STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
JSON_HEADERS: Headers = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class _Spoken:
    """How the provider of one attempt was asked. ``choices``: whether it was told how many are wanted.
    ``contract``: what its answer must keep to."""

    dialect: Dialect
    model: str
    choices: bool
    contract: Contract | None


class Relay:
    """Relays exchanges through ``upstream``. One a worker."""

    def __init__(self, upstream: Upstream, pulse: Pulse) -> None:
        self._upstream = upstream
        self._pulse = pulse
        self._random = Random()  # noqa: S311  # spreads retries, guards nothing

    async def run(
        self,
        exchange: Exchange,
        offers: list[Offer],
        after_refusal: Callable[[str, set[int]], list[Offer]],
        headers: Headers,
        send: Send,
    ) -> tuple[str, int, str]:
        """Answer the exchange; returns ``(end_reason, status, error_code)``.

        ``after_refusal(reason, tried)`` gives more offers where a provider refused for a reason
        (``context_window``, ``content_filter``) that another model group may not share. Raises V1Error
        if nothing was sent to the client yet.
        """
        failure: AttemptFailed | None = None
        turns = Turns(self._pulse, exchange, offers, self._random)
        while (turn := await turns.next()) is not None:
            try:
                return await self._attempt(exchange, turn, headers, send)
            except AttemptFailed as error:
                failure = error
                turn.retry_after = retry_after_of(error.error.headers)
                turns.failed(turn, error.reason)
                if not error.moves_on:
                    turns.instead(after_refusal(error.reason, turns.tried))
            finally:
                turns.ended(turn, exchange.attempts[-1].reason)
        if failure is None:
            raise turns.nobody()
        exchange.end_reason = failure.end_reason
        raise failure.error

    async def _attempt(
        self, exchange: Exchange, turn: Turn, headers: Headers, send: Send
    ) -> tuple[str, int, str]:
        offer = turn.offer
        deployment = offer.candidate.deployment
        provider = deployment.provider
        facts = exchange.facts
        assert facts is not None  # noqa: S101  # read before routing
        exchange.offer = offer
        attempt = Attempt(deployment.name, provider.name, exchange.elapsed_ms(), visit=turn.visit)
        exchange.attempts.append(attempt)
        speaks = dialect(provider.kind.name, provider.base_url)
        try:
            group = offer.candidate.group
            payload, dropped = ask(speaks, deployment, group, facts)
            contract = contract_for(speaks, deployment, facts.body, group)
        except CannotCarry as error:
            attempt.reason = "unsupported"
            raise unsupported(error.param, provider.kind.label) from None
        attempt.dropped = dropped
        secret = provider.secrets[turn.visit.credential] if provider.secrets else ""
        answer = self._upstream.post(
            speaks.url(deployment, facts.endpoint, stream=facts.stream),
            speaks.headers(secret, exchange.request_id),
            payload,
            connect_timeout=provider.connect_timeout,
            total_timeout=provider.total_timeout,
        )
        headers = [
            *headers,
            (b"x-weir-deployment", deployment.name.encode()),
            (b"x-weir-attempts", str(len(exchange.attempts)).encode()),
        ]
        if dropped:
            headers.append((b"x-weir-dropped-params", ", ".join(dropped).encode()))
        if hidden := exchange.principal.hidden_headers if exchange.principal is not None else None:
            headers = [header for header in headers if header[0] not in hidden]
        exchange.sent = True
        try:
            async with answer:
                spoken = _Spoken(speaks, deployment.model, "n" not in dropped, contract)
                return await self._exchange(exchange, attempt, turn, answer, spoken, headers, send)
        except UpstreamError as error:
            exchange.sent = False
            raise failed(error) from None
        except AttemptFailed as error:
            exchange.sent = False
            attempt.reason = error.reason
            raise
        finally:
            attempt.duration_ms = exchange.elapsed_ms() - attempt.started_ms

    async def _exchange(
        self,
        exchange: Exchange,
        attempt: Attempt,
        turn: Turn,
        answer: Answer,
        spoken: _Spoken,
        headers: Headers,
        send: Send,
    ) -> tuple[str, int, str]:
        provider = turn.offer.candidate.deployment.provider
        facts = exchange.facts
        assert facts is not None  # noqa: S101  # read before routing
        began = time.perf_counter()
        try:
            await answer.open(provider.first_token_timeout)
            attempt.status = answer.status
            if answer.status != 200:
                raw = await answer.read_all(provider.idle_timeout)
                raise refused(read_refusal(answer.status, answer.headers, raw))
            if facts.stream and "json" not in (answer.headers.get("content-type") or ""):
                return await self._stream(exchange, attempt, turn, answer, spoken, headers, send, began)
            raw = await answer.read_all(max(provider.idle_timeout, provider.first_token_timeout))
        except UpstreamError as error:
            attempt.reason = error.reason
            raise
        self._first_token(exchange, attempt, began)
        if facts.stream:
            # Some providers answer a streamed request with an error as plain JSON and status 200.
            raise refused(read_refusal(200, answer.headers, raw))
        return await self._plain(exchange, attempt, facts, spoken, raw, headers, send)

    async def _plain(
        self,
        exchange: Exchange,
        attempt: Attempt,
        facts: Facts,
        spoken: _Spoken,
        raw: bytes,
        headers: Headers,
        send: Send,
    ) -> tuple[str, int, str]:
        try:
            read = answers.READERS[facts.endpoint](
                raw, base64_wanted=facts.base64, speaks=spoken.dialect, model=spoken.model
            )
        except answers.ErrorAnswer as answer:
            raise refused(read_reported(answer.error)) from None
        except answers.BadAnswer as error:
            raise AttemptFailed(
                "bad_answer",
                ProviderFailed(f"The provider's answer could not be used. {error}", headers=NO_RETRY),
            ) from None
        exchange.usage = read.usage
        exchange.seen_output_tokens = read.text_bytes // 4
        body = read.body
        if spoken.contract is not None:
            body, told = await kept(exchange, spoken.contract, kept_answer, body)
            headers = [*headers, *told]
        attempt.reason = DELIVERED
        exchange.answering = True
        size = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, *JSON_HEADERS, size]})
        await send({"type": "http.response.body", "body": body})
        return "completed", 200, ""

    async def _stream(
        self,
        exchange: Exchange,
        attempt: Attempt,
        turn: Turn,
        answer: Answer,
        spoken: _Spoken,
        headers: Headers,
        send: Send,
        began: float,
    ) -> tuple[str, int, str]:
        facts = exchange.facts
        assert facts is not None  # noqa: S101  # read before routing
        scanner = scanner_for(
            spoken.dialect,
            wants_usage=facts.wants_usage,
            choices=facts.choices if spoken.choices else 1,
            model=spoken.model,
        )
        contract = spoken.contract
        try:
            if contract is not None and contract.checks:
                await self._hold(exchange, attempt, turn, answer, scanner, contract, headers, send, began)
            else:
                if contract is not None:
                    headers = [*headers, *(await kept(exchange, contract, kept_stream, b""))[1]]
                await self._pass_on(exchange, attempt, turn, answer, scanner, headers, send, began)
        except BrokenStream as cut:
            attempt.reason = cut.reason
            await send({"type": "http.response.body", "body": error_event(cut.error)})
            return cut.end_reason, 200, cut.error.code or ""
        finally:
            exchange.usage = from_openai(scanner.usage) if scanner.usage else None
            exchange.seen_output_tokens = scanner.estimated_output_tokens
        attempt.reason = DELIVERED
        return "completed", 200, ""

    async def _pass_on(
        self,
        exchange: Exchange,
        attempt: Attempt,
        turn: Turn,
        answer: Answer,
        scanner: StreamScanner,
        headers: Headers,
        send: Send,
        began: float,
    ) -> None:
        """Pass events on until the provider's end. Nothing is sent before the first content, so that an
        early failure can move on unseen. Raises AttemptFailed before that, BrokenStream after."""
        provider = turn.offer.candidate.deployment.provider
        held = b""
        idle = provider.idle_timeout
        first: dict[str, Any] | None = None
        while not scanner.done:
            if exchange.answering:
                wait, phase = idle, "idle"
            else:
                wait, phase = (
                    max(0.001, provider.first_token_timeout - (time.perf_counter() - began)),
                    "first_token",
                )
            try:
                piece = await answer.read(wait, phase)
            except UpstreamError as error:
                if not exchange.answering:
                    raise
                raise broken(error) from None
            events = scanner.feed(piece) if piece else scanner.finish()
            if events and first is None:
                first = identity(events)
            if exchange.answering:
                if events:
                    await send({"type": "http.response.body", "body": events, "more_body": True})
            else:
                held += events
                if events and has_content(events):
                    self._first_token(exchange, attempt, began)
                    self._pulse.answered(attempt.visit)
                    idle = idle_wait(exchange, turn)
                    await _start(exchange, headers, held, send)
            if not piece or scanner.overflow:
                break
        if not scanner.complete:
            raise incomplete(scanner, answering=exchange.answering)
        if not exchange.answering:
            # A whole answer without content, such as one that ended at once for its length.
            await _start(exchange, headers, held, send)
        usage = scanner.usage or _estimated_usage(exchange, scanner)
        await send({"type": "http.response.body", "body": scanner.closing(first, usage)})
        # The client has everything: from here on it may leave.
        attempt.reason = DELIVERED
        await _drain(answer)

    async def _hold(
        self,
        exchange: Exchange,
        attempt: Attempt,
        turn: Turn,
        answer: Answer,
        scanner: StreamScanner,
        contract: Contract,
        headers: Headers,
        send: Send,
        began: float,
    ) -> None:
        """Pass a stream on only when it is whole and keeps to its contract: what the client has cannot be
        taken back. Raises AttemptFailed."""
        pieces: list[bytes] = []

        async def hold(message: MutableMapping[str, Any]) -> None:  # in the place of send
            pieces.append(message.get("body", b""))

        try:
            await self._pass_on(exchange, attempt, turn, answer, scanner, headers, hold, began)
        except BrokenStream as cut:
            raise AttemptFailed(cut.reason, cut.error, end_reason=cut.end_reason) from None
        finally:
            exchange.answering = False
        attempt.reason = ""
        events, told = await kept(exchange, contract, kept_stream, b"".join(pieces))
        await _start(exchange, [*headers, *told], events, send)
        await send({"type": "http.response.body", "body": b""})
        attempt.reason = DELIVERED

    def _first_token(self, exchange: Exchange, attempt: Attempt, began: float) -> None:
        self._pulse.first_token(attempt.visit, time.perf_counter() - began)
        attempt.first_token_ms = exchange.first_token_ms = exchange.elapsed_ms()


async def _start(exchange: Exchange, headers: Headers, held: bytes, send: Send) -> None:
    exchange.answering = True
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, *STREAM_HEADERS]})
    await send({"type": "http.response.body", "body": held, "more_body": True})


async def _drain(answer: Answer) -> None:
    """Read to the end of the provider's response, so that its connection is used again."""
    try:
        for _ in range(MOST_CLOSING_READS):
            if not await answer.read(CLOSING_WAIT):
                return
    except UpstreamError:
        # The client has everything; the connection is simply not kept.
        return


def _estimated_usage(exchange: Exchange, scanner: StreamScanner) -> dict[str, Any]:
    """A usage object for a client that asked, where the provider sent none."""
    assert exchange.facts is not None  # noqa: S101  # read before routing
    prompt, output = exchange.facts.input_tokens, scanner.estimated_output_tokens
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


async def cancelled_by(
    task: asyncio.Task[Any], receive: Callable[[], Awaitable[Any]], exchange: Exchange
) -> None:
    """Wait until the client closes, then cancel ``task``: that stops the provider."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not exchange.finished and not (exchange.attempts and exchange.attempts[-1].reason == DELIVERED):
        exchange.client_gone = True
        task.cancel()
