"""``/v1/messages``, as the Anthropic SDK for Python sees it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_faults import grouped

ASK: Any = {
    "model": "sim-small",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "one two three"}],
}
WEATHER: Any = {
    "name": "weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Berlin"]}},
        "required": ["city"],
    },
}


def client(tenant: Tenant, key: str = "") -> Anthropic:
    """The SDK, unchanged but for its address and key; without its own retries."""
    return Anthropic(base_url=tenant.stack.url, api_key=key or tenant.secret, max_retries=0, timeout=30)


@pytest.fixture
def sdk(tenant: Tenant) -> Anthropic:
    return client(tenant)


def test_a_message_is_metered_and_priced_as_a_chat(tenant: Tenant, sdk: Anthropic) -> None:
    answer = sdk.messages.create(**ASK, metadata={"user_id": "eve"})
    (block,) = answer.content
    assert block.type == "text"
    assert len(block.text.split()) == 10
    assert (answer.stop_reason, answer.role, answer.type) == ("end_turn", "assistant", "message")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 10)
    (event,) = events(tenant)
    # 3 x 2.00 + 10 x 8.00 US dollars per million tokens.
    assert event.charge == Decimal("0.000086")
    assert (event.endpoint, event.end_user) == ("messages", "eve")
    assert answer._request_id == event.request_id


def test_cached_tokens_are_told_apart(sdk: Anthropic) -> None:
    asked = [{"role": "user", "content": "one two three cached=2"}]
    usage = sdk.messages.create(model="sim-small", max_tokens=100, messages=asked).usage  # type: ignore[arg-type]  # plain dicts
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (2, 2)


def test_a_streamed_message_is_the_plain_one_in_events(tenant: Tenant, sdk: Anthropic) -> None:
    plain = sdk.messages.create(**ASK)
    with sdk.messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert plain.content[0].type == "text"
    assert text == plain.content[0].text
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 3, 10)
    assert [event.charge for event in events(tenant)] == [Decimal("0.000086")] * 2


def test_a_loop_with_a_tool_comes_to_its_end(sdk: Anthropic) -> None:
    first = sdk.messages.create(**ASK, tools=[WEATHER], tool_choice={"type": "any"})
    (call,) = first.content
    assert first.stop_reason == "tool_use"
    assert call.type == "tool_use"
    assert call.input == {"city": "Berlin"}
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    talk: Any = [
        *ASK["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = sdk.messages.create(model="sim-small", max_tokens=100, messages=talk, tools=[WEATHER])
    assert (second.stop_reason, second.usage.input_tokens) == ("end_turn", 4)


def test_a_streamed_tool_call_comes_whole(sdk: Anthropic) -> None:
    with sdk.messages.stream(
        **ASK, tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"}
    ) as stream:
        final = stream.get_final_message()
    (call,) = final.content
    assert call.type == "tool_use"
    assert (call.name, call.input, final.stop_reason) == ("weather", {"city": "Berlin"}, "tool_use")


def test_the_asynchronous_client_creates_and_streams(tenant: Tenant) -> None:
    async def both() -> tuple[Any, Any]:
        async with AsyncAnthropic(
            base_url=tenant.stack.url, api_key=tenant.secret, max_retries=0, timeout=30
        ) as sdk:
            plain = await sdk.messages.create(**ASK)
            async with sdk.messages.stream(**ASK) as stream:
                final = await stream.get_final_message()
        return plain, final

    plain, final = asyncio.run(both())
    assert plain.content[0].text == final.content[0].text


def test_a_key_may_come_as_a_bearer_token_too(tenant: Tenant) -> None:
    sdk = Anthropic(base_url=tenant.stack.url, auth_token=tenant.secret, max_retries=0, timeout=30)
    assert sdk.messages.create(**ASK).stop_reason == "end_turn"


def test_errors_have_anthropics_classes_and_types(tenant: Tenant, sdk: Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as wrong_key:
        client(tenant, "sk-weir-wrong").messages.create(**ASK)
    with pytest.raises(anthropic.NotFoundError) as no_model:
        sdk.messages.create(**{**ASK, "model": "none-such"})
    with pytest.raises(anthropic.BadRequestError) as no_tool:
        sdk.messages.create(**ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    told = [_error(caught.value) for caught in (wrong_key, no_model, no_tool)]
    assert [kind for kind, _ in told] == ["authentication_error", "not_found_error", "invalid_request_error"]
    assert all(request_id.startswith("req_") for _, request_id in told)


def _error(error: anthropic.APIStatusError) -> tuple[str, str]:
    body: Any = error.body
    assert body["type"] == "error"
    return body["error"]["type"], body["request_id"]


def test_a_budget_holds_for_a_message(stack: Stack, slug: str) -> None:
    poor = stack.tenant(slug, quotas=[("organization", "budget", "0.0000001", "month")])
    with pytest.raises(anthropic.RateLimitError):
        client(poor).messages.create(**ASK)
    assert [event.end_reason for event in events(poor)] == ["refused"]


def test_an_overloaded_provider_is_told_as_anthropic_tells_it(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-529")
    with pytest.raises(anthropic.InternalServerError) as caught:
        client(tenant).messages.create(**{**ASK, "model": name})
    assert caught.value.status_code == 529
    assert _error(caught.value)[0] == "overloaded_error"
    (event,) = events(tenant)
    assert event.status == 529


def test_a_broken_stream_raises(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-cut")
    with (
        pytest.raises(anthropic.APIStatusError),
        client(tenant).messages.stream(**{**ASK, "model": name}) as stream,
    ):
        stream.get_final_message()
    (event,) = events(tenant)
    assert event.end_reason == "cut"


def test_counting_tokens_costs_nothing_and_is_no_usage(tenant: Tenant, sdk: Anthropic) -> None:
    counted = sdk.messages.count_tokens(model="sim-small", messages=ASK["messages"], tools=[WEATHER])
    assert counted.input_tokens > 0
    assert events(tenant) == []
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.count_tokens(model="none-such", messages=ASK["messages"])


def test_counting_tokens_takes_of_the_request_rate(stack: Stack, slug: str) -> None:
    slow = stack.tenant(slug, quotas=[("organization", "requests_per_minute", "1", "")])
    client(slow).messages.count_tokens(model="sim-small", messages=ASK["messages"])
    with pytest.raises(anthropic.RateLimitError) as caught:
        client(slow).messages.count_tokens(model="sim-small", messages=ASK["messages"])
    assert _error(caught.value)[0] == "rate_limit_error"
