"""The OpenAI SDK for Node against the whole stack."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.clients.node_sdk import call
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_faults import grouped


def test_node_gets_a_plain_answer_with_its_usage(tenant: Tenant) -> None:
    answer = call(tenant, "plain")
    (choice,) = answer["choices"]
    assert len(choice["message"]["content"].split()) == 10
    assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "stop")
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (3, 10)
    (event,) = events(tenant)
    assert event.charge == Decimal("0.000086")


def test_node_streams_the_same_text_as_the_plain_answer(tenant: Tenant) -> None:
    plain = call(tenant, "plain")["choices"][0]["message"]["content"]
    chunks = call(tenant, "stream")
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == plain
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_node_gets_the_usage_chunk_last(tenant: Tenant) -> None:
    chunks = call(tenant, "streamUsage")
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 13)


def test_the_stream_helper_of_node_reads_to_the_end(tenant: Tenant) -> None:
    (choice,) = call(tenant, "helper")["choices"]
    assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "stop")
    assert len(choice["message"]["content"].split()) == 10


@pytest.mark.parametrize("name", ["tool", "toolHelper"])
def test_node_gets_a_whole_tool_call(tenant: Tenant, name: str) -> None:
    (choice,) = call(tenant, name)["choices"]
    (made,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert made["function"]["name"] == "weather"
    assert json.loads(made["function"]["arguments"]) == {"city": "Berlin"}


def test_node_gets_a_response_whole_and_by_the_stream_helper(tenant: Tenant) -> None:
    plain, streamed = call(tenant, "response"), call(tenant, "responseHelper")
    assert plain["output_text"] == streamed["output_text"]
    assert len(plain["output_text"].split()) == 10
    assert plain["usage"] == streamed["usage"]
    assert [event.endpoint for event in events(tenant)] == ["responses", "responses"]


def test_node_gets_a_streamed_call_and_parsed_output_of_a_response(tenant: Tenant) -> None:
    (made,) = call(tenant, "responseTool")["output"]
    assert (made["type"], json.loads(made["arguments"])) == ("function_call", {"city": "Berlin"})
    assert call(tenant, "responseParsed")["output_parsed"] == {"city": "Berlin"}


def test_a_response_that_is_cut_is_an_error_in_node(stack: Stack, tenant: Tenant, slug: str) -> None:
    told = call(tenant, "brokenResponse", model=grouped(stack, tenant, slug, "sim-cut"))
    assert told["kind"] == "APIError"


def test_node_gets_an_older_completion(tenant: Tenant) -> None:
    answer = call(tenant, "completion")
    assert (answer["object"], len(answer["choices"][0]["text"].split())) == ("text_completion", 10)


def test_node_gets_the_same_vector_packed_and_as_floats(tenant: Tenant) -> None:
    packed, floats = call(tenant, "embedding", model="sim-embed")
    assert len(packed) == 64
    assert packed == pytest.approx(floats)


def test_node_lists_the_models(tenant: Tenant) -> None:
    assert {"sim-small", "sim-embed"} <= set(call(tenant, "models"))


def test_a_wrong_key_is_an_authentication_error_in_node(tenant: Tenant) -> None:
    told = call(tenant, "failure", key="sk-weir-wrong")
    assert (told["kind"], told["status"], told["code"]) == ("AuthenticationError", 401, "invalid_api_key")
    assert told["requestId"].startswith("req_")


def test_an_unknown_model_is_a_not_found_error_in_node(tenant: Tenant) -> None:
    told = call(tenant, "failure", model="no-such-model")
    assert (told["kind"], told["status"], told["code"]) == ("NotFoundError", 404, "model_not_found")


def test_node_does_not_repeat_a_request_refused_by_a_budget(stack: Stack, slug: str) -> None:
    poor = stack.tenant(slug, quotas=[("organization", "budget", "0.0000001", "month")])
    told = call(poor, "failure")
    assert (told["kind"], told["status"], told["code"]) == ("RateLimitError", 429, "insufficient_quota")
    assert [event.end_reason for event in events(poor)] == ["refused"]


def test_a_stream_that_is_cut_is_an_error_in_node(stack: Stack, tenant: Tenant, slug: str) -> None:
    told = call(tenant, "brokenStream", model=grouped(stack, tenant, slug, "sim-cut"))
    assert told["kind"] == "APIError"


def test_leaving_a_stream_in_node_stops_the_provider(stack: Stack, tenant: Tenant, slug: str) -> None:
    assert call(tenant, "abort", user=slug, text="words=2000 pace_ms=20") == 3
    (end,) = stack.simulator.wait_for_end(slug)
    assert end["end"] == "client_gone"
    assert 3 <= end["words_sent"] < 2000
    (event,) = events(tenant)
    assert event.end_reason == "client_gone"
