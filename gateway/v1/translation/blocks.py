"""A chat answer as blocks, one behind the other: thinking, text, a refusal, calls of tools.

Both the Responses and the Messages API show an answer so. A chat stream may bring the pieces of several
tool calls mixed; blocks never overlap: a block that is not yet due waits, and loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.v1.translation import thoughts

THINKING: Final = "thinking"
TEXT: Final = "text"
REFUSAL: Final = "refusal"
CALL: Final = "call"

_decoder = json.JSONDecoder()
# Where a delta or a message carries text, and what kind of block that is.
_TEXTS: Final = (("content", TEXT), ("refusal", REFUSAL))


@dataclass(slots=True)
class Block:
    """One block. ``index`` counts from 0; ``id`` and ``name`` are a call's; ``pieces`` are its text or
    its arguments as they came; ``logprobs`` are OpenAI's, one a token, of text."""

    index: int
    kind: str
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    # Of thinking: what the provider wants back (``thoughts``).
    details: list[dict[str, Any]] = field(default_factory=list)
    # How many of the pieces were told.
    told: int = 0

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    @property
    def whole(self) -> bool:
        """Whether nothing can follow: a call's arguments are one JSON object. Other blocks are as whole
        as what comes next lets them be."""
        if self.kind != CALL:
            return True
        last = next((piece for piece in reversed(self.pieces) if piece.strip()), "")
        if not last.rstrip().endswith("}"):
            return False
        try:
            _decoder.raw_decode(self.text.lstrip())
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to a block: it opens, gets ``text``, or closes."""

    what: Literal["open", "delta", "close"]
    block: Block
    text: str = ""


class Blocks:
    """The blocks of one answer. ``feed`` it deltas, then ``finish``. ``sealed``: what came with a call has a
    block of thinking before it."""

    __slots__ = ("_calls", "_live", "_sealed", "all")

    def __init__(self, *, sealed: bool = False) -> None:
        self._sealed = sealed
        self.all: list[Block] = []
        self._calls: dict[int, Block] = {}
        # Which of them is open; those before it are closed, those behind it wait.
        self._live = -1

    def feed(self, delta: Mapping[str, Any], logprobs: object = None) -> list[Step]:
        """The steps for one delta of a chat stream, or for a whole message; ``logprobs`` is the choice's."""
        # Who sends both sends the same text twice.
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        details = delta.get("reasoning_details")
        entries = [entry for entry in details if isinstance(entry, dict)] if isinstance(details, list) else []
        if isinstance(thought, str) and thought and not any(map(thoughts.readable, entries)):
            self._add(THINKING, thought)
        for entry in entries:
            self._detail(entry)
        for name, kind in _TEXTS:
            text = delta.get(name)
            if isinstance(text, str) and text:
                block = self._add(kind, text)
                if kind == TEXT and isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
                    block.logprobs += logprobs["content"]
        calls = delta.get("tool_calls")
        for position, piece in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(piece, dict):
                self._call(piece, position)
        return list(self._advance())

    def finish(self) -> list[Step]:
        """The steps that are left when the answer is over. A call without arguments gets ``{}``."""
        for block in self.all:
            if block.kind == CALL and not block.text.strip():
                block.pieces.append("{}")
        return list(self._advance(over=True))

    def _add(self, kind: str, text: str) -> Block:
        last = self.all[-1] if self.all else None
        if last is None or last.kind != kind:
            last = self._new(kind)
        last.pieces.append(text)
        return last

    def _detail(self, entry: dict[str, Any]) -> None:
        """An entry of ``reasoning_details``: a block of its own, or more of the last one's."""
        last = self.all[-1] if self.all and self.all[-1].kind == THINKING else None
        known = last.details[-1] if last is not None and last.details else None
        if known is not None and (known.get("index"), known.get("type")) == (
            entry.get("index"),
            entry.get("type"),
        ):
            thoughts.merge(known, entry)
        else:
            if last is None or last.details:
                last = self._new(THINKING)
            last.details.append(dict(entry))
        assert last is not None  # noqa: S101  # found or made
        text = thoughts.readable(entry)
        if text:
            last.pieces.append(text)

    def _new(self, kind: str, call_id: str = "", name: str = "") -> Block:
        block = Block(len(self.all), kind, call_id, name)
        self.all.append(block)
        return block

    def _call(self, piece: Mapping[str, Any], position: int) -> None:
        index = piece.get("index")
        index = index if isinstance(index, int) else position
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        block = self._calls.get(index)
        if block is None:
            extra = thoughts.of_call(piece) if self._sealed else None
            if extra is not None:
                self._new(THINKING).details.append(extra)
            block = self._calls[index] = self._new(
                CALL, str(piece.get("id") or ""), str(function.get("name") or "")
            )
        elif not block.pieces and isinstance(function.get("name"), str):
            # A name may come in pieces, but not after arguments.
            block.name += function["name"]
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            block.pieces.append(arguments)

    def _advance(self, *, over: bool = False) -> Iterator[Step]:
        """Tell what is new of the open block; close it and open the next where one waits."""
        while True:
            if self._live >= 0:
                block = self.all[self._live]
                if block.told < len(block.pieces):
                    fresh = "".join(block.pieces[block.told :])
                    block.told = len(block.pieces)
                    yield Step("delta", block, fresh)
            following = self._live + 1 < len(self.all)
            if following and not over:
                coming = self.all[self._live + 1]
                # A call opens with its whole name, which is known when its arguments begin.
                following = coming.kind != CALL or bool(coming.pieces)
            if self._live >= 0:
                if not over and not (following and block.whole):
                    return
                yield Step("close", block)
            if not following:
                return
            self._live += 1
            yield Step("open", self.all[self._live])
