"""A chat request, checked and boiled down to what decides the answer."""

import re
from dataclasses import dataclass, replace
from typing import Any

from routing.simulator.behaviour import Behaviour, behaviour_of, read_directives
from routing.simulator.failures import invalid

MAX_CHOICES = 128
_TOOL_WORD = re.compile(r"\btools?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the client offers: its name and the JSON Schema of its arguments."""

    name: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """One chat request.

    `words` is the number of whitespace-separated words over the text of all messages; `limit` is
    max_completion_tokens (or max_tokens), None without one; `called` are the tools to call in the
    answer (empty: answer with text); `forced` says that one tool was named by the client;
    `schema` is the JSON Schema the content must follow, or None; `prefill` is the number of words
    of a last message by the assistant, which the answer continues, None where there is none;
    `thinks` says that an effort of reasoning was asked for.
    """

    model: str
    behaviour: Behaviour
    words: int
    choices: int
    limit: int | None
    stream: bool
    include_usage: bool
    called: tuple[Tool, ...]
    forced: bool
    schema: dict[str, Any] | None
    case: str
    prefill: int | None = None
    thinks: bool = False

    def with_behaviour(self, behaviour: Behaviour) -> "ChatPrompt":
        """The same request, answered in another way."""
        return replace(self, behaviour=behaviour)


def count_words(text: str) -> int:
    """The token rule: one token for each whitespace-separated word."""
    return len(text.split())


def texts_of(content: Any) -> list[str]:
    """The texts of a message's content: the string itself, or its parts of type text."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        return [
            part["text"]
            for part in content
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        ]
    return []


def read_prompt(body: dict[str, Any], model: str, case: str) -> ChatPrompt:
    """Check a chat request's body and read from it what decides the answer.

    `case` names the test case for faults that show only once; the `case=` directive wins over it.
    Raises SimulatedError (400) for a request that does not follow the protocol.
    """
    messages = body.get("messages")
    if messages is None:
        raise invalid(
            "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
        )
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise invalid(
            "Invalid type for 'messages': expected an array of objects.",
            param="messages",
            code="invalid_type",
        )
    if not messages:
        raise invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an "
            "empty array instead.",
            param="messages",
            code="empty_array",
        )
    words, asked = 0, ""
    for message in messages:
        if not isinstance(message.get("role"), str):
            raise invalid("Missing required parameter: 'messages[].role'.", param="messages")
        texts = texts_of(message.get("content"))
        words += sum(map(count_words, texts))
        if message["role"] == "user":
            asked = "\n".join(texts)
    directives = read_directives(asked)
    called, forced = _called(body, messages[-1], asked, directives.calls)
    options = body.get("stream_options")
    limit = _positive(body, "max_completion_tokens")
    old_limit = _positive(body, "max_tokens")
    choices = _positive(body, "n") or 1
    if choices > MAX_CHOICES:
        raise invalid(
            f"Invalid 'n': integer above maximum value. Expected a value <= {MAX_CHOICES}, but got "
            f"{choices} instead.",
            param="n",
            code="integer_above_max_value",
        )
    return ChatPrompt(
        model=model,
        behaviour=behaviour_of(model, directives),
        words=words,
        choices=choices,
        limit=old_limit if limit is None else limit,
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        called=called,
        forced=forced,
        schema=_schema(body),
        case=directives.case or case,
        thinks=body.get("reasoning_effort") not in (None, "none"),
        prefill=sum(map(count_words, texts)) if message["role"] == "assistant" else None,
    )


def _positive(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type")
    if value < 1:
        raise invalid(
            f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    return value


def _called(
    body: dict[str, Any], last: dict[str, Any], asked: str, calls: int
) -> tuple[tuple[Tool, ...], bool]:
    """Which tools the answer calls, and whether the client named the one."""
    tools = _tools(body)
    choice = body.get("tool_choice")
    if choice is not None and not tools and choice != "none":
        raise invalid(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
            param="tool_choice",
        )
    if not tools or choice == "none" or last["role"] in ("tool", "function"):
        return (), False
    named: str | None = None
    must = choice == "required"
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            allowed = choice.get("allowed_tools")
            tools, must = _allowed(tools, allowed if isinstance(allowed, dict) else {})
        else:
            function = choice.get("function")
            named = function.get("name") if isinstance(function, dict) else None
            if not any(tool.name == named for tool in tools):
                raise invalid(
                    "Invalid value for 'tool_choice': the named tool is not among 'tools'.",
                    param="tool_choice",
                )
            must = True
    if not must and not (last["role"] == "user" and _TOOL_WORD.search(asked)):
        return (), False
    if named is not None:
        return tuple(tool for tool in tools if tool.name == named)[:1], True
    spoken = {word.strip(".,;:!?()'\"`") for word in asked.split()}
    first = next((place for place, tool in enumerate(tools) if tool.name in spoken), 0)
    if body.get("parallel_tool_calls") is False:
        calls = 1
    return tuple(tools[(first + place) % len(tools)] for place in range(calls)), False


def _tools(body: dict[str, Any]) -> list[Tool]:
    offered = body.get("tools")
    if offered is None:
        return []
    if not isinstance(offered, list):
        raise invalid("Invalid type for 'tools': expected an array.", param="tools", code="invalid_type")
    tools = []
    for place, tool in enumerate(offered):
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(tool, dict) and tool.get("type") not in ("function", None):
            continue  # custom tools have no schema to call them by
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid(
                f"Missing required parameter: 'tools[{place}].function.name'.",
                param=f"tools[{place}].function.name",
                code="missing_required_parameter",
            )
        parameters = function.get("parameters")
        tools.append(Tool(function["name"], parameters if isinstance(parameters, dict) else {}))
    return tools


def _allowed(tools: list[Tool], allowed: dict[str, Any]) -> tuple[list[Tool], bool]:
    listed = allowed.get("tools")
    names = {
        item["function"]["name"]
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict) and isinstance(item.get("function"), dict) and "name" in item["function"]
    }
    kept = [tool for tool in tools if tool.name in names]
    if not kept:
        raise invalid(
            "Invalid value for 'tool_choice': no allowed tool is among 'tools'.", param="tool_choice"
        )
    return kept, allowed.get("mode") == "required"


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of the answer's content: the client's own, a small one for json_object."""
    wanted = body.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object", "properties": {"simulated": {"const": True}, "value": {"type": "string"}}}
    if kind == "json_schema":
        holder = wanted.get("json_schema")
        schema = holder.get("schema", {}) if isinstance(holder, dict) else None
        if isinstance(schema, dict):
            return schema
        raise invalid(
            "Missing required parameter: 'response_format.json_schema'.",
            param="response_format.json_schema",
            code="missing_required_parameter",
        )
    raise invalid(
        "Invalid value for 'response_format.type'. Supported: 'json_object', 'json_schema' and 'text'.",
        param="response_format.type",
        code="invalid_value",
    )
