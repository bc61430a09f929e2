"""Repairing the chunks of a chat stream, so that they are as OpenAI would have sent them.

One repair for every provider that is not OpenAI: the same faults turn up behind different names, above
all behind those who pass other providers on.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, Final

from routing.dialects import reasoning
from routing.dialects.finish import FailedFinish, openai_reason
from routing.dialects.think_tags import ThinkTags
from routing.dialects.tool_calls import ToolCalls

# Members of a delta that SDKs would join into nonsense, piece by piece, and that say nothing.
_NOISE: Final = frozenset({"name", "audio_content", "token_id", "channel", "index"})
# Members of a chunk that are the provider's own business, or are given elsewhere.
_INTERNAL: Final = frozenset({"x_groq", "base_resp", "usage", "error"})
_TEXTS: Final = ("content", "reasoning_content", "refusal")
_ERROR_LIKE: Final = ("code", "status", "type")


class StreamFault(Exception):
    """The provider reports an error inside its stream; ``error`` is what it says, as an object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__("error event")
        self.error = error


@dataclass(slots=True)
class ChoiceState:
    """What is known of one choice of a stream."""

    tools: ToolCalls
    started: bool = False
    # Something other than the role came.
    spoke: bool = False
    finished: bool = False
    # The last finish reason was an empty string.
    blank: bool = False
    tags: ThinkTags = field(default_factory=ThinkTags)


@dataclass(slots=True)
class StreamState:
    """What is known of one stream. ``id`` and ``model`` stand in where the provider gives none."""

    id: str = field(default_factory=lambda: "chatcmpl-" + os.urandom(12).hex())
    model: str = ""
    created: int = 0
    named: bool = False
    choices: dict[int, ChoiceState] = field(default_factory=dict)
    # Of a native API: its content blocks by index, as (kind, number within the kind), and its counts.
    blocks: dict[int, tuple[str, int]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    # Thinking may stand in the text, between tags.
    leaks: bool = False
    # The usage told so far does not count the answer yet.
    partial: bool = False

    def choice(self, index: int) -> ChoiceState:
        """The state of a choice, made when it is first met."""
        found = self.choices.get(index)
        if found is None:
            found = self.choices[index] = ChoiceState(ToolCalls(f"{self.id}:{index}"))
        return found


def fault_of(chunk: Any) -> dict[str, Any] | None:
    """The error that an event's data reports, as an object; None if it is no error."""
    if isinstance(chunk, list):
        return fault_of(chunk[0]) if chunk else None
    if not isinstance(chunk, dict):
        return None
    error = chunk.get("error")
    if error:
        if isinstance(error, dict):
            return error
        return {"message": str(error), "code": chunk.get("code")}
    base = chunk.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return {"message": str(base.get("status_msg") or ""), "code": f"({base['status_code']})"}
    if chunk.get("choices") or chunk.get("data") is not None:
        return None
    flat = chunk.get("object") == "error" or chunk.get("type") == "error"
    if flat or (
        ("message" in chunk or "detail" in chunk)
        and any(chunk.get(name) for name in (*_ERROR_LIKE, "detail"))
    ):
        return chunk
    return None


def repair(state: StreamState, chunk: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks that a client gets for one of the provider's; none for one that says nothing to it.

    Raises StreamFault where the finish reason is a failure.
    """
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return []
    _identify(state, chunk)
    base = {name: value for name, value in chunk.items() if name not in _INTERNAL}
    base |= {
        "id": state.id,
        "object": "chat.completion.chunk",
        "created": state.created,
        "model": state.model,
    }
    repaired: list[dict[str, Any]] = []
    for position, choice in enumerate(choices):
        if isinstance(choice, dict):
            repaired += [{**base, "choices": [one]} for one in _choice(state, choice, position)]
    # Once a client has seen the identity, it stays.
    state.named |= bool(repaired)
    return repaired


def close(state: StreamState) -> list[dict[str, Any]]:
    """Chunks that end the choices which the provider ended with an empty finish reason, after ``[DONE]``.

    Only choices that called tools: elsewhere an empty reason is no proof of a whole answer.
    """
    ended = []
    for index, choice in state.choices.items():
        if choice.blank and not choice.finished and choice.tools.calls:
            ended += _finish(choice, index, {}, "tool_calls")
    base = {"id": state.id, "object": "chat.completion.chunk", "created": state.created, "model": state.model}
    return [{**base, "choices": [one]} for one in ended]


def _identify(state: StreamState, chunk: dict[str, Any]) -> None:
    """Keep the first identity that the provider gives: it is one and the same in the whole stream."""
    if state.named:
        return
    given = chunk.get("id")
    if isinstance(given, str) and given:
        state.id = given
    model = chunk.get("model")
    if isinstance(model, str) and model:
        state.model = model
    created = chunk.get("created")
    if isinstance(created, int) and created > 0:
        state.created = created
    elif not state.created:
        state.created = int(time.time())


def _choice(state: StreamState, choice: dict[str, Any], position: int) -> list[dict[str, Any]]:
    index = choice.get("index")
    index = index if isinstance(index, int) else position
    known = state.choice(index)
    delta = _delta(choice, known)
    word = choice.get("finish_reason")
    known.blank = word == ""
    try:
        reason = openai_reason(word)
    except FailedFinish as failure:
        raise StreamFault({"message": f"The answer ended with: {failure}", "code": str(failure)}) from None
    if known.finished:
        reason = None
    if state.leaks:
        _take_out_thinking(delta, known.tags, ended=reason is not None)
    spoke = any(value not in (None, "", []) for name, value in delta.items() if name != "role")
    rest = {name: value for name, value in choice.items() if name not in _CHOICE_OWN}
    if reason is not None and word != reason:
        rest.setdefault("native_finish_reason", word)
    if not spoke and reason is None and (known.started or not delta):
        return []
    if not known.started:
        delta = {"role": "assistant", **delta}
        delta.setdefault("content", "" if not spoke else None)
        if delta["content"] is None and spoke and not delta.get("tool_calls"):
            del delta["content"]
        known.started = True
    known.spoke |= spoke
    if reason is None:
        return [{**rest, "index": index, "delta": delta, "finish_reason": None}]
    return _finish(known, index, delta, reason, rest)


def _take_out_thinking(delta: dict[str, Any], tags: ThinkTags, *, ended: bool) -> None:
    """Move what stands between think tags from a delta's text to its ``reasoning_content``."""
    given = delta.get("content")
    content, thinking = tags.split(given) if given else ("", "")
    if ended:
        held, thought = tags.end()
        content, thinking = content + held, thinking + thought
    if content or given:
        delta["content"] = content
    if thinking:
        delta["reasoning_content"] = delta.get("reasoning_content", "") + thinking
        if not content:
            delta.pop("content", None)


_CHOICE_OWN: Final = frozenset({"index", "delta", "message", "text", "usage", "finish_reason"})


def _finish(
    known: ChoiceState, index: int, delta: dict[str, Any], reason: str, rest: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The last chunk of a choice, and before it what its tool calls still lack."""
    ended = []
    if delta.get("tool_calls"):
        # The calls of this very delta may lack arguments too, so it goes first.
        ended.append({"index": index, "delta": delta, "finish_reason": None})
        delta = {}
    missing = known.tools.fill()
    if missing:
        ended.append({"index": index, "delta": {"tool_calls": missing}, "finish_reason": None})
    known.finished = True
    return [*ended, {**(rest or {}), "index": index, "delta": delta, "finish_reason": reason}]


def _delta(choice: dict[str, Any], known: ChoiceState) -> dict[str, Any]:
    given = choice.get("delta")
    if not isinstance(given, dict):
        # A whole message in a stream: either all there is, or a repetition of what came before.
        given = choice.get("message")
        if not isinstance(given, dict) or known.spoke:
            return {}
    delta = {name: value for name, value in given.items() if name not in _NOISE and name != "role"}
    reasoning.unify(delta)
    for name in _TEXTS:
        if not isinstance(delta.get(name), str | None):
            del delta[name]
    details = delta.get("reasoning_details")
    if isinstance(details, list):
        reasoning.number(details)
    pieces = delta.pop("tool_calls", None)
    if isinstance(pieces, list):
        repaired = known.tools.repair(pieces)
        if repaired:
            delta["tool_calls"] = repaired
    role = given.get("role")
    if role and not known.started:
        return {"role": "assistant", **{n: v for n, v in delta.items() if v is not None or n == "content"}}
    return {name: value for name, value in delta.items() if value is not None}
