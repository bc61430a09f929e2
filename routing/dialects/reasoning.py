"""Where providers put the model's thinking, gathered into ``reasoning_content``.

``reasoning`` moves to ``reasoning_content``, since a client that knows both would show the text twice.
``reasoning_details`` stays beside it: some providers demand it back, unchanged, on the next turn.
"""

from __future__ import annotations

from typing import Any


def unify(message: dict[str, Any]) -> None:
    """Rewrite a message or a delta in place: content parts become text, thinking becomes
    ``reasoning_content``. Nothing is added where there is no thinking."""
    content = message.get("content")
    thought = ""
    if isinstance(content, list):
        message["content"], thought = _parts(content)
    given = message.pop("reasoning", None)
    if isinstance(message.get("reasoning_content"), str):
        given = message["reasoning_content"] or given
    details = message.get("reasoning_details")
    if not given and isinstance(details, list):
        given = _details(details)
    thought += given if isinstance(given, str) else ""
    if thought:
        message["reasoning_content"] = thought
    elif message.get("reasoning_content", 0) is None:
        del message["reasoning_content"]


def _parts(parts: list[Any]) -> tuple[str, str]:
    """Text and thinking of a content array."""
    text, thought = "", ""
    for part in parts:
        if isinstance(part, str):
            text += part
        elif not isinstance(part, dict):
            continue
        elif part.get("type") == "thinking":
            inner = part.get("thinking")
            thought += (
                inner if isinstance(inner, str) else _parts(inner)[0] if isinstance(inner, list) else ""
            )
        elif isinstance(part.get("text"), str):
            text += part["text"]
    return text, thought


def _details(details: list[Any]) -> str:
    """The readable text of ``reasoning_details``; encrypted entries have none."""
    found = ""
    for entry in details:
        if isinstance(entry, dict):
            text = entry.get("text") or entry.get("summary")
            found += text if isinstance(text, str) else ""
    return found


def number(details: list[Any]) -> None:
    """Give entries of a delta's ``reasoning_details`` the ``index`` without which SDKs cannot join them."""
    for position, entry in enumerate(details):
        if isinstance(entry, dict):
            entry.setdefault("index", position)
