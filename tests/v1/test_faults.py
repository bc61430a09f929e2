"""Providers that fail, and clients that leave: who answers, what the client sees, what is charged."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from routing.models import GroupDeployment, Provider
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model

ASK: list[Any] = [{"role": "user", "content": "one two three"}]
# What an SDK says that will wait so long. The tests' own wait for longer, since a machine may be slow.
WAITS_3_S = {"x-stainless-read-timeout": "3"}
# Faults that show before any content.
EARLY = ["sim-429", "sim-500", "sim-503", "sim-reset", "sim-401", "sim-html-502"]


def grouped(stack: Stack, tenant: Tenant, name: str, *models: str, **options: Any) -> str:
    """A model group over simulator models, known to the workers; returns its name."""
    stack.group(name, *models, **options)
    with tenant.http() as http:
        wait_for_model(http, name)
    return name


def unhurried(stack: Stack, tenant: Tenant, slug: str, *models: str) -> str:
    """A group over simulator models at a provider that may be silent for a minute; returns its name."""
    Provider.objects.create(
        name=slug,
        kind="simulator",
        base_url=stack.simulator.base_url,
        first_token_timeout=60,
        idle_timeout=60,
        total_timeout=60,
    )
    group = stack.group(slug)
    for priority, model in enumerate(models):
        deployment = stack.deployment(f"{slug}-{model}", model, provider=slug)
        GroupDeployment.objects.create(group=group, deployment=deployment, priority=priority)
    with tenant.http() as http:
        wait_for_model(http, slug)
    return slug


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", EARLY)
def test_an_early_failure_moves_on_to_the_next_deployment(
    stack: Stack, tenant: Tenant, slug: str, fault: str, stream: bool
) -> None:
    name = grouped(stack, tenant, slug, fault, "sim-small")
    completions: Any = tenant.client().chat.completions
    answer = completions.with_raw_response.create(model=name, messages=ASK, stream=stream)
    assert answer.headers["x-weir-attempts"] == "2"
    parsed = answer.parse()
    if stream:
        assert [chunk.choices[0].finish_reason for chunk in parsed][-1] == "stop"
    else:
        assert parsed.choices[0].finish_reason == "stop"
    (event,) = events(tenant)
    assert [attempt["reason"] for attempt in event.attempts][1] == "ok"
    assert event.attempts[0]["reason"] not in ("", "ok")
    assert event.deployment.endswith("sim-small")
    assert event.charge == Decimal("0.000086")


def test_a_provider_that_is_silent_until_its_timeout_moves_on(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    Provider.objects.create(
        name=slug,
        kind="simulator",
        base_url=stack.simulator.base_url,
        first_token_timeout=0.3,
        idle_timeout=0.3,
    )
    quiet = stack.deployment(f"{slug}-quiet", "sim-silence", provider=slug)
    group = stack.group(slug, "sim-small")
    GroupDeployment.objects.create(group=group, deployment=quiet, priority=0)
    GroupDeployment.objects.filter(group=group).exclude(deployment=quiet).update(priority=5)
    with tenant.http() as http:
        wait_for_model(http, slug)
    time.sleep(0.2)
    answer = tenant.client().chat.completions.create(model=slug, messages=ASK)
    assert answer.choices[0].finish_reason == "stop"
    (event,) = events(tenant)
    assert [attempt["reason"] for attempt in event.attempts] == ["timeout_first_token", "ok"]


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("sim-429", openai.RateLimitError, "provider_rate_limited"),
        ("sim-500", openai.InternalServerError, "provider_error"),
        ("sim-reset", openai.InternalServerError, "provider_error"),
        ("sim-401", openai.InternalServerError, "provider_error"),
    ],
)
def test_the_last_failure_is_told_honestly_and_costs_nothing(
    stack: Stack, tenant: Tenant, slug: str, fault: str, error: type[openai.APIStatusError], code: str
) -> None:
    name = grouped(stack, tenant, slug, fault)
    with pytest.raises(error) as caught:
        tenant.client().chat.completions.create(model=name, messages=ASK)
    assert caught.value.code == code
    (event,) = events(tenant)
    assert (event.charge, event.cost, event.end_reason) == (0, 0, "provider_error")
    assert event.status == caught.value.status_code


def test_a_providers_retry_after_is_passed_on(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-429")
    with pytest.raises(openai.RateLimitError) as caught:
        tenant.client().chat.completions.create(model=name, messages=ASK)
    assert caught.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("fault", "code"), [("sim-400-context", "context_length_exceeded"), ("sim-400-filter", "content_filter")]
)
def test_a_refusal_of_the_request_itself_is_not_tried_elsewhere(
    stack: Stack, tenant: Tenant, slug: str, fault: str, code: str
) -> None:
    name = grouped(stack, tenant, slug, fault, "sim-small")
    with pytest.raises(openai.BadRequestError) as caught:
        tenant.client().chat.completions.create(model=name, messages=ASK)
    assert caught.value.code == code
    (event,) = events(tenant)
    assert len(event.attempts) == 1


def test_too_long_a_prompt_moves_on_to_the_group_named_for_it(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-400-context", fallbacks={"on_context_window": ["sim-small"]})
    assert (
        tenant.client().chat.completions.create(model=name, messages=ASK).choices[0].finish_reason == "stop"
    )
    (event,) = events(tenant)
    assert event.model_group == "sim-small"


@pytest.mark.parametrize("fault", ["sim-cut", "sim-truncated", "sim-error-midstream", "sim-badjson"])
def test_a_stream_that_breaks_ends_with_an_error_and_without_done(
    stack: Stack, tenant: Tenant, slug: str, fault: str
) -> None:
    name = grouped(stack, tenant, slug, fault)
    with tenant.http() as http:
        body = http.post("/v1/chat/completions", json={"model": name, "messages": ASK, "stream": True}).text
    assert "[DONE]" not in body
    last = [line for line in body.split("\n\n") if line][-1]
    assert last.startswith('data: {"error":{')
    with pytest.raises(openai.APIError, match=r"not complete|before it was complete"):
        list(tenant.client().chat.completions.create(model=name, messages=ASK, stream=True))
    first, _ = events(tenant)
    assert first.end_reason == "cut"
    assert first.usage_source == "counted"
    assert first.output_tokens > 0


def test_a_cut_stream_is_charged_for_the_words_that_came(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-cut")
    with pytest.raises(openai.APIError):
        list(tenant.client().chat.completions.create(model=name, messages=ASK, stream=True))
    (event,) = events(tenant)
    # The simulator cuts after 40 words, one an event.
    assert 40 <= event.output_tokens <= 60
    expected = (event.input_tokens * Decimal(2) + event.output_tokens * Decimal(8)) / 1_000_000
    assert event.charge == expected


def test_a_stream_without_done_is_whole_if_it_says_why_it_ended(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-nodone")
    with tenant.http() as http:
        body = http.post("/v1/chat/completions", json={"model": name, "messages": ASK, "stream": True}).text
    assert body.endswith("data: [DONE]\n\n")
    assert '"error"' not in body


def test_missing_usage_is_counted_and_a_usage_chunk_still_comes(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-nousage")
    stream = tenant.client().chat.completions.create(
        model=name, messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.usage is not None
    assert last.usage.completion_tokens >= 10
    (event,) = events(tenant)
    assert event.usage_source == "counted"
    assert event.output_tokens == last.usage.completion_tokens


def test_a_client_that_leaves_stops_the_provider_and_is_charged(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    ask = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": "words=2000 pace_ms=20"}],
        "stream": True,
        "user": slug,
    }
    with (
        tenant.http() as http,
        http.stream("POST", "/v1/chat/completions", json=ask) as answer,
    ):
        for seen, _ in enumerate(answer.iter_lines()):
            if seen == 20:
                break
    (end,) = stack.simulator.wait_for_end(slug)
    assert end["end"] == "client_gone"
    # At 50 a second: for as long as ABANDONED_SECONDS, four in tests, and not to the end.
    assert end["words_sent"] < 1000
    (event,) = events(tenant)
    assert (event.end_reason, event.status, event.usage_source) == ("client_gone", 499, "counted")
    assert 5 <= event.output_tokens <= 2 * end["words_sent"]
    assert event.charge > 0


def test_a_client_that_leaves_before_the_first_byte_stops_the_provider(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    ask = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": "fault=silence silence_s=20"}],
        "user": slug,
    }
    with tenant.http() as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=ask, timeout=2)
    (end,) = stack.simulator.wait_for_end(slug)
    assert end["end"] in {"client_gone", "silence"}
    (event,) = events(tenant)
    assert event.end_reason == "client_gone"
    assert event.output_tokens == 0


def test_a_stalled_stream_ends_with_an_error_after_the_idle_timeout(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    Provider.objects.create(name=slug, kind="simulator", base_url=stack.simulator.base_url, idle_timeout=0.3)
    group = stack.group(slug)
    deployment = stack.deployment(slug, "sim-stall", provider=slug)
    GroupDeployment.objects.create(group=group, deployment=deployment)
    with tenant.http() as http:
        wait_for_model(http, slug)
    time.sleep(0.2)
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(tenant.client().chat.completions.create(model=slug, messages=ASK, stream=True))


def test_a_caller_hears_of_a_stall_before_it_gives_up(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = unhurried(stack, tenant, slug, "sim-stall")
    stream = tenant.client(timeout=30).chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "stall_s=50"}],
        stream=True,
        extra_headers=WAITS_3_S,
    )
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(stream)
