"""Shows a chat answer as a response of OpenAI's Responses API, whole or as its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from billing.token_usage import TokenUsage
from gateway.v1.facts import Facts
from gateway.v1.translation import thoughts
from gateway.v1.translation.blocks import CALL, REFUSAL, TEXT, THINKING, Block, Blocks, Step
from gateway.v1.translation.chat import event, first_choice, usage_of
from gateway.v1.translation.response_requests import ENCRYPTED_CONTENT
from gateway.v1.translation.shape import Object

# Which finish reasons leave a response incomplete, and what that is called.
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Response:
    """One response. Its id is made of the request's, so that the one leads to the other."""

    def __init__(self, facts: Facts, request_id: str) -> None:
        self._facts = facts
        self._asked = facts.asked or {}
        self._seed = request_id.removeprefix("req_")
        self._created = int(time.time())
        self._model = facts.model
        self._tier: str | None = None
        # What became of the blocks. Text and refusals next to each other are one message.
        self._output: list[Object] = []
        self._finish: str | None = None
        self._usage: TokenUsage | None = None
        self._sequence = 0
        self._final: Object | None = None
        reasoning = self._asked.get("reasoning")
        reasoning = reasoning if isinstance(reasoning, dict) else {}
        # A kept response needs it for the next one.
        self._encrypted = facts.kept or ENCRYPTED_CONTENT in (self._asked.get("include") or ())
        self._blocks = Blocks(sealed=self._encrypted)
        # Thinking is shown as a summary to who asked for one, and else as the text that it is.
        self._summarized = bool(reasoning.get("summary") or reasoning.get("generate_summary"))

    # --- whole ---------------------------------------------------------------------------------

    def plain(self, answer: Object) -> Object:
        """See Shape."""
        self._identify(answer)
        choice = first_choice(answer) or {}
        steps = self._blocks.feed(choice.get("message") or {}, choice.get("logprobs"))
        self._finish = choice.get("finish_reason")
        for step in [*steps, *self._blocks.finish()]:
            self._step(step)
        self._never_empty()
        self._usage = usage_of(answer, self._facts, self._written())
        return self._ended()

    # --- streamed ------------------------------------------------------------------------------

    def chunk(self, chunk: Object) -> bytes:
        """See Shape."""
        begun = self._begin(chunk)
        choice = first_choice(chunk)
        if choice is None:
            if isinstance(chunk.get("usage"), dict):
                self._usage = usage_of(chunk, self._facts, self._written())
            return begun
        steps = self._blocks.feed(choice.get("delta") or {}, choice.get("logprobs"))
        self._finish = choice.get("finish_reason") or self._finish
        return begun + b"".join(map(self._step, steps))

    def final(self) -> Object | None:
        """See Shape."""
        self._late = b"".join(map(self._step, self._blocks.finish())) + self._never_empty()
        self._usage = self._usage or usage_of({}, self._facts, self._written())
        self._final = self._ended()
        return self._final

    def done(self) -> bytes:
        """See Shape."""
        final = self._final or self.final()
        assert final is not None  # noqa: S101  # final() gives it
        return self._late + self._event(f"response.{final['status']}", response=final) + b"data: [DONE]\n\n"

    def begun(self, sequence: int) -> None:
        """See Shape."""
        self._sequence = sequence

    def failed(self, error: Object) -> bytes:
        """See Shape. The error event holds the error both flat, as the API describes it, and inside, as
        the Python SDK raises on it."""
        shown = {name: error.get(name) for name in ("code", "message", "param")}
        failed = self._object("failed")
        failed["error"] = {"code": "server_error", "message": error.get("message") or ""}
        return (
            self._begin({})
            + self._event("response.failed", response=failed)
            + self._event("error", **shown, error=error)
        )

    _late = b""

    def _event(self, kind: str, /, **members: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return event(kind, data)

    def _begin(self, chunk: Object) -> bytes:
        if self._sequence:
            return b""
        self._identify(chunk)
        begun = self._object("in_progress")
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def _identify(self, answer: Object) -> None:
        model, tier = answer.get("model"), answer.get("service_tier")
        self._model = model if isinstance(model, str) and model else self._model
        self._tier = tier if isinstance(tier, str) else None

    # --- blocks --------------------------------------------------------------------------------

    def _step(self, step: Step) -> bytes:
        show: Callable[[Step], bytes] = {
            THINKING: self._thinking,
            TEXT: self._said,
            REFUSAL: self._said,
            CALL: self._called,
        }[step.block.kind]
        return show(step)

    def _never_empty(self) -> bytes:
        """An answer without anything is a message without text."""
        if self._output:
            return b""
        block = Block(0, TEXT)
        return self._said(Step("open", block)) + self._said(Step("close", block))

    def _added(self, item: Object) -> bytes:
        self._output.append(item)
        index = len(self._output) - 1
        return self._event("response.output_item.added", output_index=index, item=item)

    def _done(self, item: Object, status: str) -> bytes:
        item["status"] = status
        return self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _where(self) -> Object:
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._seed}{len(self._output):04d}"

    def _called(self, step: Step) -> bytes:
        block = step.block
        name = "response.function_call_arguments"
        if step.what == "open":
            return self._added(
                {
                    "id": self._id("fc"),
                    "type": "function_call",
                    "status": "in_progress",
                    "call_id": block.id,
                    "name": block.name,
                    "arguments": "",
                }
            )
        item = self._output[-1]
        if step.what == "delta":
            return self._event(f"{name}.delta", **self._where(), delta=step.text)
        item["arguments"] = block.text
        done = self._event(f"{name}.done", **self._where(), name=block.name, arguments=block.text)
        return done + self._done(item, self._status())

    def _thinking(self, step: Step) -> bytes:
        if step.what == "open":
            item: Object = {"id": self._id("rs"), "type": "reasoning", "status": "in_progress", "summary": []}
            opened = self._added(item)
            if self._summarized:
                opened += self._event(
                    "response.reasoning_summary_part.added",
                    **self._where(),
                    summary_index=0,
                    part={"type": "summary_text", "text": ""},
                )
            else:
                part = {"type": "reasoning_text", "text": ""}
                opened += self._event(
                    "response.content_part.added", **self._where(), content_index=0, part=part
                )
            return opened
        kind = "reasoning_summary_text" if self._summarized else "reasoning_text"
        place = {"summary_index" if self._summarized else "content_index": 0}
        if step.what == "delta":
            return self._event(f"response.{kind}.delta", **self._where(), **place, delta=step.text)
        text = step.block.text
        if self._encrypted and step.block.details:
            self._output[-1]["encrypted_content"] = thoughts.packed(step.block.details)
        closed = self._event(f"response.{kind}.done", **self._where(), **place, text=text)
        item = self._output[-1]
        if self._summarized:
            part = {"type": "summary_text", "text": text}
            item["summary"] = [part]
            closed += self._event("response.reasoning_summary_part.done", **self._where(), **place, part=part)
        else:
            part = {"type": "reasoning_text", "text": text}
            item["content"] = [part]
            closed += self._event("response.content_part.done", **self._where(), **place, part=part)
        return closed + self._done(item, "completed")

    def _said(self, step: Step) -> bytes:
        """Text or a refusal, each a message of its own."""
        block = step.block
        name, member = (
            ("response.refusal", "refusal") if block.kind == REFUSAL else ("response.output_text", "text")
        )
        if step.what == "open":
            item: Object = {
                "id": self._id("msg"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            opened = self._added(item)
            return opened + self._event(
                "response.content_part.added", **self._where(), content_index=0, part=_part(block, "")
            )
        logprobs: Object = {} if block.kind == REFUSAL else {"logprobs": []}
        if step.what == "delta":
            return self._event(f"{name}.delta", **self._where(), content_index=0, delta=step.text, **logprobs)
        if logprobs:
            logprobs = {"logprobs": block.logprobs}
        part = _part(block, block.text)
        closed = self._event(
            f"{name}.done", **self._where(), content_index=0, **{member: block.text}, **logprobs
        ) + self._event("response.content_part.done", **self._where(), content_index=0, part=part)
        item = self._output[-1]
        item["content"] = [part]
        return closed + self._done(item, self._status())

    def _status(self) -> str:
        """Of an item that closes: only the last of an answer that was cut short is not whole."""
        return "incomplete" if self._finish in _INCOMPLETE else "completed"

    # --- the response --------------------------------------------------------------------------

    def _written(self) -> int:
        return sum(len(piece) for block in self._blocks.all for piece in block.pieces)

    def _ended(self) -> Object:
        reason = _INCOMPLETE.get(self._finish or "")
        ended = self._object("incomplete" if reason else "completed")
        ended["completed_at"] = None if reason else int(time.time())
        ended["incomplete_details"] = {"reason": reason} if reason else None
        ended["output"] = self._output
        ended["usage"] = None if self._usage is None else _usage(self._usage)
        return ended

    def _object(self, status: str) -> Object:
        """The response with what the client asked for; nullable members are all there."""
        asked = self._asked
        reasoning = asked.get("reasoning") or {}
        text = asked.get("text") or {}
        return {
            "id": f"resp_{self._seed}",
            "object": "response",
            "created_at": self._created,
            "completed_at": None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": asked.get("max_tool_calls"),
            "model": self._model,
            "output": [],
            "parallel_tool_calls": _or(asked, "parallel_tool_calls", True),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "previous_response_id": asked.get("previous_response_id"),
            "prompt_cache_key": asked.get("prompt_cache_key"),
            "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
            "safety_identifier": asked.get("safety_identifier"),
            "service_tier": self._tier or "default",
            "store": self._facts.kept,
            "temperature": _or(asked, "temperature", 1.0),
            "text": {"format": {"type": "text"}, **{k: v for k, v in text.items() if v is not None}},
            "tool_choice": _or(asked, "tool_choice", "auto"),
            "tools": [_tool(tool) for tool in asked.get("tools") or ()],
            "top_logprobs": _or(asked, "top_logprobs", 0),
            "top_p": _or(asked, "top_p", 1.0),
            "truncation": "disabled",
            "usage": None,
            "user": asked.get("user"),
            "metadata": asked.get("metadata") or {},
        }


def _or(asked: Object, name: str, default: object) -> object:
    value = asked.get(name)
    return default if value is None else value


def _tool(tool: Object) -> Object:
    return {"description": None, "parameters": None, "strict": None, **tool}


def _part(block: Block, text: str) -> Object:
    if block.kind == REFUSAL:
        return {"type": "refusal", "refusal": text}
    return {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": block.logprobs if text else [],
    }


def _usage(usage: TokenUsage) -> Object:
    """In OpenAI's meaning: the cached tokens are a part of the input, the reasoning of the output."""
    prompt = usage.input + usage.cached_input + usage.cache_write
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": prompt + usage.output,
    }
