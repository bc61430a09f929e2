"""Plain (not streamed) answers: read what the gateway must know, complete what validators demand."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from billing.token_usage import TokenUsage, from_openai
from routing.dialects import Dialect, FailedFinish, StreamFault, fault_of


class BadAnswer(Exception):
    """The provider's 200 is not an answer; the message says why, without quoting it."""


class ErrorAnswer(BadAnswer):
    """The provider's 200 is an error; ``error`` is what it says, as an object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__("It is an error.")
        self.error = error


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """The body for the client, and what it says of usage (None: nothing)."""

    body: bytes
    usage: TokenUsage | None
    # Bytes of text, for an estimate where the provider reports no usage.
    text_bytes: int
    content_type: bytes = b"application/json"


def chat_answer(
    raw: bytes,
    *,
    base64_wanted: bool = False,  # noqa: ARG001  # one signature for all
    speaks: Dialect | None = None,
    model: str = "",
) -> PlainAnswer:
    """Complete a chat completion: nullable members that providers omit are filled in; nothing is removed.
    The answer of a provider whose dialect ``speaks`` is not clean is repaired; ``model`` stands in where it
    names none.

    Raises BadAnswer, and ErrorAnswer where the provider reports an error with status 200.
    """
    answer = decoded(raw, "chat.completions", speaks)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadAnswer("It has no choices.")
    usage = answer.get("usage")
    changed = answer.get("object") != "chat.completion"
    answer["object"] = "chat.completion"
    if speaks is not None and not speaks.clean:
        usage = speaks.read_usage(answer)
        if usage is not None:
            answer["usage"] = usage_shown(usage)
        try:
            speaks.repair_answer(answer, model)
        except FailedFinish:
            raise BadAnswer("It says that it failed.") from None
        changed = True
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
        text += _text_bytes(message)
    read = from_openai(usage) if isinstance(usage, dict) else None
    return PlainAnswer(orjson.dumps(answer) if changed else raw, read, text)


def _text_bytes(message: dict[str, Any]) -> int:
    """About how much the model wrote: text, and arguments of tool calls."""
    content = message.get("content")
    size = len(content) if isinstance(content, str) else 0
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        size += len(arguments) if isinstance(arguments, str) else 0
    return size


def without_prices(usage: dict[str, Any]) -> dict[str, Any]:
    """A provider's usage object without what the provider charges us."""
    return {name: value for name, value in usage.items() if "cost" not in name and name != "is_byok"}


def usage_shown(usage: dict[str, Any]) -> dict[str, Any]:
    """A provider's usage object in OpenAI's members and meaning: cached tokens within the prompt,
    reasoning within the completion, all three sums present. What the provider charges us is left out.
    """
    read = from_openai(usage)
    if read is None:
        return usage
    shown = without_prices(usage)
    details = {
        "prompt_tokens_details": ("cached_tokens", read.cached_input),
        "completion_tokens_details": ("reasoning_tokens", read.reasoning),
    }
    for name, (member, count) in details.items():
        given = usage.get(name)
        shown[name] = {**(given if isinstance(given, dict) else {}), member: count}
    return {
        **shown,
        "prompt_tokens": read.prompt,
        "completion_tokens": read.completion,
        "total_tokens": read.total,
    }


def embedding_answer(
    raw: bytes, *, base64_wanted: bool, speaks: Dialect | None = None, model: str = ""
) -> PlainAnswer:
    """Complete an embedding answer. If the client asked for base64, vectors that came as arrays are
    encoded (little-endian float32): openai-node 6 reads an array as an empty vector. ``model`` stands
    in where the provider names none. Raises BadAnswer, and ErrorAnswer as ``chat_answer`` does.
    """
    answer = decoded(raw, "embeddings", speaks)
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
    if speaks is not None and not speaks.clean:
        changed |= _fill(answer, model=model)
        if read is not None:
            changed |= _fill(answer["usage"], prompt_tokens=read.total, total_tokens=read.total)
    return PlainAnswer(orjson.dumps(answer) if changed else raw, read, 0)


READERS: dict[str, Callable[..., PlainAnswer]] = {
    "chat.completions": chat_answer,
    "embeddings": embedding_answer,
}


def decoded(raw: bytes, endpoint: str, speaks: Dialect | None) -> dict[str, Any]:
    """A plain answer as an object in OpenAI's shape. Raises BadAnswer, ErrorAnswer."""
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadAnswer("It is not JSON.") from None
    error = fault_of(answer)
    if error is not None:
        raise ErrorAnswer(error)
    if not isinstance(answer, dict):
        raise BadAnswer("It is not a JSON object.")
    if speaks is None or speaks.clean:
        return answer
    try:
        return speaks.openai_answer(endpoint, answer)
    except StreamFault as fault:
        raise ErrorAnswer(fault.error) from None


def _fill(holder: dict[str, Any], **members: Any) -> bool:
    """Set the members that are missing; whether any was."""
    missing = [name for name in members if name not in holder]
    for name in missing:
        holder[name] = members[name]
    return bool(missing)
