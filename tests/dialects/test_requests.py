"""What each provider is sent: the client's request, changed only where the provider demands it."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from typing import Any

import pytest

from routing.dialects import CannotCarry, dialect
from routing.kinds import KINDS
from routing.table import DeploymentSpec, ProviderSpec

SAY = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "g"}}
# Anthropic and Gemini are asked in their own shapes: test_anthropic.py, test_gemini.py.
OPENAI_SHAPED = sorted(set(KINDS) - {"anthropic", "gemini"})
OLD_BOUND = ["deepseek", "qwen", "moonshot", "zhipu", "mistral", "fireworks", "together", "ollama"]


def sent(
    kind: str, model: str = "m", /, *, stream: bool = False, **body: Any
) -> tuple[dict[str, Any], list[str]]:
    """The body that a provider of ``kind`` gets for a client's, and what the client is told was lost."""
    provider = ProviderSpec(1, "p", KINDS[kind], "http://x", 1, 1, 1, 1)
    deployment = DeploymentSpec(1, "d", model, provider, None, None, None)
    asked = {"model": "group", "messages": SAY, **body}
    before = copy.deepcopy(asked)
    raw, lost = dialect(kind).body(deployment, asked, stream=stream)
    # The same body goes to the next provider, if this one fails.
    assert asked == before
    return json.loads(raw), lost


@pytest.mark.parametrize("kind", OPENAI_SHAPED)
def test_a_plain_request_goes_as_it_came_under_the_providers_name_of_the_model(kind: str) -> None:
    body, lost = sent(kind, "their-model", temperature=0.5, top_p=0.9)
    assert body == {"model": "their-model", "messages": SAY, "temperature": 0.5, "top_p": 0.9}
    assert lost == []


@pytest.mark.parametrize("kind", sorted(set(OPENAI_SHAPED) - {"mistral"}))
def test_usage_is_always_asked_for(kind: str) -> None:
    body, _ = sent(kind, stream=True, stream_options={"include_usage": False})
    assert body["stream_options"] == {"include_usage": True}


def test_mistral_is_not_asked_for_usage_since_it_always_tells() -> None:
    assert "stream_options" not in sent("mistral", stream=True)[0]


@pytest.mark.parametrize("kind", OLD_BOUND)
def test_the_newer_bound_is_renamed_for_those_who_know_the_older(kind: str) -> None:
    body, lost = sent(kind, max_completion_tokens=7)
    assert (body["max_tokens"], "max_completion_tokens" in body, lost) == (7, False, [])


@pytest.mark.parametrize(
    ("kind", "model"),
    [("minimax", "MiniMax-M3"), ("openai", "gpt-5.2"), ("openai", "o3-mini"), ("azure", "gpt-6-sol")],
)
def test_the_older_bound_is_renamed_for_those_who_know_the_newer(kind: str, model: str) -> None:
    body, _ = sent(kind, model, max_tokens=7)
    assert (body["max_completion_tokens"], "max_tokens" in body) == (7, False)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "omni"])
def test_models_that_take_the_older_bound_get_it(model: str) -> None:
    assert sent("openai", model, max_tokens=7)[0]["max_tokens"] == 7


def test_of_two_bounds_the_newer_counts() -> None:
    assert sent("mistral", max_tokens=5, max_completion_tokens=7)[0]["max_tokens"] == 7


@pytest.mark.parametrize("kind", sorted(set(OPENAI_SHAPED) - {"openai", "azure", "simulator"}))
def test_the_developer_is_the_system_for_all_but_openai(kind: str) -> None:
    body, _ = sent(kind, messages=[{"role": "developer", "content": "be kind"}, *SAY])
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_openai_knows_the_developer(kind: str) -> None:
    assert (
        sent(kind, messages=[{"role": "developer", "content": "x"}])[0]["messages"][0]["role"] == "developer"
    )


@pytest.mark.parametrize("kind", OPENAI_SHAPED)
def test_an_empty_list_of_tools_is_no_tools(kind: str) -> None:
    body, lost = sent(kind, tools=[], tool_choice="auto", parallel_tool_calls=True)
    assert body == {"model": "m", "messages": SAY}
    assert lost == []


@pytest.mark.parametrize("kind", ["deepseek", "moonshot"])
def test_text_in_parts_is_joined_where_one_string_is_demanded(kind: str) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert (
        sent(kind, messages=[{"role": "user", "content": parts}])[0]["messages"][0]["content"] == "one\ntwo"
    )


def test_parts_that_are_not_all_text_stay() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert (
        sent("moonshot", messages=[{"role": "user", "content": parts}])[0]["messages"][0]["content"] == parts
    )


@pytest.mark.parametrize("kind", ["mistral", "fireworks"])
def test_any_is_the_word_for_required(kind: str) -> None:
    assert sent(kind, tools=[TOOL], tool_choice="required")[0]["tool_choice"] == "any"


def test_a_choice_that_moonshot_does_not_know_is_dropped_and_told() -> None:
    body, lost = sent("moonshot", tools=[TOOL], tool_choice="required")
    assert ("tool_choice" in body, lost) == (False, ["tool_choice"])


@pytest.mark.parametrize(("kind", "word"), [("mistral", "any"), ("lmstudio", "required")])
def test_a_named_function_is_the_only_one_on_offer(kind: str, word: str) -> None:
    body, _ = sent(kind, tools=[TOOL, OTHER], tool_choice=NAMED)
    assert (body["tools"], body["tool_choice"]) == ([OTHER], word)


@pytest.mark.parametrize("kind", ["mistral", "xai"])
def test_strict_tools_are_loosened_where_they_are_refused(kind: str) -> None:
    schema = {
        "$schema": "http://s",
        "type": "object",
        "properties": {"strict": {"type": "object", "additionalProperties": False}},
        "additionalProperties": False,
    }
    strict = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
    (tool,) = sent(kind, tools=[strict])[0]["tools"]
    assert tool["function"] == {
        "name": "f",
        "parameters": {"type": "object", "properties": {"strict": {"type": "object"}}},
    }


def test_mistral_gets_short_ids_the_same_in_the_call_and_its_answer() -> None:
    call = {"id": "call_1234567890", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talk = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1234567890", "name": "f", "content": "1"},
    ]
    first, second = sent("mistral", messages=talk)[0]["messages"]
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", second["tool_call_id"])
    assert first["tool_calls"][0]["id"] == second["tool_call_id"]
    assert second["name"] == "f"


def test_an_id_that_mistral_made_stays() -> None:
    talk = [{"role": "tool", "tool_call_id": "gSIMJiOkT", "content": "1"}]
    assert sent("mistral", messages=talk)[0]["messages"][0]["tool_call_id"] == "gSIMJiOkT"


def test_mistral_has_its_own_word_for_a_seed_and_no_use_for_bookkeeping() -> None:
    body, lost = sent("mistral", seed=7, user="u", metadata={"a": "b"}, store=True)
    assert body == {"model": "m", "messages": SAY, "random_seed": 7}
    assert lost == []


@pytest.mark.parametrize("kind", ["mistral", "xai"])
def test_names_are_taken_off_messages_where_they_are_refused(kind: str) -> None:
    body, _ = sent(kind, messages=[{"role": "user", "name": "Ann", "content": "hi"}])
    assert body["messages"] == SAY


def test_groq_gets_no_null_members() -> None:
    talk = [{"role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm"}]
    assert sent("groq", messages=talk)[0]["messages"] == [{"role": "assistant"}]


@pytest.mark.parametrize("kind", ["deepseek", "moonshot"])
def test_thinking_goes_back_to_those_who_demand_it(kind: str) -> None:
    talk = [{"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    assert sent(kind, messages=talk)[0]["messages"] == talk


@pytest.mark.parametrize(
    ("kind", "model", "body", "lost"),
    [
        ("qwen", "qwen-plus", {"frequency_penalty": 1}, ["frequency_penalty"]),
        ("moonshot", "kimi-k2.6", {"seed": 1, "top_k": 3}, ["seed", "top_k"]),
        ("moonshot", "kimi-k3", {"temperature": 0.3}, ["temperature"]),
        ("groq", "m", {"top_k": 3}, ["top_k"]),
        ("xai", "grok-4.7", {"stop": ["x"], "presence_penalty": 1}, ["presence_penalty", "stop"]),
        (
            "ollama",
            "m",
            {"n": 2, "user": "u", "logit_bias": {}, "tool_choice": "auto"},
            ["logit_bias", "n", "tool_choice", "user"],
        ),
        ("lmstudio", "m", {"response_format": {"type": "json_object"}}, ["response_format"]),
    ],
)
def test_what_cannot_be_passed_on_is_left_out_and_told(
    kind: str, model: str, body: dict[str, Any], lost: list[str]
) -> None:
    passed, told = sent(kind, model, **body)
    assert passed == {"model": model, "messages": SAY}
    assert told == lost


def test_a_parameter_that_is_null_is_not_lost() -> None:
    assert sent("groq", top_k=None)[1] == []


def test_a_temperature_above_moonshots_bound_is_bounded_and_told() -> None:
    body, lost = sent("moonshot", "kimi-k2.6", temperature=1.5)
    assert (body["temperature"], lost) == (1.0, ["temperature"])


def test_moonshot_gets_a_response_format_without_the_name_of_its_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$schema": "s", "type": "object"}}}
    body, _ = sent("moonshot", response_format=form)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("kind", "model", "tools", "form"),
    [
        ("deepseek", "m", False, {"type": "json_object"}),
        ("zhipu", "m", False, {"type": "json_object"}),
        ("minimax", "m", False, None),
        ("groq", "llama-3.3-70b-versatile", False, {"type": "json_object"}),
        ("groq", "openai/gpt-oss-20b", True, None),
        ("fireworks", "m", True, None),
    ],
)
def test_a_schema_that_is_not_understood_is_asked_for_in_words(
    kind: str, model: str, tools: bool, form: dict[str, Any] | None
) -> None:
    talk = [{"role": "system", "content": "Be kind."}, *SAY]
    more: dict[str, Any] = {"tools": [TOOL]} if tools else {}
    body, lost = sent(kind, model, messages=talk, response_format=FORM, **more)
    assert body.get("response_format") == form
    first, *rest = body["messages"]
    assert first["role"] == "system"
    assert first["content"].startswith("Be kind.\n\nAnswer with one JSON value")
    assert first["content"].endswith('{"type":"object","properties":{"a":{"type":"integer"}}}')
    assert (rest, lost) == (SAY, [])


def test_without_a_system_message_the_schema_makes_one() -> None:
    body, _ = sent("deepseek", response_format=FORM)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("kind", "model"), [("openai", "m"), ("mistral", "m"), ("groq", "openai/gpt-oss-20b"), ("fireworks", "m")]
)
def test_a_schema_that_is_understood_goes_as_it_is(kind: str, model: str) -> None:
    body, _ = sent(kind, model, response_format=FORM)
    assert (body["response_format"], body["messages"]) == (FORM, SAY)


def test_that_an_answer_be_json_goes_as_it_is_where_only_a_schema_is_not_understood() -> None:
    body, _ = sent("deepseek", response_format={"type": "json_object"})
    assert (body["response_format"], body["messages"]) == ({"type": "json_object"}, SAY)


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("https://r.openai.azure.com/openai/v1", "https://r.openai.azure.com/openai/v1/chat/completions"),
        (
            "https://r.openai.azure.com?api-version=2024-10-21",
            "https://r.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://r.openai.azure.com/openai/?api-version=2024-10-21",
            "https://r.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/other?api-version=1",
            "https://r.openai.azure.com/openai/deployments/other/chat/completions?api-version=1",
        ),
    ],
)
def test_azure_is_addressed_by_deployment_where_a_version_is_given(base_url: str, address: str) -> None:
    provider = ProviderSpec(1, "p", KINDS["azure"], base_url, 1, 1, 1, 1)
    deployment = DeploymentSpec(1, "d", "my gpt", provider, None, None, None)
    assert dialect("azure").url(deployment, "chat.completions") == address
    assert dialect("azure").headers("k", "r")["api-key"] == "k"


def test_azure_refuses_a_tool_choice_without_tools() -> None:
    assert "tool_choice" not in sent("azure", tool_choice="auto")[0]


def test_an_embedding_request_is_only_given_the_models_name() -> None:
    provider = ProviderSpec(1, "p", KINDS["ollama"], "http://x", 1, 1, 1, 1)
    deployment = DeploymentSpec(1, "d", "m", provider, None, None, None)
    raw, lost = dialect("ollama").body(deployment, {"model": "g", "input": "a", "user": "u"}, stream=False)
    assert (json.loads(raw), lost) == ({"model": "m", "input": "a", "user": "u"}, [])


@pytest.mark.parametrize("garbage", [7, "x", [7], {"a": 1}, True, [[]], [None]])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_not_understood_is_left_to_the_provider_to_refuse(kind: str, garbage: Any) -> None:
    requests: list[dict[str, Any]] = [
        *({name: garbage} for name in MEMBERS),
        {"tools": garbage, "tool_choice": NAMED},
        {"messages": [{"role": "assistant", "content": garbage, "tool_calls": garbage}]},
        {"messages": [{"role": "assistant", "reasoning_details": garbage, "tool_calls": [garbage]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": garbage, "function": garbage}]}]},
        {"messages": [{"role": "user", "content": [garbage]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": garbage}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": garbage}]}]},
        {"messages": [{"role": "tool", "content": garbage, "tool_call_id": garbage}]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": garbage}},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": garbage}},
        {"tools": [{"type": "function", "function": garbage}]},
        {"tools": [{"type": "function", "function": {"name": garbage, "parameters": garbage}}]},
        {"response_format": {"type": "json_schema", "json_schema": garbage}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": garbage}}},
    ]
    for request in requests:
        with suppress(CannotCarry):
            sent(kind, **request)


MEMBERS = (
    *("tools", "tool_choice", "response_format", "temperature", "top_p", "max_tokens", "stop", "messages"),
    *("reasoning_effort", "service_tier", "user", "n", "thinking", "output_config", "seed"),
)


def test_what_others_want_back_does_not_go_to_openai() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    theirs = {"index": 0, "extra_content": {"google": {"thought_signature": "s"}}}
    thought = {"reasoning_content": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}
    led: list[dict[str, Any]] = [
        *SAY,
        {"role": "assistant", "content": None, "tool_calls": [{**call, **theirs}], **thought},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
        {"role": "assistant", "content": "A"},
    ]
    plain = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert sent("openai", messages=led)[0]["messages"] == [led[0], plain, *led[2:]]
    assert sent("azure", messages=led)[0]["messages"][1] == {**plain, "reasoning_content": "Hm"}
    # The client's own objects stay as they are, for whoever is asked next.
    assert led[1]["tool_calls"][0]["extra_content"] == theirs["extra_content"]
    assert sent("generic", messages=led)[0]["messages"] == led


def test_messages_without_anything_of_others_are_not_even_copied() -> None:
    led = [*SAY, {"role": "assistant", "content": "A"}]
    body: dict[str, Any] = {"messages": led}
    provider = ProviderSpec(1, "p", KINDS["openai"], "http://x", 1, 1, 1, 1)
    dialect("openai").adapt(DeploymentSpec(1, "d", "m", provider, None, None, None), body)
    assert body["messages"] is led
