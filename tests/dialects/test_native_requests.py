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


def deployment(kind: str, model: str = "claude-opus-4-7") -> DeploymentSpec:
    provider = ProviderSpec(1, "p", KINDS[kind], "http://x", 1, 1, 1, 1)
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
    return spoken_by(speaks, Exchange(endpoint), facts, contract)


def asked(api: str, facts: Facts, model: str = "claude-opus-4-7", **options: Any) -> tuple[Any, list[str]]:
    kind = "openai" if api == "responses" else "anthropic"
    raw, lost = native_body(api, deployment(kind, model), group(**options), facts)
    return json.loads(raw), lost


@pytest.mark.parametrize("kind", KINDS)
def test_only_who_speaks_an_api_is_asked_in_it(kind: str) -> None:
    assert spoken(kind, "responses", response()) == ("responses" if kind == "openai" else "")
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
    sent = asked("responses", response(input=items))[0]["input"]
    # Thinking that OpenAI could not read is left out.
    assert [item["type"] for item in sent] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert sent[1]["encrypted_content"] == "sealed"
    assert not any("id" in item for item in sent)
