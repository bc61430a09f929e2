"""The accounting check: what providers report beside what the gateway counts, of a sample of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from billing.token_usage import COUNTED, REPORTED, TokenUsage
from gateway.models import UsageCheck
from gateway.v1.counting import O200K, encoding
from gateway.v1.usage_checks import Sums, UsageChecks
from gateway.v1.worker import database_dsn
from tests.simulator.server import wait_until
from tests.stack import Stack, running_stack
from tests.v1.conftest import books_balance, events

DAY = date(2026, 11, 23)


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
