"""What a provider wants back of its thinking on the next turn, carried through APIs that have one string for it.

In a chat it is ``reasoning_details``: entries with text and a signature, or with nothing but ciphertext.
Anthropic's own signature is shown as it is, so a client may go to and from Anthropic itself. All else is
packed: nobody but the provider reads it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.v1.translation.shape import Object
from routing.dialects.anthropic.answers import FORMAT as ANTHROPIC

_MARK: Final = "weir1:"
ENCRYPTED: Final = "reasoning.encrypted"
TEXT: Final = "reasoning.text"
# What a provider wants back with a call, which stands beside the calls where those have no place for it.
CALL: Final = "weir.call"
# Members that come in pieces.
_JOINED: Final = ("text", "summary", "data")


def merge(entry: Object, piece: Object) -> None:
    """Add a later piece of the same entry to it."""
    for name, value in piece.items():
        old = entry.get(name)
        joined = name in _JOINED and isinstance(old, str) and isinstance(value, str)
        if value is not None:
            entry[name] = old + value if joined else value


def of_call(call: Mapping[str, Any]) -> Object | None:
    """The entry for what came with a call (Gemini's signature of the thought that led to it), or None."""
    extra = call.get("extra_content")
    if not isinstance(extra, dict) or not extra:
        return None
    return {"type": CALL, "id": call.get("id"), "extra_content": extra}


def give_back(message: Object) -> None:
    """Put what came with calls back into them, in a chat message that has such entries."""
    details = message.get("reasoning_details") or ()
    theirs = [entry for entry in details if entry.get("type") == CALL]
    if not theirs:
        return
    extras = {str(entry.get("id")): entry.get("extra_content") for entry in theirs}
    message["reasoning_details"] = [entry for entry in details if entry.get("type") != CALL]
    if not message["reasoning_details"]:
        del message["reasoning_details"]
    for call in message.get("tool_calls") or ():
        if isinstance(extras.get(call["id"]), dict):
            call["extra_content"] = extras[call["id"]]


def readable(entry: Object) -> str:
    """The text of an entry; empty where it is ciphertext."""
    for name in ("text", "summary"):
        value = entry.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def packed(details: Sequence[Object]) -> str:
    """Entries as one string."""
    return _MARK + base64.urlsafe_b64encode(orjson.dumps(details)).decode()


def packed_here(text: str) -> bool:
    """Whether it is such a string, which no provider can read."""
    return text.startswith(_MARK)


def unpacked(text: object) -> list[Object]:
    """The entries of such a string; none where it is not one of ours."""
    if not isinstance(text, str) or not text.startswith(_MARK):
        return []
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text.removeprefix(_MARK)))
    except (binascii.Error, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def signature_of(details: Sequence[Object]) -> str:
    """What stands as ``signature`` of a thinking block."""
    if not details:
        return ""
    only = details[0]
    own = len(details) == 1 and only.get("type") == TEXT and only.get("format") == ANTHROPIC
    if own:
        return str(only.get("signature") or "")
    # The text itself stands in the block.
    return packed([{k: v for k, v in entry.items() if k != "text"} for entry in details])


def data_of(details: Sequence[Object]) -> str:
    """What stands as ``data`` of a thinking block that cannot be read."""
    only = details[0]
    if len(details) == 1 and only.get("format") == ANTHROPIC:
        return str(only.get("data") or "")
    return packed(details)


def details_of(block: dict[str, Any]) -> list[Object]:
    """The entries that a thinking block of Anthropic's API stands for; none where it has no signature."""
    if block.get("type") == "redacted_thinking":
        data = block.get("data")
        return unpacked(data) or [{"type": ENCRYPTED, "data": data, "format": ANTHROPIC}]
    signature, text = block.get("signature"), block.get("thinking")
    found = unpacked(signature)
    if found:
        for entry in found:
            if entry.get("type") == TEXT:
                entry["text"] = text
        return found
    if not signature or not isinstance(signature, str) or packed_here(signature):
        return []
    return [{"type": TEXT, "text": text, "signature": signature, "format": ANTHROPIC}]
