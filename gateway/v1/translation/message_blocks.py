"""The content blocks of Anthropic's messages, as the messages of a chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import wrong_type
from gateway.v1.translation import thoughts
from gateway.v1.translation.shape import Object


def messages_of(messages: Iterable[Any]) -> list[Object]:
    """The chat messages for Anthropic's. Raises InvalidRequest naming the block."""
    found: list[Object] = []
    for place, message in enumerate(messages):
        param = f"messages.{place}"
        if not isinstance(message, dict):
            raise wrong_type(param, "an object with a role", message)
        content = message.get("content")
        if not isinstance(content, str | list):
            raise wrong_type(f"{param}.content", "a string or an array of blocks", content)
        match message.get("role"):
            case "assistant":
                found.append(_assistant(content, f"{param}.content"))
            case "user":
                found += _user(content, f"{param}.content")
            case "system":
                found.append({"role": "system", "content": text_of(content, f"{param}.content")})
            case _:
                raise InvalidRequest(
                    f"{param}.role: expected 'user' or 'assistant'.",
                    param=f"{param}.role",
                    code="invalid_value",
                )
    return found


def text_of(content: str | list[Any], param: str) -> str:
    """Text given as a string or as text blocks, with an empty line between blocks."""
    if isinstance(content, str):
        return content
    return "\n\n".join(
        _member(block, "text", param, place) for place, block in enumerate(_blocks(content, param))
    )


def _assistant(content: str | list[Any], param: str) -> Object:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    message: Object = {"role": "assistant", "content": None}
    texts: list[str] = []
    thinking: list[str] = []
    details: list[Object] = []
    calls: list[Object] = []
    for place, block in enumerate(_blocks(content, param)):
        match block.get("type"):
            case "text":
                texts.append(_member(block, "text", param, place))
            case "thinking":
                thinking.append(_member(block, "thinking", param, place))
                details += thoughts.details_of(block)
            case "redacted_thinking":
                _member(block, "data", param, place)
                details += thoughts.details_of(block)
            case "tool_use":
                function = {
                    "name": _member(block, "name", param, place),
                    "arguments": orjson.dumps(block.get("input") or {}).decode(),
                }
                call_id = _member(block, "id", param, place)
                calls.append({"id": call_id, "type": "function", "function": function})
            case kind:
                raise _unsupported(kind, f"{param}.{place}")
    if texts:
        message["content"] = "".join(texts)
    elif not calls:
        message["content"] = ""
    if thinking:
        message["reasoning_content"] = "".join(thinking)
    if details:
        message["reasoning_details"] = details
    if calls:
        message["tool_calls"] = calls
    thoughts.give_back(message)
    return message


def _user(content: str | list[Any], param: str) -> list[Object]:
    """Results of tools first, each a message, since a chat wants them right behind the calls; then what
    the user says. Images of a result go there too: a tool's message holds text alone."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[Object] = []
    parts: list[Object] = []
    for place, block in enumerate(_blocks(content, param)):
        if block.get("type") == "tool_result":
            results.append(_result(block, param, place, parts))
        else:
            parts.append(_part(block, param, place))
    if not parts:
        return results
    only_text = len(parts) == 1 and parts[0]["type"] == "text"
    said = parts[0]["text"] if only_text else parts
    return [*results, {"role": "user", "content": said}]


def _result(block: Object, param: str, place: int, parts: list[Object]) -> Object:
    content = block.get("content")
    texts = []
    if isinstance(content, str):
        texts.append(content)
    elif isinstance(content, list):
        where = f"{param}.{place}.content"
        for inner, piece in enumerate(_blocks(content, where)):
            part = _part(piece, where, inner)
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                parts.append(part)
    elif content is not None:
        raise wrong_type(f"{param}.{place}.content", "a string or an array of blocks", content)
    text = "\n\n".join(texts)
    if block.get("is_error"):
        # A chat has no other place for it.
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": _member(block, "tool_use_id", param, place), "content": text}


def _part(block: Object, param: str, place: int) -> Object:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": _member(block, "text", param, place)}
    source = block.get("source")
    source = source if isinstance(source, dict) else {}
    form, data = source.get("type"), source.get("data")
    if kind == "image":
        if form == "url" and isinstance(source.get("url"), str):
            return {"type": "image_url", "image_url": {"url": source["url"]}}
        if form == "base64" and isinstance(data, str) and isinstance(source.get("media_type"), str):
            return {"type": "image_url", "image_url": {"url": f"data:{source['media_type']};base64,{data}"}}
        raise _unsupported(f"image from {form}", f"{param}.{place}.source")
    if kind == "document":
        if form == "text" and isinstance(data, str):
            return {"type": "text", "text": data}
        if form == "base64" and isinstance(data, str) and isinstance(source.get("media_type"), str):
            name = block.get("title")
            file = {
                "filename": name if isinstance(name, str) else "document.pdf",
                "file_data": f"data:{source['media_type']};base64,{data}",
            }
            return {"type": "file", "file": file}
        raise _unsupported(f"document from {form}", f"{param}.{place}.source")
    raise _unsupported(kind, f"{param}.{place}")


def _blocks(content: list[Any], param: str) -> list[Object]:
    for place, block in enumerate(content):
        if not isinstance(block, dict):
            raise wrong_type(f"{param}.{place}", "a content block", block)
    return content


def _member(block: Object, name: str, param: str, place: int) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise wrong_type(f"{param}.{place}.{name}", "a string", value)
    return value


def _unsupported(kind: object, param: str) -> InvalidRequest:
    shown = kind[:60] if isinstance(kind, str) and kind.isprintable() else "?"
    return InvalidRequest(
        f"{param}: content of type '{shown}' is not supported by this gateway.",
        param=param,
        code="unsupported_content",
    )
