"""A chat or embedding request as Gemini's generateContent and batchEmbedContents take it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from routing.dialects.demands import BOOKKEEPING, BOTH_BOUNDS
from routing.dialects.gemini import history, schemas
from routing.dialects.structured import asked_schema, instruction
from routing.dialects.unsupported import CannotCarry
from routing.table import DeploymentSpec

# Members of generationConfig by their name in a chat request.
_CONFIG: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
}
_TAKEN: Final = BOOKKEEPING | {
    *("model", "messages", "stream", "stream_options", "response_format", "stop", "reasoning_effort"),
    *("tools", "tool_choice", "n", "service_tier", *_CONFIG, *BOTH_BOUNDS),
}
# Gemini's own members, which a client may name.
_OWN: Final = ("safetySettings", "cachedContent")
_IDLE: Final[dict[str, Any]] = {
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "parallel_tool_calls": True,
}
# Tokens of thinking by reasoning_effort, as Google's compatible endpoint has them, for models that take a
# budget; from 3.0 models take a level. https://ai.google.dev/gemini-api/docs/openai#thinking
_BUDGETS: Final = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
_LEVELS: Final = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
_MOST_STOPS: Final = 5
_VERSION: Final = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?")


def full_name(model: str) -> str:
    """A model's name with its collection: ``models/gemini-3.8-flash``."""
    return model if "/" in model else f"models/{model}"


def version(model: str) -> tuple[int, int]:
    """The version that a model's name tells; (0, 0) for another name."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def content_request(
    deployment: DeploymentSpec, body: Mapping[str, Any], *, stream: bool
) -> tuple[dict[str, Any], list[str]]:
    """The body of ``generateContent`` for a chat request, and the names of what it could not carry."""
    number = version(deployment.model)
    lost = [
        name
        for name, value in body.items()
        if name not in _TAKEN and name not in _OWN and value is not None and value != _IDLE.get(name, ...)
    ]
    system, contents = history.conversation(body["messages"], lost, signed=number >= (3, 0))
    config: dict[str, Any] = {}
    for name, other in _CONFIG.items():
        value = body.get(name)
        if value is None:
            continue
        if name.endswith("penalty") and (not value or number >= (2, 5)):
            # "Penalty is not enabled for this model."
            lost += [name] if value else []
        else:
            config[other] = value
    choices = body.get("n")
    if isinstance(choices, int) and choices > 1:
        if stream:
            lost.append("n")
        else:
            config["candidateCount"] = choices
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None:
            config["maxOutputTokens"] = body[name]
    _stop(body, config, lost)
    if body.get("service_tier") not in (None, "auto", "default"):
        lost.append("service_tier")
    _thinking(deployment.model, number, body, config, lost)
    made: dict[str, Any] = {name: body[name] for name in _OWN if body.get(name) is not None}
    _tools(body, made, lost)
    form = body.get("response_format")
    if instruction(form):
        if not takes_format(number, body):
            system.append({"text": instruction(form)})
        else:
            config["responseMimeType"] = "application/json"
            schema = asked_schema(form)
            if schema is not None:
                config["responseJsonSchema"] = schemas.lowered(schema)
    if system:
        made["systemInstruction"] = {"parts": system}
    if config:
        made["generationConfig"] = config
    return {**made, "contents": contents}, sorted(set(lost))


def takes_format(number: tuple[int, int], body: Mapping[str, Any]) -> bool:
    """Whether the model can be held to the request's ``response_format``: before 3.0 that excludes tools."""
    return number >= (3, 0) or not body.get("tools") or not instruction(body.get("response_format"))


def embedding_request(
    deployment: DeploymentSpec, body: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The body of ``batchEmbedContents``. Raises CannotCarry for tokens instead of text."""
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    if not all(isinstance(text, str) for text in texts):
        raise CannotCarry("input")
    more = {"outputDimensionality": body["dimensions"]} if body.get("dimensions") else {}
    name = full_name(deployment.model)
    return {
        "requests": [{"model": name, "content": {"parts": [{"text": text}]}, **more} for text in texts]
    }, []


def _stop(body: Mapping[str, Any], config: dict[str, Any], lost: list[str]) -> None:
    given = body.get("stop")
    words = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    kept = [word for word in words if isinstance(word, str) and word][:_MOST_STOPS]
    if kept:
        config["stopSequences"] = kept
    if len(kept) < len(words):
        lost.append("stop")


def _thinking(
    model: str, number: tuple[int, int], body: Mapping[str, Any], config: dict[str, Any], lost: list[str]
) -> None:
    effort = body.get("reasoning_effort")
    if effort is None:
        return
    if not isinstance(effort, str):
        raise CannotCarry("reasoning_effort")
    thinks_always = "pro" in model
    if number >= (3, 0):
        level = _LEVELS.get(effort)
        if level is None or (level == "minimal" and thinks_always):
            # The least there is: these models cannot stop thinking.
            level = "low" if thinks_always else "minimal"
            lost.append("reasoning_effort")
        config["thinkingConfig"] = {"thinkingLevel": level, "includeThoughts": True}
    elif number >= (2, 5) and effort in _BUDGETS and not (effort == "none" and thinks_always):
        budget = _BUDGETS[effort]
        config["thinkingConfig"] = {"thinkingBudget": budget, "includeThoughts": budget > 0}
    elif effort != "none" or thinks_always:
        lost.append("reasoning_effort")


def _tools(body: Mapping[str, Any], made: dict[str, Any], lost: list[str]) -> None:
    declared = []
    given = body.get("tools")
    for tool in given if isinstance(given, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            lost.append("tools")
            continue
        one = {name: function[name] for name in ("name", "description") if function.get(name)}
        parameters = function.get("parameters")
        if isinstance(parameters, dict) and parameters.get("properties"):
            one["parametersJsonSchema"] = schemas.lowered(parameters)
        declared.append(one)
    if not declared:
        return
    made["tools"] = [{"functionDeclarations": declared}]
    choice = body.get("tool_choice")
    names: list[Any] = []
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        allowed = allowed if isinstance(allowed, dict) else {}
        tools = allowed.get("tools")
        names = [_name(tool) for tool in (tools if isinstance(tools, list) else ())]
        made["tools"] = [{"functionDeclarations": [one for one in declared if one.get("name") in names]}]
        names, choice = [], allowed.get("mode")
    if isinstance(choice, dict):
        names, choice = [_name(choice)], "required"
    mode = (
        {"auto": "AUTO", "none": "NONE", "required": "ANY"}.get(choice) if isinstance(choice, str) else None
    )
    if mode:
        calling = {"mode": mode, **({"allowedFunctionNames": names} if names else {})}
        made["toolConfig"] = {"functionCallingConfig": calling}


def _name(holder: Any) -> Any:
    function = holder.get("function") if isinstance(holder, dict) else None
    return function.get("name") if isinstance(function, dict) else None
