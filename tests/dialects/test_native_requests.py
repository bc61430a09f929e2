"""Which requests go on in their own words, and what of them does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.v1.bounds import lower
from gateway.v1.contracts import contract_for
from gateway.v1.exchange import Exchange
from gateway.v1.facts import DEFAULT_OUTPUT_TOKENS, Facts
from gateway.v1.native import native_body, spoken_by
from gateway.v1.translation.message_requests import message_facts
from gateway.v1.translation.response_requests import response_facts
from routing.dialects import CannotCarry, dialect
from routing.kinds import KINDS
from routing.table import DeploymentSpec, GroupSpec, ProviderSpec

SCHEMA: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = {"name": "f", "input_schema": SCHEMA}
CITY = {"format": {"type": "json_schema", "schema": SCHEMA}}


SPEAK_RESPONSES = {"openai", "azure", "xai"}


def deployment(kind: str, model: str = "claude-opus-4-7", base_url: str = "http://x") -> DeploymentSpec:
    provider = ProviderSpec(1, "p", KINDS[kind], base_url, 1, 1, 1, 1)
    return DeploymentSpec(1, "d", model, provider, None, None, None)


def group(**options: Any) -> GroupSpec:
    return GroupSpec(1, "g", 0, "priority", (), (), (), (), (), **options)


def message(**asked: Any) -> Facts:
    body = {"model": "g", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], **asked}
    return message_facts(json.dumps(body).encode(), "")


def response(**asked: Any) -> Facts:
    return response_facts(json.dumps({"model": "g", "input": "hi", **asked}).encode(), "")


def spoken(kind: str, endpoint: str, facts: Facts, model: str = "claude-opus-4-7", **options: Any) -> str:
    speaks, at = dialect(kind), deployment(kind, model)
    contract = contract_for(speaks, at, facts.body, group(**options))
    return spoken_by(speaks, at, Exchange(endpoint), facts, contract)


def asked(
    api: str, facts: Facts, model: str = "claude-opus-4-7", kind: str = "", **options: Any
) -> tuple[Any, list[str]]:
    kind = kind or ("openai" if api == "responses" else "anthropic")
    raw, lost = native_body(dialect(kind), api, deployment(kind, model), group(**options), facts)
    return json.loads(raw), lost


@pytest.mark.parametrize("kind", KINDS)
def test_only_who_speaks_an_api_is_asked_in_it(kind: str) -> None:
    assert spoken(kind, "responses", response()) == ("responses" if kind in SPEAK_RESPONSES else "")
    assert spoken(kind, "messages", message()) == ("messages" if kind == "anthropic" else "")


def test_a_chat_stays_a_chat() -> None:
    assert spoken("anthropic", "chat.completions", message()) == ""


def test_an_answer_that_must_be_looked_into_is_asked_for_in_a_chat() -> None:
    tools, formed = message(tools=[TOOL]), message(output_config=CITY)
    assert spoken("anthropic", "messages", tools) == "messages"
    assert spoken("anthropic", "messages", tools, validate_tools=True) == ""
    assert spoken("anthropic", "messages", formed) == "messages"
    # Too old to be held to a schema.
    assert spoken("anthropic", "messages", formed, "claude-3-5-haiku") == ""


def test_the_bound_that_a_budget_lowered_is_the_one_that_is_sent() -> None:
    facts = message()
    lower(facts, 20)
    assert asked("messages", facts)[0]["max_tokens"] == 20
    facts = response(max_output_tokens=90)
    lower(facts, 30)
    assert asked("responses", facts)[0]["max_output_tokens"] == 30


def test_a_bound_that_was_reserved_is_told_to_who_has_none() -> None:
    facts = response()
    assert "max_output_tokens" not in asked("responses", facts)[0]
    facts.tells_bound = True
    assert asked("responses", facts)[0]["max_output_tokens"] == DEFAULT_OUTPUT_TOKENS


def test_what_changes_the_price_is_not_sent() -> None:
    facts = message(speed="fast", inference_geo="us", service_tier="auto")
    body, lost = asked("messages", facts)
    assert lost == ["speed", "inference_geo"]
    assert set(body) == {"model", "max_tokens", "messages", "service_tier"}
    with pytest.raises(CannotCarry):
        asked("messages", facts, unsupported_params="strict")


@pytest.mark.parametrize(("model", "thinks"), [("gpt-5.4-mini", True), ("o3", True), ("gpt-4.1", False)])
def test_sealed_thinking_is_asked_for_where_it_is_kept_and_there_is_any(model: str, thinks: bool) -> None:
    facts = response(include=["message.output_text.logprobs"])
    assert asked("responses", facts, model)[0]["include"] == ["message.output_text.logprobs"]
    facts.kept = True
    sealed = ["reasoning.encrypted_content"] if thinks else []
    assert asked("responses", facts, model)[0]["include"] == ["message.output_text.logprobs", *sealed]


def test_items_go_without_the_ids_by_which_they_would_be_looked_up() -> None:
    items = [
        {"type": "message", "id": "msg_1", "role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "weir1:W10="},
        {"type": "reasoning", "id": "rs_3", "summary": [], "encrypted_content": "sealed"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "1"},
    ]
    kinds = ["message", "reasoning", "function_call", "function_call_output"]
    for kind in ("openai", "azure"):
        sent = asked("responses", response(input=items), kind=kind)[0]["input"]
        # Thinking that the provider could not read is left out.
        assert [item["type"] for item in sent] == kinds
        assert sent[1]["encrypted_content"] == "sealed"
        assert not any("id" in item for item in sent)
    # xAI looks nothing up.
    sent = asked("responses", response(input=items), kind="xai")[0]["input"]
    assert [item["id"] for item in sent] == ["msg_1", "rs_3", "fc_1", "fco_1"]


def test_azure_is_not_told_how_an_item_ended() -> None:
    said = [{"type": "output_text", "text": "Ho"}]
    items = [
        {"type": "reasoning", "summary": [], "encrypted_content": "sealed", "status": "completed"},
        {"type": "message", "role": "assistant", "content": said, "status": "completed"},
    ]
    facts = response(input=items)
    assert not any("status" in item for item in asked("responses", facts, kind="azure")[0]["input"])
    assert all("status" in item for item in asked("responses", facts, kind="openai")[0]["input"])


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("https://r.openai.azure.com/openai/v1", "https://r.openai.azure.com/openai/v1/responses"),
        (
            "https://r.openai.azure.com/openai/v1?api-version=preview",
            "https://r.openai.azure.com/openai/v1/responses?api-version=preview",
        ),
        (
            "https://r.openai.azure.com?api-version=2025-04-01-preview",
            "https://r.openai.azure.com/openai/responses?api-version=2025-04-01-preview",
        ),
        (
            "https://r.openai.azure.com/openai/?api-version=preview",
            "https://r.openai.azure.com/openai/responses?api-version=preview",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/my%20gpt?api-version=2025-03-01-preview",
            "https://r.openai.azure.com/openai/responses?api-version=2025-03-01-preview",
        ),
    ],
)
def test_azure_has_one_address_for_the_responses_of_all_models(base_url: str, address: str) -> None:
    at = deployment("azure", "my gpt", base_url)
    assert dialect("azure").natively_at(at) == {"responses"}
    assert dialect("azure").url(at, "responses") == address
    body = native_body(dialect("azure"), "responses", at, group(), response())[0]
    assert json.loads(body)["model"] == "my gpt"


def test_azures_deployment_is_the_one_in_its_address() -> None:
    base_url = "https://r.openai.azure.com/openai/deployments/my%20gpt?api-version=2025-03-01-preview"
    at = deployment("azure", "gpt-5.4", base_url)
    body = native_body(dialect("azure"), "responses", at, group(), response())[0]
    assert json.loads(body)["model"] == "my gpt"


@pytest.mark.parametrize("version", ["2024-10-21", "2025-01-01-preview", "2024-12-01-preview", "latest"])
def test_azure_is_asked_in_a_chat_where_its_version_has_no_responses(version: str) -> None:
    at = deployment("azure", "gpt-5.4", f"https://r.openai.azure.com?api-version={version}")
    assert spoken_by(dialect("azure"), at, Exchange("responses"), response(), None) == ""


def test_what_xai_would_ignore_is_told_and_what_it_names_otherwise_is_renamed() -> None:
    tool = {"type": "function", "name": "f", "strict": True, "parameters": SCHEMA}
    facts = response(
        input=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        truncation="auto",
        include=[
            "reasoning.encrypted_content",
            "message.output_text.logprobs",
            "file_search_call.results",
        ],
        tools=[tool],
    )
    body, lost = asked("responses", facts, "grok-4.3", kind="xai")
    assert lost == ["truncation", "include"]
    assert [item["role"] for item in body["input"]] == ["system", "user"]
    assert (body["include"], body["logprobs"]) == (["reasoning.encrypted_content"], True)
    assert body["tools"] == [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    ]
    assert (body["store"], "truncation" in body) == (False, False)
    with pytest.raises(CannotCarry):
        asked("responses", facts, "grok-4.3", kind="xai", unsupported_params="strict")
    # The next deployment is asked what the client asked.
    assert facts.native is not None
    assert facts.native["input"][0]["role"] == "developer"


@pytest.mark.parametrize(
    ("model", "seals"), [("grok-4.3", True), ("grok-4-1-fast-non-reasoning", False), ("grok-3", False)]
)
def test_sealed_thinking_is_asked_of_xais_models_that_think(model: str, seals: bool) -> None:
    facts = response()
    facts.kept = True
    found = asked("responses", facts, model, kind="xai")[0].get("include", [])
    assert found == (["reasoning.encrypted_content"] if seals else [])
