"""One fetch of an answer from one provider: ask, wait for the first content, pass the answer on to its end."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from billing.token_usage import COUNTED, ESTIMATED, REPORTED, TokenUsage, from_openai
from gateway.v1 import answers
from gateway.v1.asking import ask, kept
from gateway.v1.contracts import Contract, contract_for, kept_answer, kept_stream
from gateway.v1.counting import (
    Told,
    count_usage,
    counted_answer,
    counted_stream,
    messages_of_body,
    shown_usage,
)
from gateway.v1.error_bodies import reported_usage
from gateway.v1.errors import NO_RETRY, Headers, ProviderFailed
from gateway.v1.exchange import Attempt, Exchange
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
from gateway.v1.forms import Posted
from gateway.v1.media_streams import MediaScanner, all_at_once
from gateway.v1.native import (
    RESPONSES,
    native_answer,
    native_body,
    native_messages,
    says_all,
    spoken_by,
)
from gateway.v1.native_streams import native_scanner
from gateway.v1.pulse import Pulse
from gateway.v1.readers import read_answer
from gateway.v1.refusals import read_refusal
from gateway.v1.repairing import scanner_for
from gateway.v1.stream import MOST_KEPT_BYTES, StreamScanner, identity
from gateway.v1.turns import Turn, idle_wait
from gateway.v1.upstream import Answer, Upstream, UpstreamError
from routing.dialects import WORDED, CannotCarry, Dialect, dialect
from routing.table import DeploymentSpec

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# How long to wait, in seconds, for a provider to close its stream after [DONE], so that the
# connection can be used again.
CLOSING_WAIT = 0.2
# What goes on after [DONE] for longer is given up.
MOST_CLOSING_READS = 16
# What can be counted where the provider reports no usage.
COUNTED_ENDPOINTS = frozenset({"chat.completions", "embeddings"})
# How an address that is not there answers; a model that is not there does too.
NOT_THERE = (404, 405)
# Azure's code for a model that has no such API: "The responses operation does not work with the specified model".
NO_RESPONSES = re.compile(rb'"OperationNotSupported"')
# Sealed thinking that cannot be opened, by OpenAI's code and in xAI's words.
UNREADABLE = re.compile(rb'"invalid_encrypted_content"|decrypt the provided encrypted_content')
_AUDIO = re.compile(r"audio/[a-zA-Z0-9.+-]{1,40}")
SENT_A_MINUTE = 64 * 1024 * 1024
# The reason of an attempt that the client has whole.
DELIVERED = "ok"
STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
JSON_HEADERS: Headers = [(b"content-type", b"application/json")]


class Fetch:
    """``begin``, then ``deliver``, within ``async with``: leaving it stops the provider.

    Nothing goes to the client before ``deliver``, so that a fetch that fails early leaves no trace there.
    """

    __slots__ = (
        *(
            "_answer",
            "_body",
            "_began",
            "_carried",
            "_begun",
            "_contract",
            "_dropped",
            "_ended",
            "_exchange",
            "_facts",
            "_first",
            "_held",
        ),
        *("_kind", "_sending", "_text_tokens"),
        *("_pulse", "_scanner", "_spent", "_told", "_upstream", "_usage", "attempt", "failure", "native"),
        "turn",
    )

    def __init__(
        self,
        upstream: Upstream,
        pulse: Pulse,
        exchange: Exchange,
        turn: Turn,
        facts: Facts | None = None,
        carried: TokenUsage | None = None,
    ) -> None:
        """``facts`` are what is asked, the exchange's own if not given; ``carried`` is what the client has
        already of the answer, by other attempts, whose text stands in ``facts``."""
        deployment = turn.offer.candidate.deployment
        facts = facts or exchange.facts
        assert facts is not None  # noqa: S101  # read before routing
        self._upstream, self._pulse, self._exchange, self._facts = upstream, pulse, exchange, facts
        self.turn = turn
        self._carried = carried
        self.attempt = Attempt(
            deployment.name, deployment.provider.name, exchange.elapsed_ms(), visit=turn.visit
        )
        exchange.attempts.append(self.attempt)
        # Why ``begin`` failed.
        self.failure: AttemptFailed | None = None
        self._begun = False
        self._answer: Answer | None = None
        self._began = 0.0
        self._dropped: list[str] = []
        # Of a stream: who reads it, what came before its first content and with it, its first chunk,
        # and whether the provider's bytes are at their end.
        self._scanner: StreamScanner | None = None
        self._held = b""
        self._first: dict[str, Any] | None = None
        self._ended = False
        # What the client gets, of a plain answer or a stream that was read to its end.
        self._body = b""
        self._usage: TokenUsage | None = None
        self._text_tokens = 0
        self._kind = b"application/json"
        # Seconds more than usual, to send a form: few different ones, as each makes a pool of its own.
        self._sending = 60.0 * (facts.form.size // SENT_A_MINUTE) if facts.form is not None else 0.0
        # What the provider reported with an error.
        self._spent: dict[str, Any] | None = None
        # The client's own API, where the provider speaks it too; empty: it is asked in a chat.
        self.native = ""
        # What the answer must keep to, and the header that tells how it does.
        self._contract: Contract | None = None
        self._told: Headers = []

    async def __aenter__(self) -> Fetch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        exchange, scanner = self._exchange, self._scanner
        if scanner is not None:
            exchange.seen_output_tokens = scanner.estimated_output_tokens
            if (used := scanner.used()) is not None:
                exchange.usage = used
            elif exchange.client_gone or (
                exchange.answering and self.failure is None and kind is not asyncio.CancelledError
            ):
                # The tenant pays for what there is of an answer.
                exchange.usage = self._usage = self._usage or await self._counted(scanner)
            if self._carried is not None:
                self._carry(exchange, self._carried)
        await self.close()

    async def close(self) -> None:
        """Stop the provider."""
        self.attempt.duration_ms = self._exchange.elapsed_ms() - self.attempt.started_ms
        if self._answer is not None:
            await self._answer.__aexit__(None, None, None)

    @property
    def spent(self) -> TokenUsage | None:
        """What the provider reported to have used, be it for a failure; None if nothing."""
        if self._usage is not None:
            return self._usage
        if self._scanner is not None:
            return self._scanner.used()
        return from_openai(self._spent) if self._spent else None

    def told(self) -> Told | None:
        """What can be counted as it went over the wire; None where that is not all that was asked and
        answered."""
        facts, scanner, native = self._facts, self._scanner, bool(self.native)
        if facts.endpoint not in COUNTED_ENDPOINTS or self._contract or self._carried:
            return None
        if native and not says_all(facts):
            return None
        if scanner is not None:
            return Told(facts, scanner.deltas(), native) if scanner.bytes < MOST_KEPT_BYTES else None
        if facts.endpoint == "embeddings":
            return Told(facts, ())
        read = native_messages if native else messages_of_body
        return Told(facts, read(self._body), native)

    @property
    def seen_tokens(self) -> int:
        """About how many tokens of the answer have come."""
        return self._text_tokens if self._scanner is None else self._scanner.estimated_output_tokens

    @property
    def used(self) -> TokenUsage:
        """What the provider reported, or must be taken to ask for."""
        prompt = self._facts.input_tokens + (self._carried.output if self._carried is not None else 0)
        return self.spent or TokenUsage(prompt, 0, 0, self.seen_tokens, 0, ESTIMATED)

    def _carry(self, exchange: Exchange, carried: TokenUsage) -> None:
        """The tenant pays for one whole answer, its provider asks for a prompt that holds a part of it."""
        exchange.seen_output_tokens += carried.output
        own = exchange.usage
        if own is None or self._scanner is None:
            return
        exchange.billed = own
        whole = from_openai(_whole(self._scanner.usage or shown_usage(own), carried.output))
        if whole is not None:
            exchange.usage = replace(whole, source=weaker(own.source, carried.source))

    async def begin(self) -> None:
        """Ask, and wait for a stream's first content or a whole plain answer, unless that was done.

        Raises AttemptFailed.
        """
        if self._begun:
            if self.failure is not None:
                raise self.failure
            return
        self._begun = True
        try:
            await self._ask()
        except AttemptFailed as error:
            self.attempt.reason = error.reason
            self.failure = error
            raise

    async def begun(self) -> bool:
        """``begin``, which tells whether it succeeded."""
        try:
            await self.begin()
        except AttemptFailed:
            return False
        return True

    def taken_over(self) -> None:
        """Of several that have begun this one goes on, in another task than began it."""
        exchange, attempt = self._exchange, self.attempt
        exchange.attempts.remove(attempt)
        exchange.attempts.append(attempt)
        exchange.offer, exchange.scanner, exchange.sent = self.turn.offer, self._scanner, True
        exchange.usage, exchange.seen_output_tokens = self.spent, self.seen_tokens
        exchange.first_token_ms = attempt.first_token_ms
        if self._answer is not None:
            self._answer.hand_over()

    async def _ask(self) -> None:
        exchange, turn, facts = self._exchange, self.turn, self._facts
        deployment = turn.offer.candidate.deployment
        provider = deployment.provider
        speaks = _spoken(deployment)
        group = turn.offer.candidate.group
        try:
            self._contract = contract_for(speaks, deployment, facts.body, group)
            self.native = spoken_by(speaks, deployment, exchange, facts, self._contract)
            url = speaks.url(deployment, self.native or facts.endpoint, stream=facts.stream)
            if self.native and (url, deployment.model) in self._upstream.missing:
                self.native, url = "", speaks.url(deployment, facts.endpoint, stream=facts.stream)
            payload: bytes | Posted
            if self.native:
                payload, self._dropped = native_body(speaks, self.native, deployment, group, facts)
            else:
                payload, self._dropped = ask(speaks, deployment, group, facts)
        except CannotCarry as error:
            raise unsupported(error.param, provider.kind.label) from None
        self.attempt.dropped = self._dropped
        secret = provider.secrets[turn.visit.credential] if provider.secrets else ""
        self._answer = self._upstream.post(
            url,
            speaks.headers(secret, exchange.request_id),
            payload,
            connect_timeout=provider.connect_timeout,
            silence=self.turn.silence + self._sending,
            total_timeout=provider.total_timeout + self._sending,
        )
        exchange.offer, exchange.scanner, exchange.sent = turn.offer, None, True
        exchange.whole = False
        self._began = time.perf_counter()
        try:
            await self._open(self._answer, url)
        except UpstreamError as error:
            raise failed(error) from None

    async def _ask_in_a_chat(self, url: str) -> None:
        """Not all who call themselves OpenAI have its newer API, and not with all models. Where a chat is
        there, the model is not asked at ``url`` from here on."""
        missing, here = self._upstream.missing, (url, self.turn.offer.candidate.deployment.model)
        missing.add(here)
        try:
            await self._ask()
        finally:
            if self.attempt.status in NOT_THERE:
                # It is the model that is not there.
                missing.discard(here)

    async def _open(self, answer: Answer, url: str) -> None:
        facts, deployment = self._facts, self.turn.offer.candidate.deployment
        provider = deployment.provider
        await answer.open(provider.first_token_timeout + self._sending)
        self.attempt.status = answer.status
        if self.native == RESPONSES and answer.status in NOT_THERE:
            await answer.__aexit__(None, None, None)
            await self._ask_in_a_chat(url)
            return
        if answer.status != 200:
            raw = await answer.read_all(provider.idle_timeout)
            if self.native == RESPONSES and NO_RESPONSES.search(raw):
                await answer.__aexit__(None, None, None)
                await self._ask_in_a_chat(url)
                return
            if self.native == RESPONSES and UNREADABLE.search(raw):
                # Another account of the same maker sealed the thinking: a chat goes on without it.
                self._facts = replace(facts, native=None)
                await answer.__aexit__(None, None, None)
                await self._ask()
                return
            self._spent = reported_usage(raw)
            raise refused(read_refusal(answer.status, answer.headers, raw))
        told = answer.headers.get("content-type") or ""
        worded = facts.endpoint in WORDED
        if facts.stream and ("json" not in told if worded else "event-stream" in told):
            await self._content(answer)
            await self._keep_stream()
            return
        if facts.binary and "json" not in told:
            self._held = await answer.read(provider.first_token_timeout, "first_token")
            if not self._held:
                raise AttemptFailed("bad_answer", ProviderFailed("The provider's answer is empty."))
            self._first_token()
            self._pulse.answered(self.attempt.visit)
            return
        raw = await answer.read_all(max(provider.idle_timeout, provider.first_token_timeout))
        self._first_token()
        if (facts.stream and worded) or facts.binary:
            # Some providers answer a streamed request with an error as plain JSON and status 200.
            self._spent = reported_usage(raw)
            raise refused(read_refusal(200, answer.headers, raw))
        await self._plain(facts, raw)

    async def _plain(self, facts: Facts, raw: bytes) -> None:
        exchange, deployment = self._exchange, self.turn.offer.candidate.deployment
        try:
            if self.native:
                read = native_answer(self.native, raw, exchange, facts)
            else:
                read = read_answer(facts, raw, _spoken(deployment), deployment.model)
        except answers.ErrorAnswer as answer:
            self._spent = reported_usage(raw)
            raise refused(read_reported(answer.error)) from None
        except answers.BadAnswer as error:
            raise AttemptFailed(
                "bad_answer",
                ProviderFailed(f"The provider's answer could not be used. {error}", headers=NO_RETRY),
            ) from None
        usage, body = read.usage, read.body
        if usage is None and self.native:
            usage = await asyncio.to_thread(count_usage, facts, deployment.model, native_messages(raw))
        elif usage is None and facts.endpoint in COUNTED_ENDPOINTS:
            usage, body = await counted_answer(facts, deployment.model, body)
        self._usage, self._text_tokens = usage, read.text_bytes // 4
        if facts.stream:
            # It was asked for a stream, and does not know what that is.
            body, kind = all_at_once(body, facts.endpoint), b"text/event-stream; charset=utf-8"
        else:
            kind = read.content_type
        self._body, self._kind = body, kind
        exchange.usage, exchange.seen_output_tokens = self._usage, self._text_tokens
        if self._contract is not None:
            self._body, self._told = await kept(exchange, self._contract, kept_answer, body)

    async def _keep_stream(self) -> None:
        """Read a stream to its end if it must keep to a contract: what the client has cannot be taken back."""
        contract, scanner = self._contract, self._scanner
        if contract is None or scanner is None:
            return
        pieces = [self._held]

        async def hold(message: MutableMapping[str, Any]) -> None:  # in the place of send
            pieces.append(message.get("body", b""))

        if contract.checks:
            try:
                await self._pass_on(scanner, hold)
            except BrokenStream as cut:
                raise AttemptFailed(cut.reason, cut.error, end_reason=cut.end_reason) from None
            self.attempt.reason = ""
        events, self._told = await kept(self._exchange, contract, kept_stream, b"".join(pieces))
        if contract.checks:
            self._body = events

    async def _content(self, answer: Answer) -> None:
        """Read a stream up to its first content. One that ends without any may be whole all the same."""
        facts, deployment = self._facts, self.turn.offer.candidate.deployment
        scanner: StreamScanner
        if self.native:
            scanner = native_scanner(self.native, self._exchange, facts)
        elif facts.endpoint not in WORDED:
            scanner = MediaScanner(facts)
        else:
            scanner = scanner_for(
                _spoken(deployment),
                wants_usage=facts.wants_usage,
                choices=facts.choices if "n" not in self._dropped else 1,
                model=deployment.model,
            )
        self._scanner = self._exchange.scanner = scanner
        patience = deployment.provider.first_token_timeout
        while not (scanner.done or self._ended):
            left = patience - (time.perf_counter() - self._began)
            piece = await answer.read(max(0.001, left), "first_token")
            events = scanner.feed(piece) if piece else scanner.finish()
            self._ended = not piece or scanner.overflow
            if not events:
                continue
            if self._first is None:
                self._first = identity(events)
            self._held += events
            if scanner.has_content(events):
                self._first_token()
                self._pulse.answered(self.attempt.visit)
                return
        if not scanner.complete:
            raise incomplete(scanner, answering=False)

    def _first_token(self) -> None:
        self._pulse.first_token(self.attempt.visit, time.perf_counter() - self._began)
        self.attempt.first_token_ms = self._exchange.elapsed_ms()
        if not self._exchange.answering:
            self._exchange.first_token_ms = self.attempt.first_token_ms

    # --- to the client ---------------------------------------------------------------------------

    async def deliver(self, headers: Headers, send: Send) -> None:
        """Pass on what ``begin`` waited for, and what follows it. Raises BrokenStream if that breaks off."""
        exchange, attempt = self._exchange, self.attempt
        headers = [
            *headers,
            *self._told,
            (b"x-weir-deployment", attempt.deployment.encode()),
            (b"x-weir-attempts", str(len(exchange.attempts)).encode()),
        ]
        if self._dropped:
            headers.append((b"x-weir-dropped-params", ", ".join(self._dropped).encode()))
        if hidden := exchange.principal.hidden_headers if exchange.principal is not None else None:
            headers = [header for header in headers if header[0] not in hidden]
        exchange.answering, exchange.native = True, bool(self.native)
        if self._scanner is None and self._held:
            await self._bytes(headers, send)
            return
        if self._scanner is None:
            attempt.reason, exchange.whole = DELIVERED, True
            headers += [(b"content-type", self._kind), (b"content-length", str(len(self._body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": self._body})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, *STREAM_HEADERS]})
        if self._body:
            exchange.whole = True
            await send({"type": "http.response.body", "body": self._body})
            attempt.reason = DELIVERED
            return
        await send({"type": "http.response.body", "body": self._held, "more_body": True})
        await self._pass_on(self._scanner, send)

    async def _bytes(self, headers: Headers, send: Send) -> None:
        """Pass on an answer that is bytes. One that breaks off is left without an end, as HTTP tells it."""
        answer, attempt = self._answer, self.attempt
        assert answer is not None  # noqa: S101  # begin() comes first
        told = answer.headers.get("content-type") or ""
        kind = told if _AUDIO.fullmatch(told) else "application/octet-stream"
        headers.append((b"content-type", kind.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        piece, idle = self._held, idle_wait(self._exchange, self.turn)
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            try:
                piece = await answer.read(idle)
            except UpstreamError as error:
                attempt.reason = error.reason
                raise broken(error) from None
        self._exchange.whole = True
        await send({"type": "http.response.body", "body": b""})
        attempt.reason = DELIVERED

    async def _pass_on(self, scanner: StreamScanner, send: Send) -> None:
        answer, attempt = self._answer, self.attempt
        assert answer is not None  # noqa: S101  # begin() comes first
        idle = idle_wait(self._exchange, self.turn)
        while not (scanner.done or self._ended):
            try:
                piece = await answer.read(idle)
            except UpstreamError as error:
                attempt.reason = error.reason
                raise broken(error) from None
            events = scanner.feed(piece) if piece else scanner.finish()
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            self._ended = not piece or scanner.overflow
        if not scanner.complete:
            cut = incomplete(scanner, answering=True)
            attempt.reason = cut.reason
            raise cut
        usage = scanner.usage
        if usage is None:
            # For the client that asked, and for the charge, where the provider sent none.
            self._usage = await self._counted(scanner)
            usage = shown_usage(self._usage)
        if self._carried is not None:
            usage = _whole(usage, self._carried.output)
        self._exchange.whole = True
        await send({"type": "http.response.body", "body": scanner.closing(self._first, usage)})
        # The client has everything: from here on it may leave.
        attempt.reason = DELIVERED
        await _drain(answer)

    async def _counted(self, scanner: StreamScanner) -> TokenUsage:
        if self._facts.counted is not None:
            return self._facts.counted
        return await counted_stream(self._facts, self.turn.offer.candidate.deployment.model, scanner)


def _spoken(deployment: DeploymentSpec) -> Dialect:
    return dialect(deployment.provider.kind.name, deployment.provider.base_url)


def weaker(one: str, other: str) -> str:
    """Of two sources of usage, the one to trust less."""
    return max(one, other, key=(REPORTED, COUNTED, ESTIMATED).index)


def _whole(usage: dict[str, Any], carried: int) -> dict[str, Any]:
    """The usage of a continuation, as of the whole answer: ``carried`` tokens of its prompt were the answer's."""
    prompt = usage.get("prompt_tokens") or 0
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    prompt = max(prompt - carried, min(cached, prompt))
    output = (usage.get("completion_tokens") or 0) + carried
    return {
        **usage,
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }


async def _drain(answer: Answer) -> None:
    """Read to the end of the provider's response, so that its connection is used again."""
    try:
        for _ in range(MOST_CLOSING_READS):
            if not await answer.read(CLOSING_WAIT):
                return
    except UpstreamError:
        # The client has everything; the connection is simply not kept.
        return
