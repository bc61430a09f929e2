"""The items of a response: what goes in, in one form, and as the messages of a chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import wrong_type
from gateway.v1.translation import thoughts
from gateway.v1.translation.shape import Object

_ROLES: Final = ("user", "assistant", "system", "developer")
# Parts that are more than text.
_CARRIED: Final = frozenset({"input_image", "input_file"})
_CALL_OUTPUT: Final = "function_call_output"


def normal_items(asked: Object) -> list[Object]:
    """The items of a request's ``input``; a string is one message. Raises InvalidRequest."""
    given = asked.get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    if given is None:
        if asked.get("previous_response_id"):
            return []
        raise InvalidRequest(
            "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    if not isinstance(given, list):
        raise wrong_type("input", "a string or an array of items", given)
    if not given and not asked.get("instructions") and not asked.get("previous_response_id"):
        raise InvalidRequest("Invalid 'input': it is empty.", param="input", code="empty_array")
    return [_normal(item, f"input[{place}]") for place, item in enumerate(given)]


def _normal(item: Any, param: str) -> Object:
    if not isinstance(item, dict):
        raise wrong_type(param, "an object", item)
    kind = item.get("type") or ("message" if "role" in item else None)
    match kind:
        case "message":
            if item.get("role") not in _ROLES:
                raise InvalidRequest(
                    f"Invalid '{param}.role': expected one of {', '.join(_ROLES)}.",
                    param=f"{param}.role",
                    code="invalid_value",
                )
            parts = _parts(item.get("content"), f"{param}.content", item["role"])
            return {**item, "type": "message", "content": parts}
        case "function_call":
            for name in ("call_id", "name", "arguments"):
                _string(item, name, param)
        case "function_call_output":
            _string(item, "call_id", param)
            output = item.get("output")
            if not isinstance(output, str):
                _parts(output, f"{param}.output", "user")
        case "reasoning":
            pass
        case _:
            shown = kind[:60] if isinstance(kind, str) and kind.isprintable() else "?"
            raise InvalidRequest(
                f"Items of type '{shown}' are not supported by this gateway.",
                param=f"{param}.type",
                code="unsupported_item",
            )
    return item


def _string(item: Object, name: str, param: str) -> None:
    if not isinstance(item.get(name), str):
        raise wrong_type(f"{param}.{name}", "a string", item.get(name))


def _parts(content: Any, param: str, role: str) -> list[Object]:
    if isinstance(content, str):
        kind = "output_text" if role == "assistant" else "input_text"
        return [{"type": kind, "text": content}]
    if not isinstance(content, list):
        raise wrong_type(param, "a string or an array of parts", content)
    for place, part in enumerate(content):
        where = f"{param}[{place}]"
        if not isinstance(part, dict):
            raise wrong_type(where, "an object", part)
        match part.get("type"):
            case "input_text" | "output_text" | "text":
                _string(part, "text", where)
            case "refusal":
                _string(part, "refusal", where)
            case "input_image":
                _string(part, "image_url", where)
            case "input_file" if isinstance(part.get("file_data"), str) or isinstance(
                part.get("file_url"), str
            ):
                pass
            case other:
                shown = other[:60] if isinstance(other, str) and other.isprintable() else "?"
                raise InvalidRequest(
                    f"Content of type '{shown}' is not supported by this gateway; text, images and files (as "
                    "'file_data' or 'file_url') are.",
                    param=f"{where}.type",
                    code="unsupported_content",
                )
    return content


def messages_of(items: Iterable[Object]) -> list[Object]:
    """Normal items as chat messages. A run of the model's own items (reasoning, text, calls) is one
    message, as it came from one answer."""
    messages: list[Object] = []
    own: Object | None = None
    for item in items:
        kind = item["type"]
        if kind == _CALL_OUTPUT or (kind == "message" and item["role"] != "assistant"):
            own = None
            messages.append(_theirs(item))
            continue
        if own is None or (kind == "message" and "tool_calls" in own):
            own = {"role": "assistant", "content": None}
            messages.append(own)
        match kind:
            case "message":
                own["content"] = (own["content"] or "") + _text(item["content"])
            case "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["call_id"], "type": "function", "function": function}
                own.setdefault("tool_calls", []).append(call)
            case _:
                thought = _thought(item)
                if thought:
                    own["reasoning_content"] = own.get("reasoning_content", "") + thought
                details = thoughts.unpacked(item.get("encrypted_content"))
                if details:
                    own.setdefault("reasoning_details", []).extend(details)
    for message in messages:
        if "reasoning_details" in message:
            thoughts.give_back(message)
    # Thinking alone, without what it led to, is no message.
    return [m for m in messages if m["role"] != "assistant" or m["content"] is not None or "tool_calls" in m]


def _theirs(item: Object) -> Object:
    """A message of the user's side: what was said, or what a tool answered."""
    if item["type"] == _CALL_OUTPUT:
        output = item["output"]
        return {
            "role": "tool",
            "tool_call_id": item["call_id"],
            "content": output if isinstance(output, str) else [_chat_part(part) for part in output],
        }
    parts = item["content"]
    if all(part["type"] not in _CARRIED for part in parts):
        texts = [_text([part]) for part in parts]
        content: Any = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    else:
        content = [_chat_part(part) for part in parts]
    return {"role": item["role"], "content": content}


def _chat_part(part: Object) -> Object:
    if part["type"] == "input_file":
        name = part.get("filename")
        data = part.get("file_data") if isinstance(part.get("file_data"), str) else part["file_url"]
        return {
            "type": "file",
            "file": {"filename": name if isinstance(name, str) else "document.pdf", "file_data": data},
        }
    if part["type"] != "input_image":
        return {"type": "text", "text": _text([part])}
    image = {"url": part["image_url"]}
    if part.get("detail"):
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _text(parts: Iterable[Object]) -> str:
    return "".join(part["refusal"] if part["type"] == "refusal" else part.get("text", "") for part in parts)


def _thought(item: Object) -> str:
    """The readable text of a reasoning item: the thinking itself, or else its summary."""
    for name in ("content", "summary"):
        parts = item.get(name)
        if isinstance(parts, list):
            text = "".join(
                part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
            if text:
                return text
    return ""


def with_ids(items: Iterable[Object], seed: str) -> list[Object]:
    """The items with an id each, as they are listed."""
    prefixes = {"message": "msg", "function_call": "fc", _CALL_OUTPUT: "fco", "reasoning": "rs"}
    return [
        {**item, "id": item.get("id") or f"{prefixes[item['type']]}_{seed}{place:04d}"}
        for place, item in enumerate(items)
    ]
