"""Server-sent events: pass a provider's stream on as bytes, reading only what the gateway must know.

Complete events are passed on together as they came. An event is decoded only if it may carry usage,
a finish reason or an error; what a client did not ask for (the usage chunk) is taken out. The streams of
providers whose dialect is not clean are read by ``gateway.v1.repairing``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import orjson

from billing.token_usage import TokenUsage, from_openai
from gateway.v1.errors import V1Error
from routing.dialects import fault_of

DONE: Final = b"data: [DONE]\n\n"
# An event may not be longer than this: a provider that never ends one must not fill the memory.
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
# So much of a stream's content is kept, to count its tokens where the provider does not.
MOST_KEPT_BYTES: Final = 1024 * 1024

# Inside a JSON string a quotation mark is escaped, so text of the model can never match these;
# a false match would only cost a decoding. One common first character makes the search fast.
_INTERESTING: Final = re.compile(
    rb'"(?:usage"\s*:\s*\{|finish_reason"\s*:\s*"|error"\s*:\s*[{"]|choices"\s*:\s*(?:\[\s*\]|null)'
    rb'|object"\s*:\s*"error")'
)
_BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_ERROR_NAME: Final = re.compile(rb"(?:^|[\r\n])event:[ ]?error[ \t]*(?:[\r\n]|$)")
_BOM: Final = b"\xef\xbb\xbf"
_LINE: Final = re.compile(rb"\r\n|\n|\r")
# A delta with something in it: text, reasoning, a refusal, a tool call.
_CONTENT: Final = re.compile(
    rb'"(?:(?:content|reasoning_content|reasoning|refusal)"\s*:\s*(?:"[^"]|\[)|tool_calls"\s*:\s*\[\s*\{|arguments"\s*:)'
)


class StreamScanner:
    """Reads one chat stream as it passes.

    ``feed`` takes the provider's bytes in any pieces and returns what the client gets: whole
    events only, so nothing depends on where the pieces were cut. After the last piece, ``complete``
    tells whether the provider finished its answer.
    """

    __slots__ = (
        "_tail",
        "bytes",
        "choices",
        "content_events",
        "done",
        "error",
        "finished",
        "kept",
        "overflow",
        "shortest",
        "usage",
        "wants_usage",
    )
    # What an event with content has in it, once for each piece.
    content: ClassVar[re.Pattern[bytes]] = _CONTENT

    def __init__(self, *, wants_usage: bool, choices: int = 1) -> None:
        self.wants_usage = wants_usage
        self.choices = choices
        self._tail = b""
        # The last usage object seen, as the provider sent it.
        self.usage: dict[str, Any] | None = None
        # Choices that have a finish reason.
        self.finished: set[int] = set()
        self.done = False
        # The provider's error event, if it sent one.
        self.error: dict[str, Any] | None = None
        self.overflow = False
        # For an estimate where usage never comes: events with content, their bytes, the shortest one.
        self.content_events = 0
        self.bytes = 0
        self.shortest = 1 << 30
        # Events with content, as the client got them, up to MOST_KEPT_BYTES.
        self.kept: list[bytes] = []

    @property
    def complete(self) -> bool:
        """Whether every choice came to its end. ``[DONE]`` alone proves nothing."""
        return self.error is None and len(self.finished) >= self.choices

    @property
    def estimated_output_tokens(self) -> int:
        """Output tokens so far, where the provider reports none: at least one an event, and more if
        events carry more text than the shortest of them."""
        if not self.content_events:
            return 0
        text = self.bytes - self.content_events * self.shortest
        return max(self.content_events, text // 4)

    def has_content(self, events: bytes) -> bool:
        """Whether any event, as the client gets it, carries text, reasoning, a refusal or a tool call."""
        return self.content.search(events) is not None

    def used(self) -> TokenUsage | None:
        """What the provider reported to have used so far; None: nothing yet."""
        return from_openai(self.usage) if self.usage else None

    def deltas(self) -> Iterator[dict[str, Any]]:
        """What was kept of the content, as messages of a chat in pieces."""
        for events in self.kept:
            for chunk in chunks(events):
                yield from messages_of(chunk, "delta")

    def feed(self, piece: bytes) -> bytes:
        """The events that ``piece`` completes, as the client gets them."""
        data = self._tail + piece if self._tail else piece
        cut = _last_boundary(data)
        if cut == 0:
            self._tail = data
            self.overflow = len(data) > MAX_EVENT_BYTES
            return b""
        self._tail = data[cut:]
        events = data if cut == len(data) else data[:cut]
        if self.done:
            return b""
        if self._passes(events):
            self._count(events)
            return events
        return self._sift(events)

    def _passes(self, events: bytes) -> bool:
        """Whether the events go to the client as they came, undecoded."""
        return _looks_whole(events) and _INTERESTING.search(events) is None

    def _count(self, events: bytes) -> None:
        found = len(self.content.findall(events))
        if found:
            if self.bytes < MOST_KEPT_BYTES:
                self.kept.append(events)
            self.content_events += found
            self.bytes += len(events)
            size = len(events) // found
            self.shortest = min(self.shortest, size)

    def _sift(self, events: bytes) -> bytes:
        kept: list[bytes] = []
        for event in _split(events):
            if self.done:
                break
            passed = self._read(event)
            if passed is not None:
                kept.append(passed)
        return b"".join(kept)

    def finish(self) -> bytes:
        """What is left when the provider's bytes end: an event whose last blank line never came."""
        return self.feed(b"\n\n") if self._tail.strip() else b""

    def _read(self, event: bytes) -> bytes | None:
        """Look into one event; returns it as the client gets it, or None to keep it back."""
        event = event.removeprefix(_BOM)
        data = _data(event)
        if data is None:
            return self._without_data(event.strip())
        if data.strip() == b"[DONE]":
            self.done = True
            return self._at_done()
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._fail({"message": "The provider sent an event that is not JSON."})
            return None
        error = self._fault(chunk)
        if error is None and _ERROR_NAME.search(event):
            error = chunk if isinstance(chunk, dict) else {"message": str(chunk)}
        if error is not None:
            if isinstance(chunk, dict):
                self._take_usage(chunk)
            self._fail(error)
            return None
        return self._chunk(chunk, event, data) if isinstance(chunk, dict) else None

    def _without_data(self, event: bytes) -> bytes | None:
        if event.startswith((b"{", b"[")):
            # No stream at all but a JSON document, whatever the content type said.
            try:
                error = fault_of(orjson.loads(event))
            except orjson.JSONDecodeError:
                error = None
            self._fail(error or {"message": "The provider did not send a stream."})
            return None
        # Fields without data (event:, id:, retry:) crash SDKs; comments are harmless.
        return b": keep-alive\n\n" if event.startswith(b":") else None

    def _fault(self, chunk: Any) -> dict[str, Any] | None:
        """The error that an event's data reports; None if it is none."""
        return fault_of(chunk)

    def _fail(self, error: dict[str, Any]) -> None:
        self.error = error
        self.done = True

    def _at_done(self) -> bytes | None:
        """What is still due to the client when ``[DONE]`` came."""
        return None

    def _take_usage(self, chunk: dict[str, Any]) -> None:
        """Keep the usage that a chunk carries: the last one counts, and zeros are a placeholder."""
        usage = chunk.get("usage")
        if isinstance(usage, dict) and (usage.get("prompt_tokens") or usage.get("completion_tokens")):
            self.usage = usage

    def _chunk(self, chunk: dict[str, Any], event: bytes, data: bytes) -> bytes | None:
        choices = chunk.get("choices")
        usage = chunk.get("usage")
        self._take_usage(chunk)
        if not choices or not isinstance(choices, list):
            # The usage chunk is given at the very end, once, and only to a client that asked.
            return None
        for choice in choices:
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self.finished.add(choice.get("index") or 0)
        self._count(event)
        if isinstance(usage, dict):
            chunk["usage"] = None
            return b"data: " + orjson.dumps(chunk) + b"\n\n"
        if b"\n" in data:
            # Several data lines make one JSON text, and not every SDK joins them.
            return b"data: " + orjson.dumps(chunk) + b"\n\n"
        # Only the data line: an `event:`, `id:` or `retry:` line beside it would trip an SDK.
        return b"data: " + data + b"\n\n"

    def closing(self, last: dict[str, Any] | None, usage: dict[str, Any] | None) -> bytes:
        """What ends a complete stream: the usage chunk, if the client asked, and ``[DONE]``.

        ``last`` gives the identity (id, created, model) of the stream's chunks.
        """
        if not self.wants_usage:
            return DONE
        chunk = {
            **{name: value for name, value in (last or {}).items() if name in IDENTITY},
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage,
        }
        return b"data: " + orjson.dumps(chunk) + b"\n\n" + DONE


# What the chunks of one stream have in common.
IDENTITY: Final = frozenset({"id", "created", "model", "system_fingerprint", "service_tier"})


def chunks(events: bytes) -> Iterator[dict[str, Any]]:
    """The chunks that ``events`` carry, decoded."""
    for event in _split(events):
        data = _data(event)
        if data is not None and data.lstrip().startswith(b"{"):
            try:
                chunk = orjson.loads(data)
            except orjson.JSONDecodeError:
                continue
            if isinstance(chunk, dict):
                yield chunk


def identity(events: bytes) -> dict[str, Any] | None:
    """The first chunk among ``events``, decoded; None if there is none yet."""
    return next((chunk for chunk in chunks(events) if chunk.get("id")), None)


def messages_of(chunk: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The messages of an answer's choices (``message``), or of a stream's chunk (``delta``)."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get(name) if isinstance(choice, dict) else None
        if isinstance(message, dict):
            yield message


def error_event(error: V1Error) -> bytes:
    """An error in mid-stream, in the shape the SDKs raise on. Nothing follows it, above all no [DONE]."""
    return b"data: " + error.body() + b"\n\n"


def _looks_whole(events: bytes) -> bool:
    """Whether every event is one line of data that ends like a JSON object. If not, each is decoded."""
    count = events.count(b"\n\n")
    return (
        events.startswith(b"data:")
        and events.count(b"\n\ndata:") == count - 1
        and events.count(b"}\n\n") == count
        and events.count(b"\n") == 2 * count
        and b"\r" not in events
    )


def _last_boundary(data: bytes) -> int:
    """Where the last complete event ends; 0 if none does."""
    cut = data.rfind(b"\n\n")
    end = cut + 2 if cut >= 0 else 0
    if b"\r" in data:
        for ending in (b"\r\n\r\n", b"\r\r"):
            cut = data.rfind(ending)
            if cut >= 0:
                end = max(end, cut + len(ending))
    return end


def _split(events: bytes) -> list[bytes]:
    """Complete events, each with the blank line that ends it."""
    found = []
    start = 0
    for match in _BOUNDARY.finditer(events):
        if match.start() > start:
            found.append(events[start : match.end()])
        start = match.end()
    return found


def _data(event: bytes) -> bytes | None:
    """The data of one event, its lines joined as the SSE standard says; None if it has none."""
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in _LINE.split(event)
        if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None
