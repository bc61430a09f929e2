"""Streams that are not as OpenAI would send them: decoded, repaired by the provider's dialect, written anew."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.v1.answers import usage_shown
from gateway.v1.stream import StreamScanner
from routing.dialects import Dialect, StreamFault, StreamState


class RepairingScanner(StreamScanner):
    """Reads one chat stream and repairs every chunk. ``model`` stands in where the provider names none."""

    __slots__ = ("_speaks", "_state")

    def __init__(
        self,
        speaks: Dialect,
        *,
        wants_usage: bool,
        choices: int = 1,
        model: str = "",
        state: StreamState | None = None,
    ) -> None:
        super().__init__(wants_usage=wants_usage, choices=choices)
        self._speaks = speaks
        self._state = state or StreamState(model=model)

    def _passes(self, events: bytes) -> bool:  # noqa: ARG002  # nothing passes undecoded
        return False

    def _chunk(self, chunk: dict[str, Any], event: bytes, data: bytes) -> bytes | None:  # noqa: ARG002  # the chunk says it all
        self._take_usage(chunk)
        try:
            repaired = self._speaks.repair_chunk(self._state, chunk)
        except StreamFault as fault:
            self._fail(fault.error)
            return None
        self.done = self._speaks.ends(chunk)
        written = self._written(repaired)
        if self._state.partial and self.usage is not None:
            # The prompt is counted, the answer not yet: if the stream breaks here, it is estimated.
            self.usage["completion_tokens"] = max(
                self.usage["completion_tokens"], self.estimated_output_tokens
            )
        return written

    def _fault(self, chunk: Any) -> dict[str, Any] | None:
        return self._speaks.fault(chunk)

    def _take_usage(self, chunk: dict[str, Any]) -> None:
        self.usage = self._speaks.stream_usage(self._state, chunk) or self.usage

    def _at_done(self) -> bytes | None:
        return self._written(self._speaks.end_stream(self._state))

    def _written(self, chunks: list[dict[str, Any]]) -> bytes | None:
        written = []
        for chunk in chunks:
            for choice in chunk["choices"]:
                if choice["finish_reason"]:
                    self.finished.add(choice["index"])
            if self.wants_usage:
                chunk["usage"] = None
            event = b"data: " + orjson.dumps(chunk) + b"\n\n"
            self._count(event)
            written.append(event)
        return b"".join(written) or None

    def closing(self, last: dict[str, Any] | None, usage: dict[str, Any] | None) -> bytes:
        """See StreamScanner. The usage is given in OpenAI's members and meaning."""
        return super().closing(last, None if usage is None else usage_shown(usage))


def scanner_for(speaks: Dialect, *, wants_usage: bool, choices: int = 1, model: str = "") -> StreamScanner:
    """The scanner that a provider's stream needs."""
    if speaks.clean:
        return StreamScanner(wants_usage=wants_usage, choices=choices)
    return RepairingScanner(speaks, wants_usage=wants_usage, choices=choices, model=model)
