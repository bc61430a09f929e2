"""A ``/v1/responses`` request as a chat: instructions and items become messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import Facts, chat_facts_of, decode, wrong_type
from gateway.v1.translation import thoughts
from gateway.v1.translation.response_items import messages_of, normal_items
from gateway.v1.translation.shape import Object

# What means the same to a chat, by the same name. A client's `metadata` stays here.
_SAME: Final = (
    "model",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "stream",
    "temperature",
    "top_p",
    "user",
)
# What would change the answer and cannot be done here.
_REFUSED: Final = ("background", "conversation", "context_management", "prompt")
ENCRYPTED_CONTENT: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"


def response_facts(raw: bytes, end_user_header: str, earlier: Sequence[Object] | None = None) -> Facts:
    """Facts of a ``/v1/responses`` body. ``earlier`` are the items that ``previous_response_id`` stands
    for, oldest first. Raises InvalidRequest naming the parameter."""
    asked = decode(raw)
    if asked.get("previous_response_id") and earlier is None:
        # An answer to half of a conversation would look like one to all of it.
        raise InvalidRequest(
            "The previous response was not looked up.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    for name in _REFUSED:
        if asked.get(name):
            raise InvalidRequest(
                f"'{name}' is not supported by this gateway.", param=name, code="unsupported_parameter"
            )
    if not isinstance(asked.get("metadata"), dict | None):
        raise wrong_type("metadata", "an object", asked["metadata"])
    if not isinstance(asked.get("previous_response_id"), str | None):
        raise wrong_type("previous_response_id", "a string", asked["previous_response_id"])
    body = {name: asked[name] for name in _SAME if asked.get(name) is not None}
    instructions = asked.get("instructions")
    if not isinstance(instructions, str | None):
        raise wrong_type("instructions", "a string", instructions)
    told = [{"role": "system", "content": instructions}] if instructions else []
    items = [*(earlier or ()), *normal_items(asked)]
    body["messages"] = [*told, *messages_of(items)]
    dropped: list[str] = []
    if asked.get("max_output_tokens") is not None:
        body["max_tokens"] = _bound(asked["max_output_tokens"])
    _tools(asked, body)
    _format(asked, body)
    _reasoning(asked, body)
    _include(asked, body, dropped)
    if asked.get("truncation") not in (None, "disabled"):
        dropped.append("truncation")
    if asked.get("max_tool_calls") is not None:
        dropped.append("max_tool_calls")
    # The earlier items are not in what the client sent, but they are in what a provider reads.
    size = len(orjson.dumps(body)) if earlier else len(raw)
    facts = chat_facts_of(body, size, end_user_header, asked=asked, dropped=tuple(dropped))
    facts.native = {**asked, "input": _resent(items)}
    return facts


def _resent(items: Sequence[Object]) -> list[Object]:
    """The items for who speaks this API, without thinking that nobody but this gateway can read."""
    kept = []
    for item in items:
        if item["type"] == "reasoning":
            sealed = item.get("encrypted_content")
            if not isinstance(sealed, str) or thoughts.packed_here(sealed):
                continue
        kept.append(item)
    return kept


def _bound(value: object) -> int:
    if value.__class__ is not int:
        raise wrong_type("max_output_tokens", "an integer", value)
    assert isinstance(value, int)  # noqa: S101  # as just seen
    if value < 1:
        raise InvalidRequest(
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 1, but got {value} instead.",
            param="max_output_tokens",
            code="integer_below_min_value",
        )
    return value


def _tools(asked: Object, body: Object) -> None:
    tools = asked.get("tools")
    if not isinstance(tools, list | None):
        raise wrong_type("tools", "an array", tools)
    if tools:
        body["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    choice = asked.get("tool_choice")
    if choice is None or (choice == "auto" and not tools):
        return
    body["tool_choice"] = _tool_choice(choice)


def _tool(tool: Any, param: str) -> Object:
    if not isinstance(tool, dict):
        raise wrong_type(param, "an object", tool)
    kind = tool.get("type")
    if kind != "function":
        raise unsupported_tool(kind, param)
    if not isinstance(tool.get("name"), str):
        raise InvalidRequest(
            f"Missing required parameter: '{param}.name'.",
            param=f"{param}.name",
            code="missing_required_parameter",
        )
    names = ("name", "description", "parameters", "strict")
    return {
        "type": "function",
        "function": {name: tool[name] for name in names if tool.get(name) is not None},
    }


def unsupported_tool(kind: object, param: str) -> InvalidRequest:
    """The error for a tool that the API's own makers run."""
    shown = kind if isinstance(kind, str) and kind.isprintable() else "?"
    return InvalidRequest(
        f"The tool type '{shown[:60]}' is not supported by this gateway. Only functions, which your app runs, are.",
        param=f"{param}.type",
        code="unsupported_tool",
    )


def _tool_choice(choice: object) -> str | Object:
    if choice in ("none", "auto", "required"):
        return str(choice)
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind == "function" and isinstance(choice.get("name"), str):
            return {"type": "function", "function": {"name": choice["name"]}}
        if kind == "allowed_tools" and isinstance(choice.get("tools"), list):
            allowed = [
                {"type": "function", "function": {"name": tool.get("name")}}
                for tool in choice["tools"]
                if isinstance(tool, dict)
            ]
            mode = choice.get("mode") or "auto"
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
    raise InvalidRequest(
        "Invalid 'tool_choice': expected 'none', 'auto', 'required', a function or allowed tools.",
        param="tool_choice",
        code="invalid_value",
    )


def _format(asked: Object, body: Object) -> None:
    text = asked.get("text")
    if text is None:
        return
    if not isinstance(text, dict):
        raise wrong_type("text", "an object", text)
    if text.get("verbosity") is not None:
        body["verbosity"] = text["verbosity"]
    form = text.get("format")
    if form is None:
        return
    if not isinstance(form, dict):
        raise wrong_type("text.format", "an object", form)
    kind = form.get("type")
    if kind == "json_object":
        body["response_format"] = {"type": kind}
    elif kind == "json_schema":
        for name in ("name", "schema"):
            if form.get(name) is None:
                raise InvalidRequest(
                    f"Missing required parameter: 'text.format.{name}'.",
                    param=f"text.format.{name}",
                    code="missing_required_parameter",
                )
        inner = {name: value for name, value in form.items() if name != "type" and value is not None}
        body["response_format"] = {"type": kind, "json_schema": inner}
    elif kind != "text":
        raise InvalidRequest(
            "Invalid 'text.format.type': expected 'text', 'json_schema' or 'json_object'.",
            param="text.format.type",
            code="invalid_value",
        )


def _reasoning(asked: Object, body: Object) -> None:
    reasoning = asked.get("reasoning")
    if reasoning is None:
        return
    if not isinstance(reasoning, dict):
        raise wrong_type("reasoning", "an object", reasoning)
    if reasoning.get("effort") is not None:
        body["reasoning_effort"] = reasoning["effort"]


def _include(asked: Object, body: Object, dropped: list[str]) -> None:
    include = asked.get("include")
    if not isinstance(include, list | None):
        raise wrong_type("include", "an array", include)
    top = asked.get("top_logprobs")
    if LOGPROBS in (include or ()) or top:
        body["logprobs"] = True
        if top:
            body["top_logprobs"] = top
    if any(wanted not in (LOGPROBS, ENCRYPTED_CONTENT) for wanted in include or ()):
        dropped.append("include")
