"""Streams of OpenAI's Responses API, as a provider sends them."""

from __future__ import annotations

import json
from typing import Any

from tests.dialects.shapes import WEATHER, Replay

MODEL = "gpt-5.4-mini-2026-03-05"


def response(status: str, **members: Any) -> dict[str, Any]:
    """The response as its events carry it."""
    return {
        "id": "resp_theirs",
        "object": "response",
        "created_at": 1762317021,
        "status": status,
        "model": MODEL,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
        **members,
    }


def counted(prompt: int, cached: int, output: int, thought: int) -> dict[str, Any]:
    """Usage in the spelling of this API."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + output,
    }


def stream(*given: dict[str, Any]) -> bytes:
    """Numbered events, each with its name."""
    return b"".join(
        f"event: {told['type']}\ndata: "
        f"{json.dumps({**told, 'sequence_number': number}, ensure_ascii=False)}\n\n".encode()
        for number, told in enumerate(given)
    )


def begun() -> tuple[dict[str, Any], ...]:
    """The first two events."""
    return (
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.in_progress", "response": response("in_progress")},
    )


def message(index: int, *pieces: str) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """The events of a message, and the whole item."""
    where = {"item_id": "msg_theirs", "output_index": index, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    text = "".join(pieces)
    item = {"id": "msg_theirs", "type": "message", "role": "assistant"}
    whole = {**item, "status": "completed", "content": [{**part, "text": text}]}
    started = {**item, "status": "in_progress", "content": []}
    told = (
        {"type": "response.output_item.added", "output_index": index, "item": started},
        {"type": "response.content_part.added", **where, "part": part},
        *(
            {
                "type": "response.output_text.delta",
                **where,
                "delta": piece,
                "logprobs": [],
                "obfuscation": "x",
            }
            for piece in pieces
        ),
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": {**part, "text": text}},
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    )
    return told, whole


def thought(index: int) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """The events of thinking that only its provider can read, and the whole item."""
    item = {"id": "rs_theirs", "type": "reasoning", "summary": [], "encrypted_content": "c2VhbGVk"}
    told = (
        {"type": "response.output_item.added", "output_index": index, "item": item},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    )
    return told, item


def called(
    index: int, call_id: str, name: str, *pieces: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """The events of a function call, and the whole item."""
    where = {"item_id": f"fc_{index}", "output_index": index}
    item = {"id": f"fc_{index}", "type": "function_call", "call_id": call_id, "name": name}
    kind = "response.function_call_arguments"
    whole = {**item, "status": "completed", "arguments": "".join(pieces)}
    started = {**item, "status": "in_progress", "arguments": ""}
    told = (
        {"type": "response.output_item.added", "output_index": index, "item": started},
        *({"type": f"{kind}.delta", **where, "delta": piece} for piece in pieces),
        {"type": f"{kind}.done", **where, "name": name, "arguments": "".join(pieces)},
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    )
    return told, whole


_THOUGHT, _THOUGHT_ITEM = thought(0)
_SAID, _SAID_ITEM = message(1, "Hel", "lö 🌍")
_CALLED, _CALLED_ITEM = called(0, "call_a", "weather", '{"location": "Zü', 'rich"}')
_CUT, _CUT_ITEM = message(0, "Once", " upon")


def xai_response(status: str, **members: Any) -> dict[str, Any]:
    """A response as xAI has it: without some members that have no value, and with what it costs. After
    https://github.com/vercel/ai, packages/xai/src/responses/__fixtures__."""
    given = response(status, id="0d7f672c-6cf5", model="grok-4.3", **members)
    absent = ("error", "instructions", "temperature", "top_p", "usage")
    return {
        **{name: value for name, value in given.items() if name not in absent},
        "metadata": {"system_fingerprint": "fp_eb3c003fc66c14ed"},
    }


def xai_thought(index: int, *pieces: str) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """The events of thinking of which there is a summary, and the whole item."""
    where = {"item_id": "rs_0d7f672c", "output_index": index, "summary_index": 0}
    part = {"type": "summary_text", "text": "".join(pieces)}
    item = {"id": "rs_0d7f672c", "type": "reasoning", "summary": [], "status": "in_progress"}
    whole = {**item, "summary": [part], "status": "completed", "encrypted_content": "Z3Jvaw"}
    kind = "response.reasoning_summary"
    told = (
        {"type": "response.output_item.added", "output_index": index, "item": item},
        {"type": f"{kind}_part.added", **where, "part": {**part, "text": ""}},
        *({"type": f"{kind}_text.delta", **where, "delta": piece} for piece in pieces),
        {"type": f"{kind}_text.done", **where, "text": part["text"]},
        {"type": f"{kind}_part.done", **where, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    )
    return told, whole


_GROK, _GROK_ITEM = xai_thought(0, "The", " user")
XAI_USAGE = {
    "input_tokens": 197,
    "input_tokens_details": {"cached_tokens": 192},
    "output_tokens": 199,
    "output_tokens_details": {"reasoning_tokens": 198},
    "total_tokens": 396,
    "num_sources_used": 0,
    "cost_in_usd_ticks": 5_421_500,
}
XAI_ANSWER = {**xai_response("completed", output=[_GROK_ITEM, _SAID_ITEM]), "usage": XAI_USAGE}
TEXT_ANSWER = response("completed", output=[_THOUGHT_ITEM, _SAID_ITEM], usage=counted(2_000, 1_500, 30, 20))

RESPONSE_REPLAYS = [
    Replay(
        "responses-thinking-and-text",
        "openai",
        stream(*begun(), *_THOUGHT, *_SAID, {"type": "response.completed", "response": TEXT_ANSWER}),
        text="Hellö 🌍",
        usage=(2_000, 30),
    ),
    Replay(
        "responses-a-call",
        "openai",
        stream(
            *begun(),
            *_CALLED,
            {
                "type": "response.completed",
                "response": response("completed", output=[_CALLED_ITEM], usage=counted(12, 0, 7, 0)),
            },
        ),
        tools=(("call_a", "weather", WEATHER),),
        finish="tool_calls",
        usage=(12, 7),
    ),
    Replay(
        "responses-cut-by-its-bound",
        "openai",
        stream(
            *begun(),
            *_CUT,
            {
                "type": "response.incomplete",
                "response": response(
                    "incomplete",
                    output=[_CUT_ITEM],
                    incomplete_details={"reason": "max_output_tokens"},
                    usage=counted(5, 0, 16, 0),
                ),
            },
        ),
        text="Once upon",
        finish="length",
        usage=(5, 16),
    ),
    Replay(
        "responses-failed-in-the-middle",
        "openai",
        stream(
            *begun(),
            *_CUT[:4],
            {
                "type": "response.failed",
                "response": response(
                    "failed", error={"code": "server_error", "message": "org-123 had an error"}
                ),
            },
        ),
        text="Once upon",
        error="server_error",
    ),
    Replay(
        "responses-error-event",
        "openai",
        stream(
            *begun(),
            *_CUT[:3],
            {"type": "error", "code": "rate_limit_exceeded", "message": "Rate limit reached", "param": None},
        ),
        text="Once",
        error="rate_limit_exceeded",
    ),
    Replay(
        "responses-of-xai",
        "xai",
        stream(
            {"type": "response.created", "response": xai_response("in_progress")},
            {"type": "response.in_progress", "response": xai_response("in_progress")},
            *_GROK,
            *_SAID,
            {"type": "response.completed", "response": XAI_ANSWER},
        ),
        text="Hellö 🌍",
        reasoning="The user",
        usage=(197, 199),
    ),
    Replay("responses-without-an-end", "openai", stream(*begun(), *_CUT), text="Once upon", error=""),
    Replay(
        "responses-failed-at-once",
        "openai",
        stream(
            *begun(),
            {
                "type": "response.failed",
                "response": response("failed", error={"code": "server_error", "message": "No"}),
            },
        ),
        error="server_error",
    ),
]
