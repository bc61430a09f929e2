"""Streams beside chat: a picture that comes in stages, and a transcript as it is heard."""

from __future__ import annotations

import re
from typing import Any

import orjson

from billing.token_usage import TokenUsage
from gateway.v1.facts import Facts
from gateway.v1.images import pictures_used
from gateway.v1.native_streams import ERROR, NativeScanner, written
from gateway.v1.stream import DONE
from gateway.v1.transcriptions import heard
from gateway.v1.translation.chat import event
from routing.dialects import fault_of


class MediaScanner(NativeScanner):
    """Reads a stream of events whose last one, ``….completed`` or ``….done``, has the whole and its usage."""

    __slots__ = ("_facts", "_final", "_told")
    content = re.compile(rb'"type"\s*:\s*"[a-z_.]+\.(?:partial_image|completed|delta|segment)"')
    reads = re.compile(rb'"type"\s*:\s*"(?:[a-z_.]+\.(?:completed|done)|error)"|' + ERROR)

    def __init__(self, facts: Facts) -> None:
        super().__init__(wants_usage=True)
        self._facts = facts
        # The last event, and as it is written.
        self._final = b""
        self._told: dict[str, Any] = {}

    def used(self) -> TokenUsage | None:
        """See StreamScanner."""
        if not self.finished:
            return None
        if self._facts.endpoint.startswith("images."):
            return pictures_used(1, self.usage, self._facts)
        return heard(self._told, self._facts)

    def _fault(self, chunk: Any) -> dict[str, Any] | None:
        kind = chunk.get("type") if isinstance(chunk, dict) else None
        return None if isinstance(kind, str) and kind != "error" else fault_of(chunk)

    def _take_usage(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        self.usage = usage if isinstance(usage, dict) else self.usage

    def _count(self, events: bytes) -> None:
        """See StreamScanner. Nothing is estimated by its bytes."""

    def _shown(self, kind: str, chunk: dict[str, Any], data: bytes) -> bytes | None:
        shown = written(kind, chunk, data)
        if not kind.endswith((".completed", ".done")):
            return shown
        self._take_usage(chunk)
        self._told = chunk
        self.finished.add(0)
        self._final, self.done = shown, True
        return None

    def closing(self, last: dict[str, Any] | None, usage: dict[str, Any] | None) -> bytes:  # noqa: ARG002  # usage has its place
        """See StreamScanner."""
        return self._final + DONE


# What an answer says of its picture, as the last event of a stream does.
_OF_PICTURES = ("background", "output_format", "quality", "size", "usage")


def all_at_once(answer: bytes, endpoint: str) -> bytes:
    """A plain answer as a stream that has it whole, of a provider that does not know what a stream is."""
    try:
        told = orjson.loads(answer)
    except orjson.JSONDecodeError:
        told = None
    if not endpoint.startswith("images."):
        if not isinstance(told, dict):
            told = {"text": answer.decode("utf-8", "replace")}
        kind = "transcript.text.done"
        return event(kind, {"type": kind, **told}) + DONE
    assert isinstance(told, dict)  # noqa: S101  # read as such before
    kind = "image_generation.completed" if endpoint == "images.generations" else "image_edit.completed"
    about = {name: told[name] for name in _OF_PICTURES if name in told}
    return event(kind, {"type": kind, "created_at": told.get("created"), **about, **told["data"][0]}) + DONE
