"""Shows a chat answer as a message of Anthropic's Messages API, whole or as its events."""

from __future__ import annotations

from typing import Any, Final

import orjson

from billing.token_usage import TokenUsage
from gateway.v1.facts import Facts
from gateway.v1.translation import thoughts
from gateway.v1.translation.blocks import CALL, REFUSAL, THINKING, Block, Blocks, Step
from gateway.v1.translation.chat import event, first_choice, usage_of
from gateway.v1.translation.shape import Object

_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class Message:
    """One message."""

    def __init__(self, facts: Facts, request_id: str) -> None:
        self._facts = facts
        self._asked = facts.asked or {}
        self._id = f"msg_{request_id.removeprefix('req_')}"
        self._blocks = Blocks(sealed=True)
        self._finish: str | None = None
        # The stop sequence that ended it, where the provider tells.
        self._stopped_by: str | None = None
        self._usage: TokenUsage | None = None
        self._begun = False

    def plain(self, answer: Object) -> Object:
        """See Shape."""
        choice = first_choice(answer) or {}
        self._blocks.feed(choice.get("message") or {})
        self._blocks.finish()
        self._end(choice)
        usage = usage_of(answer, self._facts, self._written())
        reason, sequence = self._reason()
        content = [_whole(block) for block in self._blocks.all]
        return self._message(answer, content, usage) | {"stop_reason": reason, "stop_sequence": sequence}

    def chunk(self, chunk: Object) -> bytes:
        """See Shape."""
        begun = self._begin(chunk)
        choice = first_choice(chunk)
        if choice is None:
            if isinstance(chunk.get("usage"), dict):
                self._usage = usage_of(chunk, self._facts, self._written())
            return begun
        steps = self._blocks.feed(choice.get("delta") or {})
        self._end(choice)
        return begun + b"".join(map(_step, steps))

    def final(self) -> Object | None:
        """See Shape."""
        return None

    def done(self) -> bytes:
        """See Shape."""
        closed = b"".join(map(_step, self._blocks.finish()))
        reason, sequence = self._reason()
        usage = self._usage or usage_of({}, self._facts, self._written())
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        ended = {"type": "message_delta", "delta": delta, "usage": _usage(usage)}
        return closed + event("message_delta", ended) + event("message_stop", {"type": "message_stop"})

    def begun(self, sequence: int) -> None:  # noqa: ARG002  # events have no numbers
        """See Shape."""
        self._begun = True

    def failed(self, error: Object) -> bytes:
        """See Shape."""
        kind = "overloaded_error" if error.get("code") == "provider_overloaded" else "api_error"
        inner = {"type": kind, "message": error.get("message") or ""}
        return self._begin({}) + event("error", {"type": "error", "error": inner})

    def _begin(self, chunk: Object) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        # What is not known yet is an estimate; the last event says how it was.
        usage = usage_of({}, self._facts, 0)
        message = self._message(chunk, [], usage) | {"stop_reason": None, "stop_sequence": None}
        return event("message_start", {"type": "message_start", "message": message}) + event(
            "ping", {"type": "ping"}
        )

    def _message(self, answer: Object, content: list[Object], usage: TokenUsage) -> Object:
        model = answer.get("model")
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": model if isinstance(model, str) and model else self._facts.model,
            "content": content,
            "stop_details": None,
            "container": None,
            "usage": {**_usage(usage), "cache_creation": None, "inference_geo": None, "service_tier": None},
        }

    def _end(self, choice: Object) -> None:
        self._finish = choice.get("finish_reason") or self._finish
        stopped = choice.get("stop_reason")
        if isinstance(stopped, str) and stopped in (self._asked.get("stop_sequences") or ()):
            self._stopped_by = stopped

    def _reason(self) -> tuple[str, str | None]:
        kinds = {block.kind for block in self._blocks.all}
        if self._stopped_by is not None:
            return "stop_sequence", self._stopped_by
        if self._finish in (None, "stop") and CALL in kinds:
            # So OpenAI ends a call of the tool that the client named.
            return "tool_use", None
        if self._finish == "stop" and REFUSAL in kinds:
            return "refusal", None
        return _REASONS.get(self._finish or "", "end_turn"), None

    def _written(self) -> int:
        return sum(len(piece) for block in self._blocks.all for piece in block.pieces)


def _step(step: Step) -> bytes:
    index, kind = step.block.index, step.block.kind
    if step.what == "open":
        shown = {"type": "content_block_start", "index": index, "content_block": _empty(step.block)}
        return event("content_block_start", shown)
    if step.what == "close":
        closed = event("content_block_stop", {"type": "content_block_stop", "index": index})
        signature = (
            "" if kind != THINKING or _unreadable(step.block) else thoughts.signature_of(step.block.details)
        )
        if not signature:
            return closed
        signed = {"type": "signature_delta", "signature": signature}
        return (
            event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": signed})
            + closed
        )
    if kind == CALL:
        delta = {"type": "input_json_delta", "partial_json": step.text}
    elif kind == THINKING:
        delta = {"type": "thinking_delta", "thinking": step.text}
    else:
        delta = {"type": "text_delta", "text": step.text}
    return event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})


def _unreadable(block: Block) -> bool:
    """Whether it is thinking that the provider encrypted, or nothing but what it wants back."""
    details = block.details
    sealed = bool(details) and details[0].get("type") in (thoughts.ENCRYPTED, thoughts.CALL)
    return sealed and not block.pieces


def _empty(block: Block) -> Object:
    """A block as it opens."""
    if block.kind == CALL:
        return {
            "type": "tool_use",
            "id": block.id,
            "name": block.name,
            "input": {},
            "caller": {"type": "direct"},
        }
    if _unreadable(block):
        return {"type": "redacted_thinking", "data": thoughts.data_of(block.details)}
    if block.kind == THINKING:
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": "", "citations": None}


def _whole(block: Block) -> Object:
    shown = _empty(block)
    if block.kind == CALL:
        shown["input"] = _arguments(block.text)
    elif block.kind == THINKING and not _unreadable(block):
        shown |= {"thinking": block.text, "signature": thoughts.signature_of(block.details)}
    elif block.kind != THINKING:
        shown["text"] = block.text
    return shown


def _arguments(text: str) -> dict[str, Any]:
    """A call's arguments as an object; what a model wrote that is none stands under one name, unlost."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = text
    return found if isinstance(found, dict) else {"invalid_arguments": found}


def _usage(usage: TokenUsage) -> Object:
    """In Anthropic's meaning: the three classes of input are disjoint."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached_input,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "server_tool_use": None,
    }
