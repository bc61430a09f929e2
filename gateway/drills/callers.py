"""Clients of a drill, on connections of their own, and what the answers told them they used."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from gateway.drills.payers import LIMIT, MODEL, PRICE, Payer

MILLION = Decimal(1_000_000)
# Unequal on purpose: the bounds on the answer, in tokens, of which each request uses every one.
BOUNDS = (4, 7, 13, 25, 40, 64)
# What a request of mixed load asks for besides words, and how often of a hundred.
ACCIDENTS = ("", "pace_ms=5", "pace_ms=40", "fault=nousage", "fault=cut", "fault=500")
ACCIDENT_WEIGHTS = (60, 15, 15, 4, 4, 2)
# A crowd that has spent this much has proved its point.
MOST = 2 * LIMIT


@dataclass(slots=True)
class Seen:
    """What the clients saw: answers by status, and the charge of all the usage they were told of."""

    statuses: Counter[str] = field(default_factory=Counter)
    charge: Decimal = Decimal(0)

    def take(self, usage: dict[str, Any]) -> None:
        """Add the price of one answer's usage, worked out here and not by the gateway."""
        self.charge += (
            usage["prompt_tokens"] * PRICE["input"] + usage["completion_tokens"] * PRICE["output"]
        ) / MILLION


def body_of(bound: int, *, stream: bool, end_user: str, words: str = "") -> dict[str, Any]:
    """A request whose answer is cut at ``bound`` tokens, since the model would go on beyond it."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"words={bound + 50} {words}".strip()}],
        "max_tokens": bound,
    }
    if end_user:
        body["user"] = end_user
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def new_client() -> Client:
    """A client that gives up after half a minute."""
    return ClientBuilder().http1_only().timeout(timedelta(seconds=30)).build()


async def ask(client: Client, url: str, secret: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """Status and body of the answer; status 0 if the connection failed."""
    request = client.post(f"{url}/v1/chat/completions").bearer_auth(secret).body_json(body).build()
    try:
        response = await request.send()
        return response.status, bytes(await response.bytes())
    except (PyreqwestError, OSError):
        return 0, b""


def usage_in(answer: bytes, *, stream: bool) -> dict[str, Any] | None:
    """The usage an answer reports, None where it reports none."""
    if not stream:
        found: dict[str, Any] | None = json.loads(answer).get("usage")
        return found
    usage = None
    for line in answer.split(b"\n"):
        if line.startswith(b"data: {"):
            usage = json.loads(line[6:]).get("usage") or usage
    return usage


async def spend(url: str, payer: Payer, clients: int, patience: float, seed: int) -> Seen:
    """Let ``clients`` ask until nobody had an answer for ``patience`` seconds.

    A refused client waits a moment and asks for something else, as SDKs that retry do.
    """
    seen = Seen()
    last = time.monotonic()

    async def call(number: int) -> None:
        nonlocal last
        dice = random.Random(seed * 10_007 + number)  # noqa: S311  # unequal requests, not secrets
        secret = payer.secrets[number % len(payer.secrets)]
        # A client of its own is a connection of its own, so that every worker gets some.
        async with new_client() as client:
            while time.monotonic() - last < patience and seen.charge < MOST:
                stream = dice.random() < 0.2
                body = body_of(dice.choice(BOUNDS), stream=stream, end_user=payer.end_user)
                status, answer = await ask(client, url, secret, body)
                seen.statuses[str(status)] += 1
                if status == 200:
                    last = time.monotonic()
                    if usage := usage_in(answer, stream=stream):
                        seen.take(usage)
                    else:
                        seen.statuses["200 without usage"] += 1
                else:
                    await asyncio.sleep(dice.uniform(0.3, 0.9))

    await asyncio.gather(*(call(number) for number in range(clients)))
    return seen


async def first_eight(url: str, payer: Payer, bound: int) -> Seen:
    """Eight requests at the same moment, each over a connection of its own, each up to ``bound`` tokens."""
    seen = Seen()
    clients = [new_client() for _ in range(8)]
    body = body_of(bound, stream=False, end_user=payer.end_user)
    answers = await asyncio.gather(
        *(
            ask(client, url, payer.secrets[number % len(payer.secrets)], body)
            for number, client in enumerate(clients)
        )
    )
    for status, answer in answers:
        seen.statuses[str(status)] += 1
        if status == 200 and (usage := usage_in(answer, stream=False)):
            seen.take(usage)
    for client in clients:
        await client.close()
    return seen


async def mixed(url: str, payer: Payer, clients: int, going: Callable[[], bool], seed: int) -> Seen:
    """Let ``clients`` ask for answers of every kind, whole, slow, failing and abandoned, while ``going``."""
    seen = Seen()

    async def call(number: int) -> None:
        dice = random.Random(seed * 10_007 + number)  # noqa: S311  # variety, not secrets
        secret = payer.secrets[number % len(payer.secrets)]
        while going():
            async with new_client() as client:
                for _ in range(10):
                    if not going():
                        break
                    stream = dice.random() < 0.5
                    # Few failures, or the only deployment would be rested most of the time.
                    (words,) = dice.choices(ACCIDENTS, ACCIDENT_WEIGHTS)
                    body = body_of(dice.choice(BOUNDS), stream=stream, end_user=payer.end_user, words=words)
                    limit = dice.uniform(0.005, 0.3) if dice.random() < 0.15 else 30.0
                    try:
                        async with asyncio.timeout(limit):
                            status, _ = await ask(client, url, secret, body)
                    except TimeoutError:
                        # The client that loses its patience hangs up.
                        seen.statuses["left"] += 1
                        break
                    seen.statuses[str(status)] += 1
                    if status != 200:
                        await asyncio.sleep(dice.uniform(0.05, 0.2))

    await asyncio.gather(*(call(number) for number in range(clients)))
    return seen
