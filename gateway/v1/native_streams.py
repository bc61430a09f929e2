"""Streams of the APIs that pass without translation: their bytes, with only usage, end and errors read.

Events pass as they came where each is its name and one line of data; any other form is written anew. The event
that ends a stream is kept back until its answer is known to be whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from gateway.v1.exchange import Exchange
from gateway.v1.facts import Facts
from gateway.v1.native import MESSAGES, own
from gateway.v1.stream import DONE, StreamScanner, chunks
from gateway.v1.translation.chat import event
from gateway.v1.translation.shape import Object
from routing.dialects import StreamState, fault_of
from routing.dialects.anthropic import answers as anthropic

_NAMED: Final = re.compile(rb"(?:event: [a-z_.]+\ndata: \{[^\r\n]*\}\n\n)+")
ERROR: Final = rb'event: error\n|"error"\s*:\s*[{"]'


class NativeScanner(StreamScanner):
    """Reads one stream of such an API. ``reads``: what an event has in it that must be decoded."""

    __slots__ = ()
    reads: ClassVar[re.Pattern[bytes]]

    def _passes(self, events: bytes) -> bool:
        return self.reads.search(events) is None and _NAMED.fullmatch(events) is not None

    def _chunk(self, chunk: dict[str, Any], event: bytes, data: bytes) -> bytes | None:  # noqa: ARG002  # the data says it all
        kind = chunk.get("type")
        if not isinstance(kind, str) or not re.fullmatch(r"[a-z_.]{1,80}", kind):
            # Nothing that the API has.
            return None
        shown = self._shown(kind, chunk, data)
        if shown is not None:
            self._count(shown)
        return shown

    def _shown(self, kind: str, chunk: dict[str, Any], data: bytes) -> bytes | None:
        """One event as the client gets it; None: not, or not yet."""
        raise NotImplementedError

    def deltas(self) -> Iterator[dict[str, Any]]:
        """See StreamScanner."""
        for events in self.kept:
            for chunk in chunks(events):
                yield from self._said(chunk)

    def _said(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What the model wrote with an event, as a chat would tell it."""
        raise NotImplementedError


class MessageScanner(NativeScanner):
    """A stream of Anthropic's Messages API."""

    __slots__ = ("_state",)
    content = re.compile(
        rb'"type"\s*:\s*"(?:text_delta|thinking_delta|input_json_delta|tool_use|server_tool_use|redacted_thinking)"'
    )
    reads = re.compile(rb'"type"\s*:\s*"(?:message_start|message_delta|message_stop|error)"|' + ERROR)

    def __init__(self) -> None:
        super().__init__(wants_usage=True)
        self._state: StreamState | None = None

    def _fault(self, chunk: Any) -> dict[str, Any] | None:
        kind = chunk.get("type") if isinstance(chunk, dict) else None
        return None if isinstance(kind, str) and kind in anthropic.EVENTS else fault_of(chunk)

    def _take_usage(self, chunk: dict[str, Any]) -> None:
        if self._state is None:
            self._state = StreamState()
        self.usage = anthropic.stream_usage(self._state, chunk) or self.usage

    def _count(self, events: bytes) -> None:
        super()._count(events)
        if self._state is not None and self._state.partial and self.usage is not None:
            # If the stream breaks here, the answer is what came of it.
            self.usage["completion_tokens"] = max(
                self.usage["completion_tokens"], self.estimated_output_tokens
            )

    def _shown(self, kind: str, chunk: dict[str, Any], data: bytes) -> bytes | None:
        again = kind == "message_start" and self._state is not None
        self._take_usage(chunk)
        if kind == "message_stop":
            self.done = True
            return None
        delta = chunk.get("delta")
        if kind == "message_delta" and isinstance(delta, dict) and delta.get("stop_reason"):
            self.finished.add(0)
        # Relays send the start twice, on which SDKs raise.
        return None if again else written(kind, chunk, data)

    def _said(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        delta, block = chunk.get("delta"), chunk.get("content_block")
        found = delta if isinstance(delta, dict) else {}
        if isinstance(block, dict) and block.get("type") == "redacted_thinking":
            yield {"reasoning_content": ""}
        if isinstance(found.get("thinking"), str):
            yield {"reasoning_content": found["thinking"]}
        for name in ("text", "partial_json"):
            if isinstance(found.get(name), str):
                yield {"content": found[name]}

    def closing(self, last: dict[str, Any] | None, usage: dict[str, Any] | None) -> bytes:  # noqa: ARG002  # usage has been told
        """See StreamScanner."""
        return event("message_stop", {"type": "message_stop"})


_LIFECYCLE: Final = frozenset(
    f"response.{name}" for name in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
)


class ResponseScanner(NativeScanner):
    """A stream of OpenAI's Responses API. The response in it is made this gateway's."""

    __slots__ = ("_exchange", "_facts", "_final")
    content = re.compile(rb'"type"\s*:\s*"response\.(?:[a-z_]+\.delta|image_generation_call\.partial_image)"')
    reads = re.compile(
        rb'"type"\s*:\s*"(?:response\.(?:created|queued|in_progress|completed|incomplete|failed)|error)"|'
        + ERROR
    )

    def __init__(self, exchange: Exchange, facts: Facts) -> None:
        super().__init__(wants_usage=True)
        self._exchange = exchange
        self._facts = facts
        self._final: Object = {}

    def _fault(self, chunk: Any) -> dict[str, Any] | None:
        if not isinstance(chunk, dict):
            return fault_of(chunk)
        if chunk.get("type") == "response.failed":
            response = chunk.get("response")
            error = response.get("error") if isinstance(response, dict) else None
            return error if isinstance(error, dict) else {"message": "The response failed."}
        if str(chunk.get("type")).startswith("response."):
            return None
        return fault_of(chunk)

    def _take_usage(self, chunk: dict[str, Any]) -> None:
        response = chunk.get("response")
        usage = response.get("usage") if isinstance(response, dict) else None
        if isinstance(usage, dict) and (usage.get("input_tokens") or usage.get("output_tokens")):
            self.usage = usage

    def _shown(self, kind: str, chunk: dict[str, Any], data: bytes) -> bytes | None:
        if kind not in _LIFECYCLE:
            return written(kind, chunk, data)
        response = chunk.get("response")
        if not isinstance(response, dict):
            self._fail({"message": "The provider sent an event without its response."})
            return None
        self._take_usage(chunk)
        own(response, self._exchange, self._facts)
        if kind in ("response.completed", "response.incomplete"):
            self._final = chunk
            self.finished.add(0)
            self.done = True
            return None
        return event(kind, chunk)

    def _said(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        delta = chunk.get("delta")
        if isinstance(delta, str):
            thought = str(chunk.get("type")).startswith("response.reasoning_")
            yield {"reasoning_content" if thought else "content": delta}

    def closing(self, last: dict[str, Any] | None, usage: dict[str, Any] | None) -> bytes:  # noqa: ARG002  # usage has its place
        """See StreamScanner."""
        return event(self._final["type"], self._final) + DONE


def written(kind: str, chunk: Object, data: bytes) -> bytes:
    if b"\n" in data:
        return event(kind, chunk)
    return b"event: " + kind.encode() + b"\ndata: " + data.strip() + b"\n\n"


def native_scanner(api: str, exchange: Exchange, facts: Facts) -> NativeScanner:
    """The scanner for a stream of ``api``."""
    return MessageScanner() if api == MESSAGES else ResponseScanner(exchange, facts)
