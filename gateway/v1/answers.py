"""Plain (not streamed) answers: read what the gateway must know, complete what validators demand."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from billing.token_usage import TokenUsage, from_openai


class BadAnswer(Exception):
    """The provider's 200 is not an answer; the message says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """The body for the client, and what it says of usage (None: nothing)."""

    body: bytes
    usage: TokenUsage | None
    # Bytes of text, for an estimate where the provider reports no usage.
    text_bytes: int


def chat_answer(raw: bytes, *, base64_wanted: bool = False) -> PlainAnswer:  # noqa: ARG001  # one signature for all
    """Complete a chat completion: nullable members that providers omit are filled in; nothing is removed.

    Raises BadAnswer.
    """
    answer = _decode(raw)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadAnswer("It has no choices.")
    changed = answer.get("object") != "chat.completion"
    answer["object"] = "chat.completion"
    text = 0
    for position, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise BadAnswer("A choice has no message.")
        changed |= _fill(choice, index=position, logprobs=None)
        changed |= _fill(message, role="assistant", content=None, refusal=None)
        if message.get("tool_calls", 0) is None:
            # The description allows no null here.
            del message["tool_calls"]
            changed = True
        text += len(message.get("content") or "") + sum(
            len((call.get("function") or {}).get("arguments") or "")
            for call in message.get("tool_calls") or ()
        )
    usage = answer.get("usage")
    read = from_openai(usage) if isinstance(usage, dict) else None
    return PlainAnswer(orjson.dumps(answer) if changed else raw, read, text)


def embedding_answer(raw: bytes, *, base64_wanted: bool) -> PlainAnswer:
    """Complete an embedding answer. If the client asked for base64, vectors that came as arrays are
    encoded (little-endian float32): openai-node 6 reads an array as an empty vector. Raises BadAnswer.
    """
    answer = _decode(raw)
    data = answer.get("data")
    if not isinstance(data, list):
        raise BadAnswer("It has no data.")
    changed = _fill(answer, object="list")
    for position, item in enumerate(data):
        if not isinstance(item, dict) or "embedding" not in item:
            raise BadAnswer("An item has no embedding.")
        changed |= _fill(item, object="embedding", index=position)
        vector = item["embedding"]
        try:
            if base64_wanted and isinstance(vector, list):
                item["embedding"] = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
                changed = True
            elif not base64_wanted and isinstance(vector, str):
                packed = base64.b64decode(vector, validate=True)
                item["embedding"] = list(struct.unpack(f"<{len(packed) // 4}f", packed))
                changed = True
        except (struct.error, ValueError, TypeError):
            raise BadAnswer("An embedding is not a list of numbers.") from None
    usage = answer.get("usage")
    read = from_openai(usage) if isinstance(usage, dict) else None
    return PlainAnswer(orjson.dumps(answer) if changed else raw, read, 0)


READERS: dict[str, Callable[..., PlainAnswer]] = {
    "chat.completions": chat_answer,
    "embeddings": embedding_answer,
}


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadAnswer("It is not JSON.") from None
    if not isinstance(answer, dict):
        raise BadAnswer("It is not a JSON object.")
    if answer.get("error"):
        # Some providers send an error with status 200.
        raise BadAnswer("It is an error.")
    return answer


def _fill(holder: dict[str, Any], **members: Any) -> bool:
    """Set the members that are missing; whether any was."""
    missing = [name for name in members if name not in holder]
    for name in missing:
        holder[name] = members[name]
    return bool(missing)
