"""What a provider demands of a chat request that OpenAI does not, and meeting it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from routing.dialects.structured import instruction

BOTH_BOUNDS: Final = ("max_tokens", "max_completion_tokens")
# Parameters for OpenAI's own bookkeeping: without effect on the answer.
BOOKKEEPING: Final = frozenset(
    {"user", "safety_identifier", "store", "metadata", "prompt_cache_key", "prompt_cache_retention"}
)
# Keywords of JSON Schema that some providers refuse in a tool's parameters.
_SCHEMA_KEYWORDS: Final = frozenset({"$id", "$schema"})


@dataclass(frozen=True, slots=True)
class Demands:
    """The differences, each off unless a provider is known for it.

    ``bound``: the one name of the output bound that is understood. ``renamed``: other parameters by
    their name there. ``dropped``: parameters that are refused or ignored; the client is told.
    """

    bound: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    # Parameters without effect on the answer, dropped without a word.
    hushed: frozenset[str] = frozenset()
    # The role ``developer`` is known.
    developer: bool = False
    # A list of text parts must be one string.
    joined_text: bool = False
    # Null members of messages are refused.
    no_nulls: bool = False
    # Members of messages that are refused; ``name`` stays where it names a tool's answer.
    stripped: frozenset[str] = frozenset()
    tool_names: bool = True
    # The word for tool_choice "required"; empty: there is none.
    required: str = "required"
    # A named function is asked for by offering only that one.
    named_by_offer: bool = False
    # ``strict`` and ``additionalProperties: false`` are refused in tools.
    loose_tools: bool = False
    # ``$schema`` spoils a response format.
    plain_schema: bool = False
    most_temperature: float = 2.0
    # Ids of tool calls must be exactly this long, of letters and digits; 0: any.
    id_length: int = 0
    # How far a response format is understood: a schema, only that it be JSON, or not at all.
    formats: Literal["json_schema", "json_object", "words"] = "json_schema"
    # A response format excludes tools.
    format_or_tools: bool = False
    # A streamed request may say that it wants usage.
    asks_usage: bool = True


def meet(demands: Demands, body: dict[str, Any]) -> list[str]:
    """Change ``body`` (a copy of the client's, of which no inner object is changed) to what the
    provider takes. Returns the names of parameters that could not be passed on as they were."""
    if not body.get("tools", True):
        no_tools(body)
    lost = [name for name in demands.dropped if body.pop(name, None) is not None]
    for name in demands.hushed:
        body.pop(name, None)
    _bound(demands, body)
    for name, other in demands.renamed.items():
        if name in body:
            body[other] = body.pop(name)
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature > demands.most_temperature:
        body["temperature"] = demands.most_temperature
        lost.append("temperature")
    if isinstance(body.get("tools"), list):
        _tools(demands, body, lost)
    form = body.get("response_format")
    if demands.plain_schema and isinstance(form, dict):
        body["response_format"] = _without(form, _SCHEMA_KEYWORDS)
    messages = body.get("messages")
    if isinstance(messages, list):
        body["messages"] = [_message(demands, message) for message in messages]
        if not takes_format(demands, body):
            _format_in_words(demands, body)
    return sorted(lost)


def takes_format(demands: Demands, body: Mapping[str, Any]) -> bool:
    """Whether the request's ``response_format``, if it asks for JSON, is understood as it is."""
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("json_schema", "json_object"):
        return True
    if demands.format_or_tools and body.get("tools"):
        return False
    return demands.formats == "json_schema" or (demands.formats == "json_object" and kind == "json_object")


def _format_in_words(demands: Demands, body: dict[str, Any]) -> None:
    """Ask for the format in the first system message, and for JSON alone where that is understood."""
    told = instruction(body.pop("response_format"))
    if demands.formats != "words" and not (demands.format_or_tools and body.get("tools")):
        body["response_format"] = {"type": "json_object"}
    messages = body["messages"]
    first = messages[0] if messages else None
    if isinstance(first, dict) and first.get("role") == "system" and isinstance(first.get("content"), str):
        told = f"{first['content']}\n\n{told}"
        messages = messages[1:]
    body["messages"] = [{"role": "system", "content": told}, *messages]


def no_tools(body: dict[str, Any]) -> None:
    """Take out an empty ``tools`` and what speaks of tools: they mean nothing, and many refuse them."""
    del body["tools"]
    if body.get("tool_choice") in ("auto", "none", None):
        body.pop("tool_choice", None)
    body.pop("parallel_tool_calls", None)


def _bound(demands: Demands, body: dict[str, Any]) -> None:
    if not demands.bound:
        return
    given = [body.pop(name) for name in BOTH_BOUNDS if body.get(name) is not None]
    for name in BOTH_BOUNDS:
        body.pop(name, None)
    if given:
        # The newer name wins, as at OpenAI.
        body[demands.bound] = given[-1]


def _tools(demands: Demands, body: dict[str, Any], lost: list[str]) -> None:
    choice = body.get("tool_choice")
    if choice == "required" and demands.required != "required":
        if demands.required:
            body["tool_choice"] = demands.required
        else:
            del body["tool_choice"]
            lost.append("tool_choice")
    elif demands.named_by_offer and isinstance(choice, dict):
        name = _function(choice).get("name")
        offered = [
            tool for tool in body["tools"] if isinstance(tool, dict) and _function(tool).get("name") == name
        ]
        if offered:
            body["tools"] = offered
            body["tool_choice"] = demands.required
    if demands.loose_tools:
        body["tools"] = loosened(body["tools"])


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    """The function of a tool, of a call or of a choice."""
    function = tool.get("function")
    return function if isinstance(function, dict) else {}


def loosened(value: Any) -> Any:
    """Tools without what only OpenAI's strict mode knows. Properties keep any name they have."""
    if isinstance(value, list):
        return [loosened(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, item in value.items():
        if name == "properties" and isinstance(item, dict):
            found[name] = {key: loosened(inner) for key, inner in item.items()}
        elif (
            name in _SCHEMA_KEYWORDS or name == "strict" or (name == "additionalProperties" and item is False)
        ):
            continue
        elif name in ("enum", "const", "default", "examples"):
            found[name] = item
        else:
            found[name] = loosened(item)
    return found


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    if isinstance(value, list):
        return [_without(item, names) for item in value]
    return value


def _message(demands: Demands, message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    changed = dict(message)
    if not demands.developer and changed.get("role") == "developer":
        changed["role"] = "system"
    for name in demands.stripped:
        if name == "name" and demands.tool_names and changed.get("role") == "tool":
            continue
        changed.pop(name, None)
    if demands.no_nulls:
        changed = {name: value for name, value in changed.items() if value is not None}
    content = changed.get("content")
    if demands.joined_text and isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        if len(texts) == len(content):
            changed["content"] = "\n".join(text for text in texts if isinstance(text, str))
    if demands.id_length:
        _short_ids(changed, demands.id_length)
    return changed


def _short_ids(message: dict[str, Any], length: int) -> None:
    """Rewrite ids of tool calls; the same id becomes the same one in the call and in its answer."""
    given = message.get("tool_call_id")
    if isinstance(given, str):
        message["tool_call_id"] = _short(given, length)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [
            {**call, "id": _short(call["id"], length)}
            if isinstance(call, dict) and isinstance(call.get("id"), str)
            else call
            for call in calls
        ]


def _short(given: str, length: int) -> str:
    if re.fullmatch(rf"[a-zA-Z0-9]{{{length}}}", given):
        return given
    return hashlib.sha256(given.encode()).hexdigest()[:length]
