"""What a prompt can have at most: so much is reserved, since so much may be charged."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import openai
import pytest

from billing.pricing import Rates
from gateway.v1.bounds import most_at, most_input
from gateway.v1.facts import MOST_BY_ADDRESS, MOST_PER_PART, chat_facts
from routing.kinds import KINDS
from routing.table import DeploymentSpec, ProviderSpec
from tests.stack import Stack
from tests.v1.conftest import books_balance, events


def most(window: int | None, *parts: dict[str, Any]) -> tuple[int, int]:
    """Tokens at most with ``parts``, and those of the text alone."""
    body = {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}
    raw = json.dumps(body, separators=(",", ":")).encode()
    provider = ProviderSpec(1, "p", KINDS["openai"], "http://x", 1, 1, 1, 1)
    facts = chat_facts(raw, "")
    text = len(raw) - sum(len(json.dumps(part, separators=(",", ":"))) for part in parts)
    return most_input(facts, DeploymentSpec(1, "d", "m", provider, window, None, None)), text


def file(data: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data}}


def held(part: dict[str, Any]) -> int:
    return len(json.dumps(part, separators=(",", ":")))


def test_a_file_has_at_most_a_token_a_byte() -> None:
    part = file("data:application/pdf;base64," + "A" * 40_000)
    found, text = most(None, part)
    assert found == text + MOST_PER_PART + held(part)


@pytest.mark.parametrize("data", ["data:application/pdf;base64," + "A" * 40_000, "https://example.com/a.pdf"])
def test_a_file_has_no_more_than_the_context_window_holds(data: str) -> None:
    found, text = most(20_000, file(data))
    assert found == text + MOST_PER_PART + 20_000


def test_a_file_that_is_named_by_its_address_may_be_long() -> None:
    found, text = most(None, file("https://example.com/a.pdf"))
    assert found == text + MOST_PER_PART + MOST_BY_ADDRESS


def test_a_long_sound_has_tokens_by_its_bytes() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "A" * 310_000, "format": "mp3"}}
    found, text = most(None, part)
    assert found == text + MOST_PER_PART + held(part) // 31


def test_a_budget_that_does_not_cover_a_long_file_refuses_it(stack: Stack, slug: str) -> None:
    # 40,000 tokens at $2 a million are $0.08, and 4,096 with 16 of an answer are less than a cent.
    tenant = stack.tenant(slug, quotas=[("organization", "budget", "0.02", "month")])
    ask: Any = {"model": "sim-small", "max_tokens": 16}

    def say(data: str) -> None:
        messages: Any = [{"role": "user", "content": [file(f"data:application/pdf;base64,{data}")]}]
        tenant.client().chat.completions.create(messages=messages, **ask)

    with pytest.raises(openai.RateLimitError) as caught:
        say("A" * 40_000)
    assert caught.value.code == "insufficient_quota"
    say("AA")
    assert [event.end_reason for event in events(tenant)] == ["refused", "completed"]
    books_balance(tenant)


@pytest.mark.parametrize(
    ("kind", "model", "bound", "output"),
    [
        # What the client bounds is all there is, thinking included.
        ("openai", "gpt-5.4", 16, 16),
        ("xai", "grok-3", 16, 16),
        ("xai", "grok-4-1-fast-non-reasoning", 16, 16),
        # Thinking is beside it, up to what the deployment answers at most.
        ("xai", "grok-4.3", 16, 16 + 1_000),
        ("xai", "grok-4.3", None, 1_000),
    ],
)
def test_thinking_that_no_bound_bounds_is_reserved_for(
    kind: str, model: str, bound: int | None, output: int
) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    facts = chat_facts(json.dumps(asked | ({"max_tokens": bound} if bound else {})).encode(), "")
    provider = ProviderSpec(1, "p", KINDS[kind], "http://x", 1, 1, 1, 1)
    at = DeploymentSpec(1, "d", model, provider, None, 1_000, None)
    # A dollar for each token of output, and nothing for those of the prompt.
    rates = Rates(1, Decimal(0), output=Decimal(1_000_000))
    assert most_at(facts, at, rates, None, Decimal(0)) == output


def test_a_picture_has_as_many_as_a_picture_has() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
    found, text = most(None, part)
    assert found == text + MOST_PER_PART
