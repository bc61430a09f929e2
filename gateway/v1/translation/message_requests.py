"""A ``/v1/messages`` request of Anthropic's API as a chat."""

from __future__ import annotations

import re
from typing import Any, Final

from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import Facts, chat_facts_of, decode, whole, wrong_type
from gateway.v1.translation import thoughts
from gateway.v1.translation.message_blocks import messages_of, text_of
from gateway.v1.translation.shape import Object

# What would change the answer and cannot be done here.
_REFUSED: Final = ("mcp_servers", "container", "context_management")
# What has no place in a chat, and is not missed where it says nothing of the answer.
_UNHEARD: Final = ("top_k", "inference_geo", "speed")
# Thinking budgets, in tokens, below which the effort is called so.
_EFFORTS: Final = ((4_096, "low"), (16_384, "medium"))
# Ids of calls that Anthropic takes back.
_CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
# Efforts that chats know; Anthropic has more.
_MOST_EFFORT: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}


def message_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a ``/v1/messages`` body; raises InvalidRequest naming the parameter."""
    asked = decode(raw)
    body, dropped = _chat(asked)
    bound = whole(asked, "max_tokens", 1)
    if bound is None:
        raise InvalidRequest(
            "max_tokens: Field required", param="max_tokens", code="missing_required_parameter"
        )
    body["max_tokens"] = bound
    facts = chat_facts_of(body, len(raw), end_user_header, asked=asked, dropped=tuple(dropped))
    facts.native = asked if own_words(asked) else None
    return facts


def counted_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a ``/v1/messages/count_tokens`` body, which has no bound of an answer."""
    asked = decode(raw)
    body, _ = _chat(asked)
    facts = chat_facts_of(body, len(raw), end_user_header, asked=asked)
    facts.native = asked if own_words(asked) else None
    return facts


def own_words(asked: Object) -> bool:
    """Whether Anthropic itself could have led the conversation. It refuses thinking of others, which has no
    signature of its own, and ids of calls that it would not have given."""
    for message in asked["messages"]:
        content = message["content"]
        for block in content if isinstance(content, list) else ():
            kind = block.get("type")
            if kind in ("thinking", "redacted_thinking"):
                sealed = block.get("signature" if kind == "thinking" else "data")
                if not isinstance(sealed, str) or not sealed or thoughts.packed_here(sealed):
                    return False
            call_id = block.get("id") if kind == "tool_use" else block.get("tool_use_id")
            if call_id is not None and not _CALL_ID.fullmatch(str(call_id)):
                return False
    return True


def _chat(asked: Object) -> tuple[Object, list[str]]:
    for name in _REFUSED:
        if asked.get(name):
            raise InvalidRequest(
                f"{name}: not supported by this gateway.", param=name, code="unsupported_parameter"
            )
    dropped = [name for name in _UNHEARD if asked.get(name) is not None]
    body: Object = {
        name: asked[name]
        for name in ("model", "stream", "temperature", "top_p")
        if asked.get(name) is not None
    }
    system = asked.get("system")
    if not isinstance(system, str | list | None):
        raise wrong_type("system", "a string or an array of blocks", system)
    told = [{"role": "system", "content": text_of(system, "system")}] if system else []
    messages = asked.get("messages")
    if messages is None:
        raise InvalidRequest("messages: Field required", param="messages", code="missing_required_parameter")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of messages", messages)
    if not messages:
        raise InvalidRequest(
            "messages: at least one message is required", param="messages", code="empty_array"
        )
    body["messages"] = told + messages_of(messages)
    stops = asked.get("stop_sequences")
    if not isinstance(stops, list | None):
        raise wrong_type("stop_sequences", "an array of strings", stops)
    if stops:
        body["stop"] = stops
    metadata = asked.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("user_id"), str):
        body["user"] = metadata["user_id"]
    _tools(asked, body)
    _thinking(asked, body)
    return body, dropped


def _tools(asked: Object, body: Object) -> None:
    tools = asked.get("tools")
    if not isinstance(tools, list | None):
        raise wrong_type("tools", "an array", tools)
    if tools:
        body["tools"] = [_tool(tool, f"tools.{place}") for place, tool in enumerate(tools)]
    choice = asked.get("tool_choice")
    if choice is None:
        return
    if not isinstance(choice, dict):
        raise wrong_type("tool_choice", "an object", choice)
    match choice.get("type"):
        case "auto" | "none" as word:
            if tools:
                body["tool_choice"] = word
        case "any":
            body["tool_choice"] = "required"
        case "tool" if isinstance(choice.get("name"), str):
            body["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
        case _:
            raise InvalidRequest(
                "tool_choice.type: expected 'auto', 'any', 'tool' with a name, or 'none'.",
                param="tool_choice",
                code="invalid_value",
            )
    if choice.get("disable_parallel_tool_use") is not None and tools:
        body["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]


def _tool(tool: Any, param: str) -> Object:
    if not isinstance(tool, dict):
        raise wrong_type(param, "an object", tool)
    kind = tool.get("type")
    if kind not in (None, "custom"):
        shown = kind[:60] if isinstance(kind, str) and kind.isprintable() else "?"
        raise InvalidRequest(
            f"{param}.type: the tool '{shown}' is not supported by this gateway. Only tools that your app runs are.",
            param=f"{param}.type",
            code="unsupported_tool",
        )
    if not isinstance(tool.get("name"), str):
        raise InvalidRequest(
            f"{param}.name: Field required", param=f"{param}.name", code="missing_required_parameter"
        )
    function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    function["parameters"] = tool.get("input_schema") or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _thinking(asked: Object, body: Object) -> None:
    thinking, config = asked.get("thinking"), asked.get("output_config")
    for name, value in (("thinking", thinking), ("output_config", config)):
        if not isinstance(value, dict | None):
            raise wrong_type(name, "an object", value)
    effort = (config or {}).get("effort")
    if effort is not None:
        if effort not in _MOST_EFFORT:
            raise InvalidRequest(
                f"output_config.effort: expected one of {', '.join(_MOST_EFFORT)}.",
                param="output_config.effort",
                code="invalid_value",
            )
        body["reasoning_effort"] = _MOST_EFFORT[effort]
    elif (thinking or {}).get("type") == "enabled":
        budget = whole(thinking or {}, "budget_tokens", 1) or 0
        body["reasoning_effort"] = next((name for most, name in _EFFORTS if budget < most), "high")
    form = (config or {}).get("format")
    if form is not None:
        if not isinstance(form, dict) or form.get("type") != "json_schema" or "schema" not in form:
            raise InvalidRequest(
                "output_config.format: expected a json_schema with its schema.",
                param="output_config.format",
                code="invalid_value",
            )
        wanted = {"name": "output", "schema": form["schema"], "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
