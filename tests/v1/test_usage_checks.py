"""The accounting check: what providers report beside what the gateway counts, of a sample of answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from psycopg_pool import AsyncConnectionPool

from billing.token_usage import COUNTED, REPORTED, TokenUsage
from gateway.models import UsageCheck
from gateway.v1.counting import O200K, encoding
from gateway.v1.usage_checks import Sums, UsageChecks
from gateway.v1.worker import database_dsn
from routing.models import GroupDeployment, Provider
from tests.dialects.anthropic_corpus import block, delta, end, start, stop
from tests.dialects.anthropic_corpus import events as stream_of
from tests.dialects.native_corpus import RESPONSE_REPLAYS, TEXT_ANSWER
from tests.dialects.player import Recording, running_player
from tests.simulator.server import wait_until
from tests.stack import Stack, running_stack
from tests.v1.conftest import books_balance, events

DAY = date(2026, 11, 23)
JSON = "application/json"
REPLAYS = {replay.name: replay.raw for replay in RESPONSE_REPLAYS}
MESSAGE: dict[str, Any] = {
    "id": "msg_theirs",
    "type": "message",
    "role": "assistant",
    "model": "claude-theirs",
    "content": [{"type": "text", "text": "Yes"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 3,
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 100,
        "output_tokens": 2,
    },
}


def tokens(source: str, prompt: int, output: int, reasoning: int = 0) -> TokenUsage:
    return TokenUsage(prompt, 0, 0, output, reasoning, source)


@pytest.fixture
def checked(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A server of one worker that counts each answer."""
    monkeypatch.setenv("ACCOUNTING_SAMPLE", "1")
    with running_stack(tmp_path, workers=1) as running:
        yield running


def test_answers_are_counted_beside_what_was_reported(checked: Stack, slug: str) -> None:
    checked.group(slug, "sim-small")
    name = f"{slug}-0-sim-small"
    tenant = checked.tenant(slug)
    completions: Any = tenant.client().chat.completions
    wait_until(lambda: any(model.id == slug for model in tenant.client().models.list()))
    ask = {"model": slug, "messages": [{"role": "user", "content": "one two three"}]}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seen = {"model": slug, "messages": [{"role": "user", "content": [picture]}]}
    # Of a picture nobody knows what it counts for.
    completions.create(**seen)
    said = completions.create(**ask).choices[0].message.content
    for _ in completions.create(**ask, stream=True):
        pass
    wait_until(lambda: UsageCheck.objects.filter(deployment=name, requests=2).exists())
    check = UsageCheck.objects.get(deployment=name)
    assert check.day == datetime.now(UTC).date()
    # Three for the answer's start, three for the message, one for its role and three words: twice.
    assert check.counted_input == 2 * 10
    output = encoding(O200K).count(said)
    assert check.counted_output == 2 * output
    _, plain, streamed = events(tenant)
    assert check.reported_input == plain.input_tokens + streamed.input_tokens
    assert check.reported_output == plain.output_tokens + streamed.output_tokens
    total = plain.input_tokens + plain.output_tokens
    assert check.worst_ratio == (Decimal(total) / (10 + output)).quantize(Decimal("0.0001"))
    books_balance(tenant)


THOUGHT = {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}
NATIVE = {
    # The provider's own word for its kind, and what it answers.
    "message": ("anthropic", Recording(json.dumps(MESSAGE).encode(), content_type=JSON)),
    "message-stream": (
        "anthropic",
        Recording(
            stream_of(
                *(start(), block(0, "text", text=""), delta(0, "text_delta", text="Yes"), stop(0)),
                *end("end_turn", 5),
            )
        ),
    ),
    "message-thought": (
        "anthropic",
        Recording(
            json.dumps({**MESSAGE, "content": [THOUGHT, *MESSAGE["content"]]}).encode(), content_type=JSON
        ),
    ),
    "response": ("openai", Recording(json.dumps(TEXT_ANSWER).encode(), content_type=JSON)),
    "response-stream": ("xai", Recording(REPLAYS["responses-of-xai"])),
}


def test_answers_in_the_clients_own_words_are_counted_too(checked: Stack, slug: str) -> None:
    hi: Any = [{"role": "user", "content": "hi"}]
    with running_player({name: recording for name, (_, recording) in NATIVE.items()}) as player:
        for name, (kind, _) in NATIVE.items():
            Provider.objects.create(name=f"{slug}-{name}", kind=kind, base_url=player.base_url(name))
            made = checked.deployment(f"{slug}-{name}", "their-model", provider=f"{slug}-{name}")
            GroupDeployment.objects.create(group=checked.group(f"{slug}-{name}"), deployment=made)
        tenant = checked.tenant(slug)
        last = f"{slug}-response-stream"
        wait_until(lambda: any(model.id == last for model in tenant.client().models.list()))
        claude = Anthropic(base_url=checked.url, api_key=tenant.secret, max_retries=0)
        asked: Any = {"max_tokens": 50, "messages": hi}
        claude.messages.create(model=f"{slug}-message-thought", **asked)
        claude.messages.create(model=f"{slug}-message", **asked)
        with claude.messages.stream(model=f"{slug}-message-stream", **asked) as stream:
            stream.get_final_message()
        responses = tenant.client().responses
        # What was thought before is in the prompt, and nobody else can count it.
        sealed: Any = {"type": "reasoning", "summary": [], "encrypted_content": "sealed"}
        responses.create(model=f"{slug}-response", input=[*hi, sealed, *hi])
        responses.create(model=f"{slug}-response", input="hi")
        for _ in responses.create(model=last, input="hi", stream=True):
            pass
        assert set(player.paths.values()) == {
            *(f"/{name}/v1/messages" for name in NATIVE if name.startswith("message")),
            *(f"/{name}/v1/responses" for name in NATIVE if name.startswith("response")),
        }
    wait_until(lambda: UsageCheck.objects.filter(deployment__startswith=f"{slug}-").count() >= 4)
    found = {
        check.deployment.removeprefix(f"{slug}-"): (
            *(check.requests, check.reported_input, check.reported_output),
            *(check.counted_input, check.counted_output),
        )
        for check in UsageCheck.objects.filter(deployment__startswith=f"{slug}-")
    }
    said = encoding(O200K).count("Hellö 🌍")
    # Three for the answer's start, three for the message, one for its role and one for its word.
    assert found == {
        # 3 plain, 100 read from the cache and 10 written to it.
        "message": (1, 113, 2, 8, 1),
        "message-stream": (1, 12, 5, 8, 1),
        # 20 of 30 were thought, and 198 of 199.
        "response": (1, 2_000, 10, 8, said),
        "response-stream": (1, 197, 1, 8, said),
    }
    books_balance(tenant)


def test_reasoning_that_was_not_shown_is_left_out() -> None:
    sums = Sums()
    sums.add(tokens(REPORTED, 10, 100, 90), 90, tokens(COUNTED, 10, 10))
    assert sums == Sums(1, 10, 10, 10, 10, Decimal(1))


@pytest.mark.parametrize(
    ("ratios", "worst"),
    [((2, "0.4"), "0.4"), (("0.6", 2), "2"), ((1, 1), "1"), (("0.00000001", 1), "0.0001")],
)
def test_the_worst_ratio_is_the_farthest_either_way(ratios: tuple[Any, Any], worst: str) -> None:
    sums = Sums()
    for ratio in ratios:
        sums.add(tokens(REPORTED, int(Decimal(ratio) * 100_000), 0), 0, tokens(COUNTED, 100_000, 0))
    assert sums.worst_ratio == Decimal(worst)


def test_workers_add_up_what_they_counted(committed: None, slug: str) -> None:
    parts = [Sums(2, 10, 20, 5, 20, Decimal(2)), Sums(1, 1, 1, 4, 1, Decimal("0.25"))]

    async def write() -> None:
        async with AsyncConnectionPool[Any](database_dsn(), min_size=1, open=False) as pool:
            for part in parts:
                worker = UsageChecks(pool, 1.0)
                worker.sums[slug, DAY] = part
                await worker.write()
                assert worker.sums == {}

    asyncio.run(write())
    check = UsageCheck.objects.get(deployment=slug, day=DAY)
    found = (check.requests, check.reported_input, check.reported_output, check.counted_input)
    assert (found, check.counted_output, check.worst_ratio) == ((3, 11, 21, 9), 21, Decimal("0.25"))


def test_what_cannot_be_written_is_kept(slug: str) -> None:
    async def write() -> UsageChecks:
        nowhere = "host=127.0.0.1 port=1 connect_timeout=1"
        pool = AsyncConnectionPool[Any](nowhere, min_size=0, max_size=1, open=False, timeout=0.2)
        await pool.open()
        worker = UsageChecks(pool, 1.0)
        worker.sums[slug, DAY] = Sums(1, 2, 3, 4, 5)
        await worker.write()
        await pool.close()
        return worker

    assert asyncio.run(write()).sums == {(slug, DAY): Sums(1, 2, 3, 4, 5)}
