"""Which deployment and credential hold a conversation's prompt cache, as all workers have seen it.

Told to the others through a stream in Redis (``weir:affinity``) twice a second, never on the way of a
request. With Redis away each worker goes by what it sees itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.pricing import Rates
from billing.token_usage import ESTIMATED, TokenUsage
from gateway.v1.exchange import Exchange
from gateway.v1.facts import DEFAULT_OUTPUT_TOKENS, Facts
from gateway.v1.pulse import Pulse, fingerprints
from gateway.v1.rates import RateBook
from routing.policy import NEAR, Candidate

logger = logging.getLogger(__name__)

STREAM = "weir:affinity"
TELL_SECONDS = 0.5
# A provider's cache is forgotten after minutes without use; OpenAI keeps it for 5 to 10.
KEPT_SECONDS = 600.0
# Shorter prompts are not cached (OpenAI and Anthropic: from 1,024 tokens on).
LEAST_TOKENS = 1_024
# Conversations a worker remembers and tells of at a time, and batches that Redis keeps.
MOST_KNOWN, MOST_TOLD, MOST_BATCHES = 50_000, 2_000, 2_000
# Redis answers within this, or is away.
PATIENCE_SECONDS = 0.25
# As many characters of a text are enough to tell one opening from another.
OPENING = 2_048


class Home(NamedTuple):
    """Where a conversation was answered last. ``tokens`` of prompt may be cached there ``until`` (seconds since 1970)."""

    deployment_id: int
    fingerprint: str
    tokens: int
    until: float


class Homes(Protocol):
    """Who knows where conversations are cached."""

    def home(self, conversation: bytes) -> Home | None:
        """Where the conversation's prompt may be cached; None if nowhere."""
        ...


class Affinity:
    """One worker's memory of conversations. Use it from one event loop."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Any = Redis.from_url(
            redis_url, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )
        self._homes: dict[bytes, Home] = {}
        self._news: dict[bytes, Home] = {}
        self._read_to = f"{int((time.time() - KEPT_SECONDS) * 1000)}-0"
        self._away = False

    def home(self, conversation: bytes) -> Home | None:
        """Where the conversation's prompt may be cached; None if nowhere."""
        found = self._homes.get(conversation)
        return found if found is not None and found.until > time.time() else None

    def answered(self, exchange: Exchange, usage: TokenUsage) -> None:
        """An exchange of the conversation was answered whole, so its prompt is cached where that was."""
        offer = exchange.offer
        if offer is None or usage.prompt < LEAST_TOKENS:
            return
        deployment = offer.candidate.deployment
        by = (a for a in exchange.attempts if a.deployment == deployment.name and a.reason == "ok")
        attempt = next(by, None)
        if attempt is None:
            return
        until = time.time() + KEPT_SECONDS
        home = Home(deployment.id, attempt.visit.fingerprint, usage.prompt, until)
        self._remember(exchange.conversation, home)
        if len(self._news) < MOST_TOLD:
            self._news[exchange.conversation] = home

    def _remember(self, conversation: bytes, home: Home) -> None:
        self._homes.pop(conversation, None)
        if len(self._homes) >= MOST_KNOWN:
            del self._homes[next(iter(self._homes))]
        self._homes[conversation] = home

    async def run(self) -> None:
        """Tell and hear, until cancelled."""
        while True:
            await asyncio.sleep(TELL_SECONDS)
            try:
                await self.share()
                self._away = False
            except (RedisError, OSError, TimeoutError) as error:
                if not self._away:
                    logger.warning(
                        "Prompt caches are not shared while Redis is away: %s", type(error).__name__
                    )
                self._away = True

    async def share(self) -> None:
        """Tell the others what is new here, and take over what they told. Raises what Redis raises."""
        news, self._news = self._news, {}
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                if news:
                    told = [[key.hex(), *home] for key, home in news.items()]
                    pipe.xadd(STREAM, {b"homes": orjson.dumps(told)}, maxlen=MOST_BATCHES, approximate=True)
                pipe.xread({STREAM: self._read_to}, count=MOST_BATCHES)
                *_, found = await pipe.execute()
        except BaseException:
            self._news = {**news, **self._news}
            raise
        for _, batches in found or ():
            for name, fields in batches:
                self._read_to = name
                for key, *home in orjson.loads(fields[b"homes"]):
                    self._heard(bytes.fromhex(key), Home(*home))

    def _heard(self, conversation: bytes, home: Home) -> None:
        known = self._homes.get(conversation)
        if home.until > time.time() and (known is None or known.until < home.until):
            self._remember(conversation, home)

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()


def conversation_of(facts: Facts, organization_id: int) -> bytes:
    """A name for the conversation a request goes on with: by ``prompt_cache_key``, the ``X-Session-Id``
    header, or how it opens, up to the first message of the user."""
    name = blake2b(f"{organization_id} {facts.model} ".encode(), digest_size=16)
    told = facts.body.get("prompt_cache_key") or facts.session
    if isinstance(told, str) and told:
        name.update(b"told " + told[:OPENING].encode("utf-8", "replace"))
        return name.digest()
    for message in facts.body["messages"]:
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(text for part in content[:4] if isinstance(text := part.get("text"), str))
        role = message["role"]
        name.update(f"{role} {(content or '')[:OPENING]} ".encode("utf-8", "replace"))
        if role == "user":
            break
    return name.digest()


def keep(
    found: list[Candidate], home: Home, facts: Facts, pulse: Pulse, rates: RateBook, exchange: Exchange
) -> tuple[list[Candidate], str]:
    """The candidates with the conversation's home first, and the credential to ask it with, where that
    saves the operator money and the home is well; else as they are, and no credential.

    The home must be at the first candidate's level: of its group, under ``priority`` of its priority,
    under ``fastest`` not far slower.
    """
    first = found[0]
    kept = next((each for each in found if each.deployment.id == home.deployment_id), None)
    if (
        kept is None
        or kept.group is not first.group
        or home.fingerprint not in fingerprints(kept.deployment.provider)
        or not pulse.available(kept.deployment)
    ):
        return found, ""
    there = rates.cost(kept.deployment.id, exchange.started_at)
    if (
        there is None
        or there.input is None
        or there.cached_input is None
        or there.cached_input >= there.input
    ):
        return found, ""
    if kept is first:
        return found, home.fingerprint
    cached = min(home.tokens, facts.input_tokens)
    here = rates.cost(first.deployment.id, exchange.started_at)
    if here is None or not _at_level(kept, first, pulse):
        return found, ""
    if _cost(there, facts, cached) > _cost(here, facts, 0):
        return found, ""
    return [kept, *(each for each in found if each is not kept)], home.fingerprint


def _at_level(kept: Candidate, first: Candidate, pulse: Pulse) -> bool:
    match kept.group.strategy:
        case "priority":
            level = {m.deployment.id: m.priority for m in kept.group.members}
            return level[kept.deployment.id] == level[first.deployment.id]
        case "fastest":
            usual = pulse.latency(first.deployment)
            return not usual or pulse.latency(kept.deployment) <= NEAR * usual
        case _:
            return True


def _cost(rates: Rates, facts: Facts, cached: int) -> Any:
    """US dollars that the request costs with so many tokens of its prompt from the cache, as estimated."""
    output = facts.output_bound or DEFAULT_OUTPUT_TOKENS
    return rates.amount(TokenUsage(facts.input_tokens - cached, cached, 0, output, 0, ESTIMATED))
