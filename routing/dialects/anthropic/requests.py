"""A chat request as Anthropic's Messages API takes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from routing.dialects.anthropic import history, schemas
from routing.dialects.demands import BOOKKEEPING, BOTH_BOUNDS
from routing.dialects.structured import asked_schema, instruction
from routing.dialects.unsupported import CannotCarry
from routing.table import DeploymentSpec

# A request must bound its answer: this, where neither the client nor the deployment does.
DEFAULT_OUTPUT_TOKENS: Final = 4_096
# Tokens of thinking by reasoning_effort, for models that are given a budget; the least that is taken.
_BUDGETS: Final = {
    "minimal": 1_024,
    "low": 1_024,
    "medium": 4_096,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}
_LEAST_BUDGET: Final = 1_024
_EFFORTS: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_SERVICE_TIERS: Final = {"auto": "auto", "priority": "auto", "default": "standard_only"}
# Members that have a counterpart, or none that matters: everything else is lost, and told so.
_TAKEN: Final = BOOKKEEPING | {
    *("model", "messages", "stream", "stream_options", "response_format", "stop", "reasoning_effort"),
    *("tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "service_tier"),
    *BOTH_BOUNDS,
}
# Anthropic's own members, which a client may name.
_OWN: Final = ("top_k", "thinking", "output_config", "container", "inference_geo", "speed", "cache_control")
# Values that ask for what happens anyway.
_IDLE: Final[dict[str, Any]] = {
    "n": 1,
    "logprobs": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "modalities": ["text"],
    "logit_bias": {},
    "top_logprobs": 0,
}


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model takes, by the numbers in its name. (0, 0): a name that is not Anthropic's."""

    version: tuple[int, int]

    @property
    def adaptive(self) -> bool:
        """It is told how much effort to make, and thinks as it sees fit."""
        return self.version >= (4, 6)

    @property
    def samples(self) -> bool:
        """It takes temperature, top_p and top_k: they were removed with Opus 4.7."""
        return self.version < (4, 7)

    @property
    def thinks(self) -> bool:
        """It thinks unless told not to."""
        return self.version >= (5, 0)

    @property
    def schemas(self) -> bool:
        """It can be held to a JSON schema."""
        return self.version >= (4, 5)


_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")


def generation(model: str) -> Generation:
    """The generation that a model's name tells: ``claude-opus-4-7``, ``claude-3-5-haiku-20241022``."""
    found = _VERSION.search(model.lower())
    return Generation((int(found[1]), int(found[2] or 0)) if found else (0, 0))


def messages_request(deployment: DeploymentSpec, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The body of ``POST /v1/messages`` for a chat request, and the names of what it could not carry."""
    model = generation(deployment.model)
    lost = [
        name
        for name, value in body.items()
        if name not in _TAKEN and name not in _OWN and value is not None and value != _IDLE.get(name, ...)
    ]
    system, messages = history.conversation(body["messages"], lost)
    made: dict[str, Any] = {"model": deployment.model, "max_tokens": _bound(deployment, body)}
    made |= {name: body[name] for name in _OWN if body.get(name) is not None}
    user = body.get("safety_identifier") or body.get("user")
    if isinstance(user, str) and user:
        made["metadata"] = {"user_id": user}
    _stop(body, made, lost)
    _tools(model, body, made, lost)
    _format(model, body, made, system)
    _thinking(model, body, made, messages, lost)
    _sampling(model, body, made, lost)
    tier = body.get("service_tier")
    if isinstance(tier, str) and tier in _SERVICE_TIERS:
        made["service_tier"] = _SERVICE_TIERS[tier]
    elif tier is not None:
        lost.append("service_tier")
    if system:
        made["system"] = system
    made["messages"] = messages
    return made, sorted(set(lost))


def _bound(deployment: DeploymentSpec, body: Mapping[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(body.get(name), int):
            return int(body[name])
    return deployment.max_output_tokens or DEFAULT_OUTPUT_TOKENS


def _stop(body: Mapping[str, Any], made: dict[str, Any], lost: list[str]) -> None:
    given = body.get("stop")
    words = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    # Blank ones are refused.
    kept = [word for word in words if isinstance(word, str) and word.strip()]
    if kept:
        made["stop_sequences"] = kept
    if len(kept) < len(words):
        lost.append("stop")


def _tools(model: Generation, body: Mapping[str, Any], made: dict[str, Any], lost: list[str]) -> None:
    tools = []
    for tool in tools_of(body):
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict):
            tools.append(_tool(model, tool, function))
        elif isinstance(tool, dict) and tool.get("type") not in ("function", "custom", None):
            # Anthropic's own tools, named by its own types.
            tools.append(tool)
        else:
            lost.append("tools")
    if not tools:
        return
    made["tools"] = tools
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        allowed = allowed if isinstance(allowed, dict) else {}
        names = {_name(tool) for tool in tools_of(allowed)}
        made["tools"] = [tool for tool in tools if tool.get("name") in names]
        choice = allowed.get("mode")
    chosen: dict[str, Any] | None = None
    if choice in ("auto", "none"):
        chosen = {"type": choice}
    elif choice == "required":
        chosen = {"type": "any"}
    elif isinstance(choice, dict):
        chosen = {"type": "tool", "name": _name(choice)}
    if body.get("parallel_tool_calls") is False and (chosen or {}).get("type") != "none":
        chosen = {**(chosen or {"type": "auto"}), "disable_parallel_tool_use": True}
    if chosen:
        made["tool_choice"] = chosen


def tools_of(holder: Mapping[str, Any]) -> list[Any]:
    """The tools of a request, or of a choice among them."""
    given = holder.get("tools")
    return given if isinstance(given, list) else []


def _tool(model: Generation, tool: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": function.get("name")}
    if function.get("description"):
        made["description"] = function["description"]
    parameters = function.get("parameters")
    made["input_schema"] = (
        parameters if isinstance(parameters, dict) and parameters else {"type": "object", "properties": {}}
    )
    if function.get("strict") is True and model.schemas:
        made |= {"strict": True, "input_schema": schemas.strict(made["input_schema"])}
    if tool.get("cache_control"):
        made["cache_control"] = tool["cache_control"]
    return made


def _name(holder: Any) -> Any:
    function = holder.get("function") if isinstance(holder, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def takes_format(model: Generation, body: Mapping[str, Any]) -> bool:
    """Whether the model can be held to the request's ``response_format``."""
    form = body.get("response_format")
    return not instruction(form) or (model.schemas and asked_schema(form) is not None)


def _format(
    model: Generation, body: Mapping[str, Any], made: dict[str, Any], system: list[dict[str, Any]]
) -> None:
    form = body.get("response_format")
    told = instruction(form)
    if told and takes_format(model, body):
        wanted = {"type": "json_schema", "schema": schemas.strict(asked_schema(form))}
        made["output_config"] = {**_own(made, "output_config"), "format": wanted}
    elif told:
        system.append({"type": "text", "text": told})


def _thinking(
    model: Generation,
    body: Mapping[str, Any],
    made: dict[str, Any],
    messages: list[dict[str, Any]],
    lost: list[str],
) -> None:
    """Thinking is refused where a tool is forced, and where it was on while the tool that is now answered
    was called but the thinking of that turn did not come back."""
    effort = body.get("reasoning_effort")
    if effort is None or "thinking" in made:
        return
    if not isinstance(effort, str):
        raise CannotCarry("reasoning_effort")
    if effort == "none":
        if model.thinks:
            made["thinking"] = {"type": "disabled"}
        return
    forced = _own(made, "tool_choice").get("type") in ("any", "tool")
    if effort not in _EFFORTS or (not model.thinks and (forced or history.lost_its_thinking(messages))):
        lost.append("reasoning_effort")
    elif model.adaptive:
        if not model.thinks or not forced:
            made["thinking"] = {"type": "adaptive", "display": "summarized"}
        made["output_config"] = {"effort": _EFFORTS[effort], **_own(made, "output_config")}
    elif made["max_tokens"] <= _LEAST_BUDGET:
        # The budget is a part of the bound, and must leave something.
        lost.append("reasoning_effort")
    else:
        made["thinking"] = {
            "type": "enabled",
            "budget_tokens": min(_BUDGETS[effort], max(_LEAST_BUDGET, made["max_tokens"] * 4 // 5)),
        }


def _own(made: dict[str, Any], name: str) -> dict[str, Any]:
    given = made.get(name)
    return given if isinstance(given, dict) else {}


def _sampling(model: Generation, body: Mapping[str, Any], made: dict[str, Any], lost: list[str]) -> None:
    temperature, top_p = body.get("temperature"), body.get("top_p")
    thinking = _own(made, "thinking").get("type") in ("enabled", "adaptive")
    if not model.samples or thinking:
        # What is not 1, the default, is refused.
        lost += [
            name for name, value in (("temperature", temperature), ("top_p", top_p)) if value not in (None, 1)
        ]
        if made.pop("top_k", None) is not None:
            lost.append("top_k")
        return
    if isinstance(temperature, int | float):
        made["temperature"] = max(0, min(1, temperature))
        if made["temperature"] != temperature:
            lost.append("temperature")
    if isinstance(top_p, int | float):
        if "temperature" in made and model.schemas:
            # Since 4.5 the two exclude each other.
            if top_p != 1:
                lost.append("top_p")
        else:
            made["top_p"] = top_p
