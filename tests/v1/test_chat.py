"""Chat, embeddings and models, as the OpenAI SDK sees them."""

from __future__ import annotations

import base64
import json
import struct
from decimal import Decimal
from typing import Any

import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.stack import Tenant
from tests.v1.conftest import events

ASK: list[Any] = [{"role": "user", "content": "one two three"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Berlin"]},
                "days": {"type": "integer", "minimum": 1},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def sdk(tenant: Tenant) -> OpenAI:
    return tenant.client()


def test_a_plain_chat_answers_and_its_event_is_priced_to_the_last_place(tenant: Tenant, sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(model="sim-small", messages=ASK, user="eve")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 10)
    (event,) = events(tenant)
    assert (event.input_tokens, event.output_tokens, event.usage_source) == (3, 10, "reported")
    # 3 x 1.00 + 10 x 4.00 and 3 x 2.00 + 10 x 8.00 US dollars per million tokens.
    assert event.cost == Decimal("0.000043")
    assert event.charge == Decimal("0.000086")
    assert (event.end_user, event.model_group, event.end_reason, event.status) == (
        "eve",
        "sim-small",
        "completed",
        200,
    )
    assert [attempt["reason"] for attempt in event.attempts] == ["ok"]


def test_cached_tokens_have_their_own_price(tenant: Tenant, sdk: OpenAI) -> None:
    ask: list[Any] = [{"role": "user", "content": "one two three cached=2"}]
    sdk.chat.completions.create(model="sim-small", messages=ask)
    (event,) = events(tenant)
    assert (event.input_tokens, event.cached_input_tokens, event.output_tokens) == (2, 2, 10)
    # 2 x 2.00 + 2 x 0.20 + 10 x 8.00 per million.
    assert event.charge == Decimal("0.0000844")


def test_reasoning_tokens_are_part_of_the_output(tenant: Tenant, sdk: OpenAI) -> None:
    ask: list[Any] = [{"role": "user", "content": "think reasoning=5"}]
    sdk.chat.completions.create(model="sim-small", messages=ask)
    (event,) = events(tenant)
    assert (event.output_tokens, event.reasoning_tokens) == (15, 5)


def test_a_stream_is_the_plain_answer_in_pieces_and_costs_the_same(tenant: Tenant, sdk: OpenAI) -> None:
    plain = sdk.chat.completions.create(model="sim-small", messages=ASK)
    stream = list(sdk.chat.completions.create(model="sim-small", messages=ASK, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"
    first, second = events(tenant)
    assert first.charge == second.charge == Decimal("0.000086")
    assert (first.streamed, second.streamed) == (False, True)
    assert second.usage_source == "reported"
    assert second.first_token_ms is not None


def test_a_usage_chunk_comes_last_and_only_to_who_asked(sdk: OpenAI) -> None:
    without = list(sdk.chat.completions.create(model="sim-small", messages=ASK, stream=True))
    assert all(chunk.choices for chunk in without)
    asked = list(
        sdk.chat.completions.create(
            model="sim-small", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [bool(chunk.usage) for chunk in asked] == [False] * (len(asked) - 1) + [True]
    assert asked[-1].choices == []
    assert asked[-1].usage is not None
    assert asked[-1].usage.total_tokens == 13


def test_the_stream_helper_of_the_sdk_reads_it_to_the_end(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(model="sim-small", messages=ASK) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.role == "assistant"
    assert final.choices[0].finish_reason == "stop"


def test_a_tool_call_matches_its_schema(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small",
        messages=ASK,
        tools=[WEATHER],
        tool_choice="required",
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] == "Berlin"
    assert arguments["days"] >= 1


def test_a_streamed_tool_call_comes_whole(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model="sim-small",
        messages=ASK,
        tools=[WEATHER],
        tool_choice="required",
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments)["city"] == "Berlin"
    assert final.choices[0].finish_reason == "tool_calls"


def test_structured_output_parses_into_the_model(sdk: OpenAI) -> None:
    class City(BaseModel):
        name: str
        people: int

    answer = sdk.chat.completions.parse(model="sim-small", messages=ASK, response_format=City)
    assert isinstance(answer.choices[0].message.parsed, City)


def test_several_choices_are_all_streamed_to_their_end(sdk: OpenAI) -> None:
    stream = list(sdk.chat.completions.create(model="sim-small", messages=ASK, stream=True, n=2))
    finished = {c.index: c.finish_reason for chunk in stream for c in chunk.choices if c.finish_reason}
    assert finished == {0: "stop", 1: "stop"}


def test_an_answer_cut_by_its_bound_says_so(tenant: Tenant, sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(model="sim-small", messages=ASK, max_tokens=4)
    assert answer.choices[0].finish_reason == "length"
    (event,) = events(tenant)
    assert event.output_tokens == 4


def test_members_that_validators_demand_are_filled_in(tenant: Tenant) -> None:
    with tenant.http() as http:
        answer = http.post("/v1/chat/completions", json={"model": "sim-small", "messages": ASK}).json()
    assert "refusal" in answer["choices"][0]["message"]
    assert "logprobs" in answer["choices"][0]


def test_an_embedding_comes_as_floats_and_as_base64_alike(tenant: Tenant) -> None:
    with tenant.http() as http:
        ask = {"model": "sim-embed", "input": "one two three"}
        floats = http.post("/v1/embeddings", json=ask).json()
        packed = http.post("/v1/embeddings", json={**ask, "encoding_format": "base64"}).json()
    vector = floats["data"][0]["embedding"]
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(vector)}f", raw)) == pytest.approx(vector)
    first, _ = events(tenant)
    assert (first.input_tokens, first.output_tokens, first.endpoint) == (3, 0, "embeddings")
    assert first.charge == Decimal("0.000006")


def test_the_sdk_gets_an_embedding_in_its_own_default_form(sdk: OpenAI) -> None:
    answer = sdk.embeddings.create(model="sim-embed", input=["one", "two"])
    assert [item.index for item in answer.data] == [0, 1]
    assert all(len(item.embedding) == 64 for item in answer.data)


def test_models_are_listed_and_found_one_by_one(sdk: OpenAI) -> None:
    names = [model.id for model in sdk.models.list()]
    assert "sim-small" in names
    assert sdk.models.retrieve("sim-small").object == "model"


def test_every_answer_has_a_request_id_of_its_own(tenant: Tenant, sdk: OpenAI) -> None:
    first = sdk.chat.completions.with_raw_response.create(model="sim-small", messages=ASK)
    second = sdk.chat.completions.with_raw_response.create(model="sim-small", messages=ASK, stream=True)
    ids = [first.headers["x-request-id"], second.headers["x-request-id"]]
    second.parse().close()
    assert ids[0] in {event.request_id for event in events(tenant)}
    assert ids[0] != ids[1]
    assert all(name.startswith("req_") for name in ids)
