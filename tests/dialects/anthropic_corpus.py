"""Streams in the shapes that Anthropic's Messages API sends (provider-quirks.md 17)."""

from __future__ import annotations

import json
from typing import Any

from tests.dialects.shapes import WEATHER, Replay


def events(*given: dict[str, Any]) -> bytes:
    """Named events, as they come on the wire."""
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for event in given
    )


def start(**usage: Any) -> dict[str, Any]:
    """The first event of a stream."""
    counts = {
        "input_tokens": 12,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
        "service_tier": "standard",
        **usage,
    }
    message = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude", "content": []}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "usage": counts}}


def block(index: int, kind: str, **members: Any) -> dict[str, Any]:
    """The start of a content block."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **members}}


def delta(index: int, kind: str, **members: Any) -> dict[str, Any]:
    """A piece of a content block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def stop(index: int) -> dict[str, Any]:
    """The end of a content block."""
    return {"type": "content_block_stop", "index": index}


def end(reason: str, output: int, *, details: Any = None, **usage: Any) -> tuple[dict[str, Any], ...]:
    """The last two events."""
    ended = {"stop_reason": reason, "stop_sequence": None, "stop_details": details}
    counted = {"type": "message_delta", "delta": ended, "usage": {"output_tokens": output, **usage}}
    return counted, {"type": "message_stop"}


PING = {"type": "ping"}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

ANTHROPIC_REPLAYS = [
    Replay(
        "anthropic-text-and-pings",
        "anthropic",
        events(
            start(),
            block(0, "text", text=""),
            PING,
            delta(0, "text_delta", text="Hel"),
            PING,
            delta(0, "text_delta", text="lö 🌍"),
            stop(0),
            *end("end_turn", 5),
        ),
        text="Hellö 🌍",
        usage=(12, 5),
    ),
    Replay(
        "anthropic-thinking-text-and-two-tools",
        "anthropic",
        events(
            start(cache_read_input_tokens=100, cache_creation_input_tokens=30),
            block(0, "thinking", thinking="", signature=""),
            delta(0, "thinking_delta", thinking="Let me "),
            delta(0, "thinking_delta", thinking="look."),
            delta(0, "signature_delta", signature="c2lnbmVk"),
            stop(0),
            block(1, "redacted_thinking", data="aGlkZGVu"),
            stop(1),
            block(2, "text", text=""),
            delta(2, "text_delta", text="Sure."),
            stop(2),
            block(3, "tool_use", id="toolu_01", name="weather", input={}),
            delta(3, "input_json_delta", partial_json=""),
            delta(3, "input_json_delta", partial_json='{"location": "Zü'),
            delta(3, "input_json_delta", partial_json='rich"}'),
            stop(3),
            block(4, "tool_use", id="toolu_02", name="now", input={}),
            delta(4, "input_json_delta", partial_json=""),
            stop(4),
            *end("tool_use", 48, output_tokens_details={"thinking_tokens": 20}),
        ),
        text="Sure.",
        reasoning="Let me look.",
        tools=(("toolu_01", "weather", WEATHER), ("toolu_02", "now", "{}")),
        finish="tool_calls",
        usage=(142, 48),
    ),
    Replay(
        "anthropic-two-starts-and-a-revised-input",
        "anthropic",
        events(
            start(input_tokens=43),
            start(input_tokens=43),
            block(0, "text", text=""),
            delta(0, "text_delta", text="Yes"),
            stop(0),
            *end("end_turn", 9, input_tokens=61),
        ),
        text="Yes",
        usage=(61, 9),
    ),
    Replay(
        "anthropic-refusal-without-content",
        "anthropic",
        events(start(), *end("refusal", 1, details={"type": "refusal", "category": None, "explanation": ""})),
        finish="content_filter",
        usage=(12, 1),
    ),
    Replay(
        "anthropic-search-of-its-own",
        "anthropic",
        events(
            start(),
            block(0, "server_tool_use", id="srvtoolu_1", name="web_search", input={}),
            delta(0, "input_json_delta", partial_json='{"query": "x"}'),
            stop(0),
            block(1, "web_search_tool_result", tool_use_id="srvtoolu_1", content=[]),
            stop(1),
            block(2, "text", text=""),
            delta(2, "citations_delta", citation={"url": "https://example.com"}),
            delta(2, "text_delta", text="Found"),
            stop(2),
            *end("pause_turn", 7),
        ),
        text="Found",
        usage=(12, 7),
    ),
    Replay(
        "anthropic-context-window-full",
        "anthropic",
        events(
            start(),
            block(0, "text", text="Be"),
            delta(0, "text_delta", text="gun"),
            *end("model_context_window_exceeded", 7),
        ),
        text="Begun",
        finish="length",
        usage=(12, 7),
    ),
    Replay(
        "anthropic-overloaded-in-mid-stream",
        "anthropic",
        events(
            start(input_tokens=40), block(0, "text", text=""), delta(0, "text_delta", text="A"), OVERLOADED
        ),
        text="A",
        # The prompt as it was counted; of the answer, what came.
        usage=(40, 1),
        error="overloaded_error",
    ),
    Replay("anthropic-overloaded-at-once", "anthropic", events(OVERLOADED), error="overloaded_error"),
    Replay(
        "anthropic-cut",
        "anthropic",
        events(
            start(output_tokens=0),
            block(0, "text", text=""),
            delta(0, "text_delta", text="A"),
            delta(0, "text_delta", text="B"),
            delta(0, "text_delta", text="C"),
        ),
        text="ABC",
        usage=(12, 3),
        error="",
    ),
]
