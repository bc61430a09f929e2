"""Anthropic's messages and streams of events, read as chat completions.

Thinking goes into ``reasoning_details`` with the signature that must come back on the next turn, in the
spelling that OpenRouter made known: ``reasoning.text`` with ``text`` and ``signature``, and
``reasoning.encrypted`` with ``data``. The text alone is in ``reasoning_content`` too, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from routing.dialects.chunks import StreamState

EVENTS: Final = frozenset(
    {
        *("message_start", "message_delta", "message_stop", "ping"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)
FORMAT: Final = "anthropic-claude-v1"


def completion(message: Mapping[str, Any]) -> dict[str, Any]:
    """A whole message as a chat completion; what is no message is left for the reader to refuse."""
    blocks = message.get("content")
    if not isinstance(blocks, list):
        return dict(message)
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for block in blocks:
        if not isinstance(block, dict):
            continue
        match block.get("type"):
            case "text":
                texts.append(str(block.get("text") or ""))
            case "tool_use":
                function = {"name": block.get("name"), "arguments": block.get("input")}
                calls.append({"id": block.get("id"), "type": "function", "function": function})
            case "thinking" | "redacted_thinking":
                details.append({**_thinking(block), "format": FORMAT, "index": len(details)})
    told: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    if calls:
        told["tool_calls"] = calls
    if details:
        told["reasoning_details"] = details
    reason = message.get("stop_reason")
    refusal = _refusal(message)
    if refusal:
        told["refusal"] = refusal
    return {
        "id": message.get("id"),
        "object": "chat.completion",
        "model": message.get("model"),
        "choices": [{"index": 0, "message": told, "logprobs": None, "finish_reason": reason}],
        "usage": usage_of(_mapping(message.get("usage"))),
    }


def chunk_of(state: StreamState, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The chunk that an event makes; None for one that says nothing to a client."""
    match event.get("type"):
        case "message_start":
            message = _mapping(event.get("message"))
            start = {"id": message.get("id"), "model": message.get("model")}
            return {**start, **_chunk({"role": "assistant"})}
        case "content_block_start":
            delta = _started(state, _index(event), _mapping(event.get("content_block")))
        case "content_block_delta":
            delta = _added(state, _index(event), _mapping(event.get("delta")))
        case "message_delta":
            ended = _mapping(event.get("delta"))
            refusal = _refusal(ended)
            return _chunk({"refusal": refusal} if refusal else {}, ended.get("stop_reason"))
        case _:
            return None
    return None if delta is None else _chunk(delta)


def stream_usage(state: StreamState, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an event says of usage, together with those before it. Until the last event of usage has come,
    the output is what the provider had counted at the start: ``state.partial`` says so."""
    match event.get("type"):
        case "message_start":
            usage = _mapping(_mapping(event.get("message")).get("usage"))
        case "message_delta":
            usage = _mapping(event.get("usage"))
            state.partial = False
        case _:
            return None
    if not usage:
        return None
    if event["type"] == "message_start" and not state.counts:
        state.partial = True
    state.counts |= {name: value for name, value in usage.items() if value is not None}
    return usage_of(state.counts)


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Anthropic's counts in OpenAI's members: there, what was read from the cache and written to it stands
    beside the input; here, within the prompt."""
    read = _count(usage.get("cache_read_input_tokens"))
    written = _count(usage.get("cache_creation_input_tokens"))
    prompt = _count(usage.get("input_tokens")) + read + written
    output = _count(usage.get("output_tokens"))
    details = _mapping(usage.get("output_tokens_details"))
    reasoning = _count(details.get("thinking_tokens") or details.get("reasoning_tokens"))
    prompt_details: dict[str, Any] = {"cached_tokens": read, "cache_write_tokens": written}
    if isinstance(usage.get("cache_creation"), dict):
        # What was written for an hour has a price of its own.
        prompt_details["cache_creation"] = usage["cache_creation"]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _started(state: StreamState, index: int, block: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the start of a block says. Blocks of kinds that no chat knows, such as searches that Anthropic
    makes itself, are passed over with all their pieces."""
    kind = block.get("type")
    if kind == "text":
        return {"content": block["text"]} if block.get("text") else None
    if kind == "tool_use":
        number = sum(1 for known in state.blocks.values() if known[0] == "tool_use")
        state.blocks[index] = ("tool_use", number)
        # The arguments come in pieces; the input here is an empty object, or the whole of it.
        whole = orjson.dumps(block["input"]).decode() if block.get("input") else ""
        function = {"name": block.get("name"), "arguments": whole}
        return {"tool_calls": [{"index": number, "id": block.get("id"), "function": function}]}
    if kind in ("thinking", "redacted_thinking"):
        number = sum(1 for known in state.blocks.values() if known[0] == "thinking")
        state.blocks[index] = ("thinking", number)
        return {"reasoning_details": [{**_thinking(block), "format": FORMAT, "index": number}]}
    return None


def _added(state: StreamState, index: int, delta: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = delta.get("type")
    if kind == "text_delta":
        return {"content": delta.get("text")}
    known, number = state.blocks.get(index, ("", 0))
    if kind == "input_json_delta" and known == "tool_use":
        return {"tool_calls": [{"index": number, "function": {"arguments": delta.get("partial_json")}}]}
    if kind == "thinking_delta":
        entry = {"type": "reasoning.text", "text": delta.get("thinking"), "index": number}
        return {"reasoning_details": [entry]}
    if kind == "signature_delta":
        entry = {"type": "reasoning.text", "signature": delta.get("signature"), "index": number}
        return {"reasoning_details": [entry]}
    return None


def _thinking(block: Mapping[str, Any]) -> dict[str, Any]:
    if block.get("type") == "redacted_thinking":
        return {"type": "reasoning.encrypted", "data": block.get("data")}
    entry = {"type": "reasoning.text", "text": block.get("thinking") or ""}
    return {**entry, "signature": block["signature"]} if block.get("signature") else entry


def _refusal(ended: Mapping[str, Any]) -> str:
    """Why the model refused, where it says so."""
    if ended.get("stop_reason") != "refusal":
        return ""
    explanation = _mapping(ended.get("stop_details")).get("explanation")
    return explanation if isinstance(explanation, str) else ""


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0


def _chunk(delta: dict[str, Any], finish: Any = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
