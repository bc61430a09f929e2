"""The OpenAI SDK for Python: its asynchronous client, raw streams and its own retries."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_faults import grouped

ASK: list[Any] = [{"role": "user", "content": "one two three"}]
SLOW: list[Any] = [{"role": "user", "content": "words=2000 pace_ms=20"}]


def asynchronous(tenant: Tenant) -> AsyncOpenAI:
    """The asynchronous client, without its own retries."""
    return AsyncOpenAI(base_url=f"{tenant.stack.url}/v1", api_key=tenant.secret, max_retries=0, timeout=30)


def test_the_asynchronous_client_gets_the_same_answer_plain_and_streamed(tenant: Tenant) -> None:
    async def both() -> tuple[str | None, str]:
        async with asynchronous(tenant) as sdk:
            plain = await sdk.chat.completions.create(model="sim-small", messages=ASK)
            stream = await sdk.chat.completions.create(model="sim-small", messages=ASK, stream=True)
            words = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return plain.choices[0].message.content, "".join(words)

    plain, streamed = asyncio.run(both())
    assert plain is not None
    assert plain == streamed
    assert len(plain.split()) == 10


def test_closing_an_asynchronous_stream_stops_the_provider(stack: Stack, tenant: Tenant, slug: str) -> None:
    async def leave() -> None:
        async with asynchronous(tenant) as sdk:
            stream = await sdk.chat.completions.create(
                model="sim-small", messages=SLOW, stream=True, user=slug
            )
            seen = 0
            async for _ in stream:
                seen += 1
                if seen == 5:
                    break
            await stream.close()

    asyncio.run(leave())
    (end,) = stack.simulator.wait_for_end(slug)
    assert end["end"] == "client_gone"
    assert end["words_sent"] < 2000
    (event,) = events(tenant)
    assert event.end_reason == "client_gone"


def test_cancelling_a_task_stops_the_provider(stack: Stack, tenant: Tenant, slug: str) -> None:
    async def cancel() -> None:
        async with asynchronous(tenant) as sdk:
            started = asyncio.Event()

            async def read() -> None:
                stream = await sdk.chat.completions.create(
                    model="sim-small", messages=SLOW, stream=True, user=slug
                )
                async for _ in stream:
                    started.set()

            task = asyncio.create_task(read())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    (end,) = stack.simulator.wait_for_end(slug)
    assert end["end"] == "client_gone"
    (event,) = events(tenant)
    assert event.end_reason == "client_gone"


def test_a_raw_stream_is_one_event_to_a_line_and_ends_with_done(tenant: Tenant) -> None:
    with tenant.client().chat.completions.with_streaming_response.create(
        model="sim-small", messages=ASK, stream=True
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line and not line.startswith(":")]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])


def test_the_retries_of_the_sdk_outlive_a_provider_that_fails_once(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-429-once")
    raw = tenant.client(max_retries=2).chat.completions.with_raw_response.create(
        model=name, messages=ASK, user=slug
    )
    assert raw.parse().choices[0].finish_reason == "stop"
    sent = raw.http_request.headers["x-stainless-retry-count"]
    told = [(event.status, event.end_reason) for event in events(tenant)]
    assert sent == str(raw.retries_taken) == "1"
    assert told == [(429, "provider_error"), (200, "completed")]


def test_a_refusal_by_a_budget_is_sent_once(stack: Stack, slug: str) -> None:
    poor = stack.tenant(slug, quotas=[("organization", "budget", "0.0000001", "month")])
    with pytest.raises(openai.RateLimitError) as caught:
        poor.client(max_retries=2).chat.completions.create(model="sim-small", messages=ASK)
    assert caught.value.code == "insufficient_quota"
    assert [event.end_reason for event in events(poor)] == ["refused"]
