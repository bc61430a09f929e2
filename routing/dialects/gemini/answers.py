"""Gemini's answers and streams, read as chat completions.

The signature of a thought comes with the part that it led to, and must come back with it: with a call as
``extra_content.google.thought_signature``, as Google's own compatible endpoint has it; with text in
``reasoning_details``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.dialects.chunks import StreamFault, StreamState

FORMAT: Final = "google-gemini-v1"


def completion(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A whole answer as a chat completion; what is none is left for the reader to refuse. Raises
    StreamFault for a prompt that was blocked."""
    candidates = _candidates(answer)
    if not candidates:
        return dict(answer)
    choices = []
    for position, candidate in enumerate(candidates):
        message, called = _message(candidate, 0)
        choices.append(
            {
                "index": position,
                "message": {"content": None, **message, "role": "assistant"},
                "logprobs": None,
                "finish_reason": _reason(candidate, called=called),
            }
        )
    made = {"id": answer.get("responseId"), "object": "chat.completion", "model": answer.get("modelVersion")}
    return {**made, "choices": choices, "usage": usage_of(_mapping(answer.get("usageMetadata")))}


def chunk_of(state: StreamState, event: Mapping[str, Any]) -> dict[str, Any]:
    """The chunk that an event makes. Raises StreamFault for a prompt that was blocked."""
    choices = []
    for position, candidate in enumerate(_candidates(event)):
        index = candidate.get("index")
        index = index if isinstance(index, int) else position
        _, seen = state.blocks.get(index, ("", 0))
        delta, called = _message(candidate, seen)
        state.blocks[index] = ("details", seen + len(delta.get("reasoning_details", ())))
        called = called or bool(state.choice(index).tools.calls)
        choices.append({"index": index, "delta": delta, "finish_reason": _reason(candidate, called=called)})
    return {"id": event.get("responseId"), "model": event.get("modelVersion"), "choices": choices}


def stream_usage(state: StreamState, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage of an event. Until one has a finish reason, it counts what came so far."""
    given = event.get("candidates")
    if any(isinstance(one, dict) and one.get("finishReason") for one in _list(given)):
        state.counts["ended"] = True
    usage = usage_of(_mapping(event.get("usageMetadata")))
    if usage is not None:
        state.partial = "ended" not in state.counts
    return usage


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any] | None:
    """Gemini's counts in OpenAI's members: there, thoughts stand beside the answer, and what tools of its own
    read beside the prompt; here, both within. None if it counts nothing."""
    prompt = _count(usage.get("promptTokenCount")) + _count(usage.get("toolUsePromptTokenCount"))
    thoughts = _count(usage.get("thoughtsTokenCount"))
    output = _count(usage.get("candidatesTokenCount")) + thoughts
    if not prompt + output:
        return None
    cached = min(_count(usage.get("cachedContentTokenCount")), prompt)
    asked, read, told = (
        usage.get(name) for name in ("promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails")
    )
    prompt_details, details = {"cached_tokens": cached}, {"reasoning_tokens": thoughts}
    for modality in ("AUDIO", "IMAGE"):
        member = f"{modality.lower()}_tokens"
        if heard := max(_of(asked, modality) - _of(read, modality), 0):
            prompt_details[member] = heard
        if made := _of(told, modality):
            details[member] = made
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": details,
    }


def _of(details: Any, modality: str) -> int:
    """The tokens of one modality in a list of ``{modality, tokenCount}``."""
    return sum(
        _count(each.get("tokenCount"))
        for each in _list(details)
        if isinstance(each, dict) and each.get("modality") == modality
    )


def embeddings(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Embeddings in OpenAI's shape."""
    given = answer.get("embeddings")
    if not isinstance(given, list):
        return dict(answer)
    data = [
        {"object": "embedding", "index": position, "embedding": _mapping(one).get("values")}
        for position, one in enumerate(given)
    ]
    usage = usage_of(_mapping(answer.get("usageMetadata")))
    return {"object": "list", "data": data} | ({} if usage is None else {"usage": usage})


def _candidates(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    candidates = [one for one in _list(answer.get("candidates")) if isinstance(one, dict)]
    blocked = _mapping(answer.get("promptFeedback")).get("blockReason")
    if blocked and not candidates:
        raise StreamFault({"message": "The prompt was blocked.", "code": "content_filter"})
    return candidates


def _message(candidate: Mapping[str, Any], seen: int) -> tuple[dict[str, Any], bool]:
    """What the parts of a candidate say, and whether any calls a tool. ``seen``: entries of
    ``reasoning_details`` that came before."""
    text: list[str] = []
    thought = ""
    calls: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for part in _list(_mapping(candidate.get("content")).get("parts")):
        if not isinstance(part, dict):
            continue
        signature = part.get("thoughtSignature")
        call = part.get("functionCall")
        if isinstance(call, dict):
            calls.append(_call(call, signature))
            continue
        said = part.get("text")
        if isinstance(said, str):
            if part.get("thought"):
                thought += said
            else:
                text.append(said)
        if signature:
            index = seen + len(details)
            details.append(
                {"type": "reasoning.encrypted", "data": signature, "format": FORMAT, "index": index}
            )
    message: dict[str, Any] = {}
    if text:
        message["content"] = "".join(text)
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    if details:
        message["reasoning_details"] = details
    return message, bool(calls)


def _call(call: Mapping[str, Any], signature: Any) -> dict[str, Any]:
    function = {"name": call.get("name"), "arguments": call.get("args") or {}}
    made = {"id": call.get("id"), "type": "function", "function": function}
    return {**made, "extra_content": {"google": {"thought_signature": signature}}} if signature else made


def _reason(candidate: Mapping[str, Any], *, called: bool) -> Any:
    """The finish reason: Gemini ends with ``STOP`` where it calls tools, too."""
    reason = candidate.get("finishReason")
    return "tool_calls" if reason == "STOP" and called else reason


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
