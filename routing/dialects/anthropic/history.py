"""A chat's messages as Anthropic takes them: the system prompt apart, and two speakers in turn."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import orjson

from routing.dialects.anthropic.answers import FORMAT
from routing.dialects.unsupported import CannotCarry

Block = dict[str, Any]

_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.-]+)*;base64,", re.IGNORECASE)


def conversation(messages: Any, lost: list[str]) -> tuple[list[Block], list[dict[str, Any]]]:
    """``(system, messages)``: system and developer messages go before all others, neighbours of one role
    become one message, and answers of tools are the user's. Raises CannotCarry for content that has no
    counterpart, since an answer that ignores it would mislead."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for position, message in enumerate(_list(messages)):
        where = f"messages[{position}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            system += _content(message.get("content"), where)
            continue
        if role == "assistant":
            speaker, blocks = "assistant", _assistant(message, where)
        elif role == "tool":
            speaker, blocks = "user", [_result(message, where)]
        elif role == "user":
            speaker, blocks = "user", _content(message.get("content"), where)
        else:
            raise CannotCarry(f"{where}.role")
        if message.get("name") and role != "tool" and "messages.name" not in lost:
            lost.append("messages.name")
        if turns and turns[-1]["role"] == speaker:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": speaker, "content": blocks})
    if not turns:
        # Somebody must ask.
        system, turns = [], [{"role": "user", "content": system}]
    elif turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": "."}]})
    ending = turns[-1]["content"][-1] if turns[-1]["content"] else {}
    if turns[-1]["role"] == "assistant" and ending.get("type") == "text":
        # An answer that is to be continued may not end in white space.
        ending["text"] = ending["text"].rstrip() or "."
    return system, turns


def lost_its_thinking(turns: list[dict[str, Any]]) -> bool:
    """Whether tools are being answered whose call came without the thinking before it."""
    if len(turns) < 2 or not any(block["type"] == "tool_result" for block in turns[-1]["content"]):
        return False
    return not any("thinking" in block["type"] for block in turns[-2]["content"])


def _assistant(message: dict[str, Any], where: str) -> list[Block]:
    blocks = []
    for entry in _list(message.get("reasoning_details")):
        block = _thought(entry) if isinstance(entry, dict) else None
        if block is not None:
            blocks.append(block)
    blocks += _content(message.get("content") or message.get("refusal"), where)
    for call in _list(message.get("tool_calls")):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise CannotCarry(f"{where}.tool_calls")
        blocks.append(
            {
                "type": "tool_use",
                "id": _id(call.get("id")),
                "name": function.get("name"),
                "input": _input(function.get("arguments")),
            }
        )
    return blocks


def _thought(entry: dict[str, Any]) -> Block | None:
    """The thinking block that an entry of ``reasoning_details`` was made of; thinking without its
    signature, or with another provider's, is refused, so it is left out."""
    if entry.get("format", FORMAT) != FORMAT:
        return None
    if entry.get("type") == "reasoning.encrypted" and entry.get("data"):
        return {"type": "redacted_thinking", "data": entry["data"]}
    if entry.get("type") == "reasoning.text" and entry.get("signature"):
        return {
            "type": "thinking",
            "thinking": entry.get("text") or "",
            "signature": entry["signature"],
        }
    return None


def _result(message: dict[str, Any], where: str) -> Block:
    result: Block = {"type": "tool_result", "tool_use_id": _id(message.get("tool_call_id"))}
    content = _content(message.get("content"), where)
    if content:
        result["content"] = content
    return result


def _content(content: Any, where: str) -> list[Block]:
    if isinstance(content, str):
        # Empty text is refused.
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        return []
    blocks = []
    for position, part in enumerate(content):
        block = _part(part, f"{where}.content[{position}]")
        if block is not None:
            if part.get("cache_control"):
                block["cache_control"] = part["cache_control"]
            blocks.append(block)
    return blocks


def _part(part: dict[str, Any], where: str) -> Block | None:
    match part.get("type") if isinstance(part, dict) else None:
        case "text" | "refusal":
            text = part.get("text") or part.get("refusal")
            return {"type": "text", "text": text} if isinstance(text, str) and text else None
        case "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            return {"type": "image", "source": _source(url, where)}
        case "file":
            file = part.get("file")
            data = file.get("file_data") if isinstance(file, dict) else None
            if not isinstance(file, dict) or not data:
                raise CannotCarry(where)
            document: Block = {"type": "document", "source": _source(data, where)}
            return {**document, "title": file["filename"]} if file.get("filename") else document
        case _:
            raise CannotCarry(where)


def _source(url: Any, where: str) -> Block:
    if not isinstance(url, str):
        raise CannotCarry(where)
    found = _DATA_URL.match(url)
    if found:
        return {"type": "base64", "media_type": found[1].lower(), "data": url[found.end() :]}
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    raise CannotCarry(where)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _id(given: Any) -> str:
    """An id of a tool call as it must look: the same one in the call and in its answer."""
    text = given if isinstance(given, str) else ""
    if _ID.fullmatch(text):
        return text
    return "call_" + hashlib.sha256(text.encode()).hexdigest()[:24]


def _input(arguments: Any) -> dict[str, Any]:
    """The arguments of a call as an object. What a model wrote wrongly is kept as text."""
    if isinstance(arguments, dict):
        return arguments
    text = arguments if isinstance(arguments, str) else ""
    if not text.strip():
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"arguments": text}
