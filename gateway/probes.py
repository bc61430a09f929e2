"""Background probes: deployments that are left alone are asked something tiny, so that no customer's request has to.

A circuit that a worker posted on the board is probed in the last moments of its pause, by the same
``Health`` and the same claim that a worker's own probe goes by. What the provider asks for it is the operator's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
from psycopg import AsyncConnection
from redis.exceptions import RedisError

from billing.money import plain
from billing.token_usage import TokenUsage
from gateway.v1.answers import READERS, BadAnswer, ErrorAnswer
from gateway.v1.board import Board
from gateway.v1.failures import read_reported
from gateway.v1.pulse import Pulse, fingerprints
from gateway.v1.rates import RateBook, load_rates
from gateway.v1.refusals import Refusal, read_refusal
from gateway.v1.turns import retry_after_of
from routing.circuit import Outcome, outcome_of
from routing.dialects import CannotCarry, dialect
from routing.health import endpoint_of, question
from routing.table import DeploymentSpec, RoutingTable, load_table

logger = logging.getLogger(__name__)

# What is asked, by endpoint; where another one serves, the next customer's request is the probe.
ASK: dict[str, dict[str, Any]] = {
    "chat.completions": {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 1},
    "embeddings": {"input": "Hi"},
}
# Seconds that a provider has; shorter than the claim of a probe lasts.
PATIENCE = 20.0
AT_A_TIME = 8
# A rate limit ends by itself, when its provider said it would.
NOT_PROBED = {"rate_limited"}
# What a provider says to a request like these only if it works.
WELL = {"refused", "context_window", "content_filter"}


@dataclass(slots=True)
class Tally:
    """What probes came to. ``cost`` in US dollars, as far as the providers told their usage."""

    probes: int = 0
    recovered: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)

    def plus(self, before: dict[str, Any]) -> dict[str, Any]:
        """This and an earlier sum of such, as it is kept."""
        return {
            "probes": self.probes + before.get("probes", 0),
            "recovered": self.recovered + before.get("recovered", 0),
            "input_tokens": self.input_tokens + before.get("input_tokens", 0),
            "output_tokens": self.output_tokens + before.get("output_tokens", 0),
            "cost": plain(self.cost + Decimal(before.get("cost", "0"))),
        }


async def probe_due(redis_url: str, dsn: str, ahead: float) -> Tally:
    """Probe every deployment whose pause ends within ``ahead`` seconds, and post what came of it.

    ``dsn`` is PostgreSQL's address. With Redis away nothing is done: nobody could be told.
    """
    round_ = _Round(redis_url, ahead)
    try:
        await round_.board.look()
        if round_.due():
            async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
                table, rates = await load_table(connection), await load_rates(connection)
            await round_.run(table, rates)
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("No probes while Redis is away: %s", type(error).__name__)
    finally:
        await round_.board.close()
    return round_.tally


class _Round:
    """One look at the board, and the probes that it asks for."""

    def __init__(self, redis_url: str, ahead: float) -> None:
        self.pulse = Pulse()
        self.board = Board(redis_url, self.pulse)
        self.tally = Tally()
        self._ahead = ahead
        self._posting = asyncio.Lock()
        self._places = asyncio.Semaphore(AT_A_TIME)

    def due(self) -> dict[int, list[tuple[str, str]]]:
        """By deployment, the circuits to probe: their names and the endpoints to ask (empty: not known)."""
        found: dict[int, list[tuple[str, str]]] = {}
        until = self.pulse.clock() + self._ahead
        for (deployment_id, name), circuit in self.pulse.health.open_circuits():
            if circuit.why not in NOT_PROBED and circuit.until is not None and circuit.until <= until:
                found.setdefault(deployment_id, []).append((name, circuit.asks))
        return found

    async def run(self, table: RoutingTable, rates: RateBook) -> None:
        """Probe what is due and in use."""
        due = self.due()
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            await asyncio.gather(
                *(
                    self._deployment(
                        client, deployment, _questions(deployment, due[deployment.id], rates), rates
                    )
                    for deployment in _in_use(table)
                    if deployment.id in due
                )
            )

    async def _deployment(
        self, client: httpx.AsyncClient, deployment: DeploymentSpec, endpoints: list[str], rates: RateBook
    ) -> None:
        async with self._places:
            for endpoint in endpoints:
                await self._probe(client, deployment, endpoint, rates)

    async def _probe(
        self, client: httpx.AsyncClient, deployment: DeploymentSpec, endpoint: str, rates: RateBook
    ) -> None:
        health, clock = self.pulse.health, self.pulse.clock
        asked = question(endpoint, deployment.model)
        names = fingerprints(deployment.provider)
        visit = health.enter(deployment.id, names, clock() + self._ahead, question=asked)
        if visit is None or not visit.probes:
            return
        if not await self.board.claims(visit):
            health.postpone(visit, clock())
            return
        secret = deployment.provider.secrets[visit.credential] if deployment.provider.secrets else ""
        reason, retry_after, usage = await _asked(client, deployment, endpoint, secret)
        self._count(deployment, reason, usage, rates)
        outcome = Outcome.OK if reason in WELL else outcome_of(reason)
        health.ended(visit, outcome, clock(), retry_after)
        async with self._posting:
            await self.board.look()

    def _count(
        self, deployment: DeploymentSpec, reason: str, usage: TokenUsage | None, rates: RateBook
    ) -> None:
        self.tally.probes += 1
        self.tally.recovered += reason == "ok"
        cost = Decimal(0)
        if usage is not None:
            price = rates.cost(deployment.id, datetime.now(UTC))
            cost = price.amount(usage) if price is not None else cost
            self.tally.input_tokens += usage.prompt
            self.tally.output_tokens += usage.completion
            self.tally.cost += cost
        logger.info("Probed %s: %s, cost %s US dollars.", deployment.name, reason, plain(cost))


def _in_use(table: RoutingTable) -> Iterator[DeploymentSpec]:
    """Each deployment that some group sends requests to."""
    found = {
        member.deployment.id: member.deployment
        for group in table.groups.values()
        for member in group.members
        if member.weight > 0
    }
    yield from found.values()


def _questions(deployment: DeploymentSpec, circuits: list[tuple[str, str]], rates: RateBook) -> list[str]:
    """The endpoints by which to probe these circuits of a deployment, each once."""
    price = rates.cost(deployment.id, datetime.now(UTC))
    chats = price is None or price.priced_for("chat.completions")
    found = {}
    for name, asks in circuits:
        if endpoint_of(name) and name != question(endpoint_of(name), deployment.model):
            # Of a model that it had before.
            continue
        endpoint = asks or ("chat.completions" if chats else "embeddings")
        if endpoint in ASK:
            found[endpoint] = True
    return list(found)


async def _asked(
    client: httpx.AsyncClient, deployment: DeploymentSpec, endpoint: str, secret: str
) -> tuple[str, float | None, TokenUsage | None]:
    """What became of one probe: its reason as in the request log, the seconds to wait that the provider asked
    for, and the usage that it told."""
    provider = deployment.provider
    speaks = dialect(provider.kind.name, provider.base_url)
    try:
        body, _ = speaks.body(deployment, {"model": deployment.model, **ASK[endpoint]}, stream=False)
        response = await client.post(
            speaks.url(deployment, endpoint),
            headers=speaks.headers(secret, f"probe_{uuid4().hex}"),
            content=body,
            timeout=httpx.Timeout(
                min(PATIENCE, provider.first_token_timeout), connect=provider.connect_timeout
            ),
        )
    except CannotCarry:
        return "unsupported", None, None
    except httpx.ConnectError:
        return "connect", None, None
    except httpx.TimeoutException:
        return "timeout_first_token", None, None
    except httpx.HTTPError:
        return "broken", None, None
    if response.status_code != 200:
        return *_said(read_refusal(response.status_code, response.headers, response.content)), None
    try:
        answer = READERS[endpoint](
            response.content, base64_wanted=False, speaks=speaks, model=deployment.model
        )
    except ErrorAnswer as error:
        return *_said(read_reported(error.error)), None
    except BadAnswer:
        return "bad_answer", None, None
    return "ok", None, answer.usage


def _said(refusal: Refusal) -> tuple[str, float | None]:
    return refusal.reason, retry_after_of(refusal.error.headers)
