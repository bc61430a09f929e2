"""``/v1/responses`` and ``/v1/completions``, as the OpenAI SDK sees them."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_faults import grouped

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Berlin"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class City(BaseModel):
    """What is asked of the model as structured output."""

    name: str
    people: int


@pytest.fixture
def sdk(tenant: Tenant) -> OpenAI:
    return tenant.client()


def test_a_response_is_metered_and_priced_as_a_chat(tenant: Tenant, sdk: OpenAI) -> None:
    answer = sdk.responses.create(model="sim-small", input="one two three", user="eve")
    assert answer.status == "completed"
    assert len(answer.output_text.split()) == 10
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (3, 10, 13)
    (event,) = events(tenant)
    # 3 x 2.00 + 10 x 8.00 US dollars per million tokens.
    assert event.charge == Decimal("0.000086")
    assert (event.endpoint, event.end_user, event.streamed) == ("responses", "eve", False)
    assert answer.id == f"resp_{event.request_id.removeprefix('req_')}"


def test_a_streamed_response_is_the_plain_one_in_events(tenant: Tenant, sdk: OpenAI) -> None:
    plain = sdk.responses.create(model="sim-small", input="one two three")
    with sdk.responses.stream(model="sim-small", input="one two three") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == plain.output_text
    assert final.usage == plain.usage
    assert [event.charge for event in events(tenant)] == [Decimal("0.000086")] * 2


def test_structured_output_is_parsed_whole_and_streamed(sdk: OpenAI) -> None:
    plain = sdk.responses.parse(model="sim-small", input="a city", text_format=City)
    assert isinstance(plain.output_parsed, City)
    with sdk.responses.stream(model="sim-small", input="a city", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == plain.output_parsed


def test_a_loop_with_a_tool_comes_to_its_end(sdk: OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "one two three"}]
    first = sdk.responses.create(model="sim-small", input=asked, tools=[WEATHER], tool_choice="required")
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Berlin"}
    asked += [call.to_dict(), {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    second = sdk.responses.create(model="sim-small", input=asked, tools=[WEATHER])
    assert second.output_text
    assert second.usage is not None
    # The result of the tool is in the prompt.
    assert second.usage.input_tokens == 4


def test_a_streamed_tool_call_comes_whole(sdk: OpenAI) -> None:
    with sdk.responses.stream(
        model="sim-small", input="one two", tools=[WEATHER], tool_choice="required"
    ) as stream:
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Berlin"})


def test_the_asynchronous_client_creates_streams_and_parses(tenant: Tenant) -> None:
    async def all_three() -> tuple[str, str, object]:
        async with AsyncOpenAI(
            base_url=f"{tenant.stack.url}/v1", api_key=tenant.secret, max_retries=0, timeout=30
        ) as sdk:
            plain = await sdk.responses.create(model="sim-small", input="one two three")
            async with sdk.responses.stream(model="sim-small", input="one two three") as stream:
                final = await stream.get_final_response()
            parsed = await sdk.responses.parse(model="sim-small", input="a city", text_format=City)
        return plain.output_text, final.output_text, parsed.output_parsed

    plain, streamed, parsed = asyncio.run(all_three())
    assert plain == streamed
    assert isinstance(parsed, City)


def test_an_answer_cut_by_its_bound_is_incomplete(sdk: OpenAI) -> None:
    answer = sdk.responses.create(model="sim-small", input="one two three", max_output_tokens=4)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_a_broken_stream_raises_and_is_never_complete(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-cut")
    seen: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        for told in tenant.client().responses.create(model=name, input="one", stream=True):
            seen.append(told.type)  # noqa: PERF401  # what came before the error counts
    assert caught.value.code == "provider_error"
    assert seen[-1] == "response.failed"
    assert "response.completed" not in seen
    (event,) = events(tenant)
    assert event.end_reason == "cut"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "a", "background": True}, "background"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_shape(
    tenant: Tenant, body: dict[str, Any], param: str
) -> None:
    with tenant.http() as http:
        answer = http.post("/v1/responses", json={"model": "sim-small", **body})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["param"] == param


def test_a_budget_holds_for_a_response(stack: Stack, slug: str) -> None:
    poor = stack.tenant(slug, quotas=[("organization", "budget", "0.0000001", "month")])
    with pytest.raises(openai.RateLimitError) as caught:
        poor.client().responses.create(model="sim-small", input="a")
    assert caught.value.code == "insufficient_quota"
    assert [event.end_reason for event in events(poor)] == ["refused"]


def test_what_had_no_place_in_a_chat_is_named_in_a_header(sdk: OpenAI) -> None:
    raw = sdk.responses.with_raw_response.create(model="sim-small", input="a", truncation="auto")
    assert raw.headers["x-weir-dropped-params"] == "truncation"


# --- completions ---------------------------------------------------------------------------------


def test_the_older_completions_answer_plain_and_streamed(tenant: Tenant, sdk: OpenAI) -> None:
    plain = sdk.completions.create(model="sim-small", prompt="one two three")
    assert (plain.object, plain.choices[0].finish_reason) == ("text_completion", "stop")
    assert plain.usage is not None
    assert (plain.usage.prompt_tokens, plain.usage.completion_tokens) == (3, 10)
    stream = list(sdk.completions.create(model="sim-small", prompt="one two three", stream=True))
    assert "".join(chunk.choices[0].text for chunk in stream) == plain.choices[0].text
    assert stream[-1].choices[0].finish_reason == "stop"
    first, second = events(tenant)
    assert (first.endpoint, second.endpoint) == ("completions", "completions")
    assert first.charge == second.charge == Decimal("0.000086")


def test_several_completions_come_with_their_usage_last(sdk: OpenAI) -> None:
    stream = list(
        sdk.completions.create(
            model="sim-small", prompt="one two", n=2, stream=True, stream_options={"include_usage": True}
        )
    )
    finished = {c.index: c.finish_reason for chunk in stream for c in chunk.choices if c.finish_reason}
    assert finished == {0: "stop", 1: "stop"}
    assert stream[-1].usage is not None
    assert stream[-1].usage.completion_tokens == 20


def test_an_echo_is_refused_by_its_name(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.completions.create(model="sim-small", prompt="a", echo=True)
    assert caught.value.param == "echo"
