"""A stream that broke off and goes on at another deployment, which is given the text so far as its own.

Only text can be continued so: no tools, no structured output, no thinking, one choice.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import orjson

from billing.token_usage import TokenUsage
from gateway.v1.exchange import Exchange
from gateway.v1.facts import DEFAULT_OUTPUT_TOKENS, Facts
from gateway.v1.failures import BrokenStream
from gateway.v1.fetch import Fetch, Send, weaker
from gateway.v1.stream import chunks, error_event
from gateway.v1.turns import Turn, Turns
from routing.dialects import dialect
from routing.dialects.base import Prefill
from routing.table import DeploymentSpec

# What the chunks of a continuation take from the stream that they continue. Its ``model`` is its own: each chunk
# names who wrote it.
SHARED = ("id", "created")


def resumable(facts: Facts) -> bool:
    """Whether the answer to a request may be continued by another deployment than began it."""
    body = facts.body
    form = body.get("response_format")
    return (
        facts.endpoint == "chat.completions"
        and facts.stream
        and facts.choices == 1
        and not body.get("tools")
        and not body.get("functions")
        and (not isinstance(form, dict) or form.get("type") == "text")
        # The client's own beginning of the answer would be a second message of the assistant.
        and body["messages"][-1]["role"] != "assistant"
    )


class Resumption:
    """The ``send`` of a stream that may be resumed: it keeps what the client has, and shows a continuation as
    the same answer. ``cut`` is why the latest attempt broke off; None: none did."""

    __slots__ = (
        "_before",
        "_broken",
        "_events",
        "_exchange",
        "_identity",
        "_send",
        "_text",
        "carried",
        "cut",
    )

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._events: list[bytes] = []
        self._text = ""
        self._identity: dict[str, Any] | None = None
        self._broken: Fetch | None = None
        self._before: tuple[Any, ...] = ()
        self.cut: BrokenStream | None = None
        # What the client has, of all attempts.
        self.carried: TokenUsage | None = None

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Take one ASGI message for the client."""
        if self._identity is not None:
            if message["type"] == "http.response.start":
                return
            message = {**message, "body": _as_one(message["body"], self._identity)}
        self._events.append(message.get("body", b""))
        await self._send(message)

    def broke(self, fetch: Fetch, cut: BrokenStream, turns: Turns) -> bool:
        """A fetch broke off; whether there is somebody to go on with its text."""
        exchange = self._exchange
        text = self._said()
        if (
            exchange.client_gone
            or cut.error.code == "content_filter"
            or not text
            or _prefill(fetch.turn.offer.candidate.deployment) is None
            or not turns.narrow(lambda offer: _prefill(offer.candidate.deployment) is not None)
        ):
            return False
        first = next(chunks(b"".join(self._events)))
        self._text, self._broken, self.cut = text, fetch, cut
        self._identity = {name: first[name] for name in SHARED if name in first}
        used = fetch.used
        if self.carried is not None:
            source = weaker(used.source, self.carried.source)
            used = replace(used, output=used.output + self.carried.output, source=source)
        self.carried = used
        self._before = exchange.offer, exchange.usage, exchange.seen_output_tokens, exchange.billed
        return True

    def asks(self, turn: Turn) -> tuple[Facts, TokenUsage]:
        """What the deployment of ``turn`` is asked, the request and the text so far to go on with; and what
        that text was to the tenant."""
        facts, deployment = self._exchange.facts, turn.offer.candidate.deployment
        prefill = _prefill(deployment)
        assert facts is not None and prefill is not None and self.carried is not None  # noqa: S101, PT018  # by broke()
        said = {"role": "assistant", "content": self._text, **prefill.message}
        body = {**facts.body, **prefill.body, "messages": [*facts.body["messages"], said]}
        bounds = [name for name in ("max_tokens", "max_completion_tokens") if body.get(name)]
        if not bounds and (facts.tells_bound or deployment.max_output_tokens):
            # Both parts together must not be longer than what was reserved.
            body["max_tokens"] = deployment.max_output_tokens or DEFAULT_OUTPUT_TOKENS
            bounds = ["max_tokens"]
        for name in bounds:
            body[name] = max(1, body[name] - self.carried.output)
        return replace(facts, body=body, tells_bound=False, native=None), self.carried

    def went_on(self, fetch: Fetch) -> None:
        """``fetch`` has begun to go on. The tenant pays for one answer, so the one that broke off is wasted."""
        assert self._broken is not None  # noqa: S101  # by broke()
        fetch.attempt.resumed = True
        self._exchange.waste(self._broken.attempt, self._broken.turn.offer, self._broken.used)

    async def give_up(self) -> tuple[str, int, str]:
        """Nobody went on: the client hears of the break, and pays for what it has."""
        cut, exchange = self.cut, self._exchange
        assert cut is not None  # noqa: S101  # by the caller
        exchange.offer, exchange.usage, exchange.seen_output_tokens, exchange.billed = self._before
        await self._send({"type": "http.response.body", "body": error_event(cut.error)})
        return cut.end_reason, 200, cut.error.code or ""

    def _said(self) -> str:
        """The text that the client has; empty if it has anything else."""
        said = []
        for chunk in chunks(b"".join(self._events)):
            for choice in chunk.get("choices") or ():
                delta = choice.get("delta") or {}
                if choice.get("finish_reason") or any(
                    value for name, value in delta.items() if name not in ("role", "content")
                ):
                    return ""
                content = delta.get("content") or ""
                if not isinstance(content, str):
                    return ""
                said.append(content)
        return "".join(said)


def _prefill(deployment: DeploymentSpec) -> Prefill | None:
    return dialect(deployment.provider.kind.name, deployment.provider.base_url).prefill


def _as_one(events: bytes, identity: dict[str, Any]) -> bytes:
    """Events of a continuation, as of the stream that they continue."""
    written = []
    for event in events.split(b"\n\n"):
        if event.startswith(b"data: {"):
            chunk = {**orjson.loads(event[6:]), **identity}
            for choice in chunk.get("choices") or ():
                # Who speaks was said at the beginning, and SDKs add words up.
                (choice.get("delta") or {}).pop("role", None)
            written.append(b"data: " + orjson.dumps(chunk))
        else:
            written.append(event)
    return b"\n\n".join(written)
