"""A chat's messages as Gemini takes them: contents of the user and of the model, in turn."""

from __future__ import annotations

import mimetypes
import re
from typing import Any, Final

import orjson

from routing.dialects.gemini.answers import FORMAT
from routing.dialects.unsupported import CannotCarry

Part = dict[str, Any]

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.-]+)*;base64,", re.IGNORECASE)
# Stands in for the signature of a call that Gemini did not make, or whose signature the client lost.
# https://ai.google.dev/gemini-api/docs/thought-signatures
UNSIGNED: Final = "skip_thought_signature_validator"


def conversation(messages: Any, lost: list[str], *, signed: bool) -> tuple[list[Part], list[dict[str, Any]]]:
    """``(system, contents)``: system and developer messages apart, neighbours of one role in one content.
    ``signed``: the model demands the signature of each turn's first call. Raises CannotCarry for content
    that has no counterpart."""
    system: list[Part] = []
    contents: list[dict[str, Any]] = []
    # Gemini knows an answer by its function's name, not by an id.
    names: dict[str, str] = {}
    for position, message in enumerate(_list(messages)):
        where = f"messages[{position}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            system += _content(message.get("content"), where)
            continue
        if role == "assistant":
            speaker, parts = "model", _assistant(message, where, names, signed=signed)
        elif role == "tool":
            speaker, parts = "user", _result(message, where, names)
        elif role == "user":
            speaker, parts = "user", _content(message.get("content"), where)
        else:
            raise CannotCarry(f"{where}.role")
        if message.get("name") and role != "tool" and "messages.name" not in lost:
            lost.append("messages.name")
        if contents and contents[-1]["role"] == speaker:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": speaker, "parts": parts})
    if not contents:
        # Somebody must ask.
        system, contents = [], [{"role": "user", "parts": system}]
    elif contents[0]["role"] == "model":
        contents.insert(0, {"role": "user", "parts": [{"text": "."}]})
    return system, contents


def _assistant(message: dict[str, Any], where: str, names: dict[str, str], *, signed: bool) -> list[Part]:
    parts = _content(message.get("content") or message.get("refusal"), where)
    for entry in _list(message.get("reasoning_details")):
        if isinstance(entry, dict) and entry.get("format") == FORMAT and entry.get("data"):
            if not parts:
                parts.append({"text": ""})
            parts[-1]["thoughtSignature"] = entry["data"]
    first = True
    for call in _list(message.get("tool_calls")):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise CannotCarry(f"{where}.tool_calls")
        name = function.get("name")
        if isinstance(call.get("id"), str) and isinstance(name, str):
            names[call["id"]] = name
        part: Part = {"functionCall": {"name": name, "args": _object(function.get("arguments"), "arguments")}}
        google = _mapping(_mapping(call.get("extra_content")).get("google"))
        signature = google.get("thought_signature") or (UNSIGNED if signed and first else None)
        if signature:
            part["thoughtSignature"] = signature
        parts.append(part)
        first = False
    return parts


def _result(message: dict[str, Any], where: str, names: dict[str, str]) -> list[Part]:
    given = message.get("tool_call_id")
    name = message.get("name") or (names.get(given) if isinstance(given, str) else None)
    if not isinstance(name, str):
        raise CannotCarry(f"{where}.tool_call_id")
    parts = _content(message.get("content"), where)
    text = "\n".join(part["text"] for part in parts if "text" in part)
    response = {"functionResponse": {"name": name, "response": _object(text, "result")}}
    return [response, *(part for part in parts if "text" not in part)]


def _content(content: Any, where: str) -> list[Part]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    parts = []
    for position, part in enumerate(_list(content)):
        made = _part(part, f"{where}.content[{position}]")
        if made is not None:
            parts.append(made)
    return parts


def _part(part: Any, where: str) -> Part | None:
    match part.get("type") if isinstance(part, dict) else None:
        case "text" | "refusal":
            text = part.get("text") or part.get("refusal")
            return {"text": text} if isinstance(text, str) and text else None
        case "image_url":
            image = part.get("image_url")
            return _data(image.get("url") if isinstance(image, dict) else image, where)
        case "file":
            return _data(_mapping(part.get("file")).get("file_data"), where)
        case "input_audio":
            audio = _mapping(part.get("input_audio"))
            return {"inlineData": {"mimeType": f"audio/{audio.get('format')}", "data": audio.get("data")}}
        case _:
            raise CannotCarry(where)


def _data(url: Any, where: str) -> Part:
    found = _DATA_URL.match(url) if isinstance(url, str) else None
    if found:
        return {"inlineData": {"mimeType": found[1].lower(), "data": url[found.end() :]}}
    if isinstance(url, str) and url.startswith("https://"):
        kind = mimetypes.guess_type(url.partition("?")[0])[0] or "image/jpeg"
        return {"fileData": {"mimeType": kind, "fileUri": url}}
    raise CannotCarry(where)


def _object(text: Any, name: str) -> dict[str, Any]:
    """JSON of an object as that object; anything else under ``name``."""
    if isinstance(text, dict):
        return text
    if not isinstance(text, str) or (name == "arguments" and not text.strip()):
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {name: text}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
