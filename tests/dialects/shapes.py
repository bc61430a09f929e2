"""How a recorded-like stream is written down, and the pieces that OpenAI-compatible ones are made of."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

DONE = b"data: [DONE]\n\n"


class Replay(NamedTuple):
    """One recorded-like stream. ``tools`` are (id, name, arguments); an id of "*" may be any. ``usage`` is
    (prompt, completion) tokens as the client is told, None where the provider tells none. ``error``: a word
    of what the provider reports, for a stream that must not look complete."""

    name: str
    kind: str
    raw: bytes
    text: str = ""
    reasoning: str = ""
    tools: tuple[tuple[str, str, str], ...] = ()
    finish: str = "stop"
    usage: tuple[int, int] | None = None
    error: str | None = None


def lines(*chunks: Any, done: bool = True) -> bytes:
    """Events of chunks (objects, or bytes as they are)."""
    raw = b"".join(
        chunk
        if isinstance(chunk, bytes)
        else b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"
        for chunk in chunks
    )
    return raw + DONE if done else raw


def chunk(delta: Any = None, finish: Any = None, /, **more: Any) -> dict[str, Any]:
    """A chunk as OpenAI shapes it."""
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1762317021, "model": "m"}
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {**base, "choices": [choice], **more}


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """A usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }


def last(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """A chunk of usage alone."""
    return {**chunk(), "choices": [], "usage": usage(prompt, completion, **more)}


def piece(arguments: Any = None, /, **members: Any) -> dict[str, Any]:
    """A piece of a tool call; ``name`` goes to its function."""
    function = {}
    if "name" in members:
        function["name"] = members.pop("name")
    if arguments is not None:
        function["arguments"] = arguments
    return {"tool_calls": [{**members, "function": function}]}


WEATHER = '{"location": "Zürich"}'
