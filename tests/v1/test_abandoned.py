"""How long a provider goes on after its client has left."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from gateway import settings
from gateway.v1.abandoned import LOOK_SECONDS, Abandoned
from gateway.v1.exchange import Exchange
from gateway.v1.stream import StreamScanner

WORD = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'


async def left() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def stopped_after(abandoned: Abandoned, exchange: Exchange, *, words: int) -> int:
    """How many words a provider said until it was stopped, of at most ``words``, each a moment after the other."""
    exchange.scanner = scanner = StreamScanner(wants_usage=False)

    async def provider() -> None:
        for _ in range(words):
            scanner.feed(WORD)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(provider())
    watch = asyncio.create_task(abandoned.watch(task, left, exchange, lambda: None))
    with suppress(asyncio.CancelledError):
        await task
    watch.cancel()
    return scanner.content_events


def test_it_is_stopped_when_it_has_said_enough() -> None:
    exchange = Exchange("chat.completions", sent=True)
    assert 20 <= asyncio.run(stopped_after(Abandoned(3600, 20), exchange, words=3000)) < 3000
    assert exchange.client_gone


def test_it_is_stopped_when_its_time_is_over() -> None:
    exchange = Exchange("chat.completions", sent=True)
    assert asyncio.run(stopped_after(Abandoned(0.1, 10**6), exchange, words=3000)) < 3000


def test_by_default_what_it_holds_is_back_within_a_second() -> None:
    assert settings.ABANDONED_SECONDS + LOOK_SECONDS < 1


def test_it_ends_by_itself_within_its_time() -> None:
    exchange = Exchange("chat.completions", sent=True)
    assert asyncio.run(stopped_after(Abandoned(3600, 10**6), exchange, words=10)) == 10


@pytest.mark.parametrize("sent", [False, True])
def test_it_is_stopped_at_once_without_a_request_or_without_time(sent: bool) -> None:
    exchange = Exchange("chat.completions", sent=sent)
    abandoned = Abandoned(0 if sent else 3600, 10**6)
    assert asyncio.run(stopped_after(abandoned, exchange, words=3000)) <= 1


def test_a_worker_that_ends_lets_nobody_go_on() -> None:
    abandoned = Abandoned(3600, 10**6)
    abandoned.close()
    exchange = Exchange("chat.completions", sent=True)
    assert asyncio.run(stopped_after(abandoned, exchange, words=3000)) <= 1
