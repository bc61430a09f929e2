"""Two workers, one Redis: what one learns of a provider the other knows, and only one of them probes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import RedisError

from gateway.v1.board import Board, read_board
from gateway.v1.pulse import Pulse
from routing.circuit import FAULTS_IN_A_ROW
from routing.health import Visit
from routing.kinds import KINDS
from routing.table import DeploymentSpec, ProviderSpec

NOWHERE = "redis://127.0.0.1:1/0"


class Colleague:
    """A worker's pulse and board, at a time that the test sets."""

    def __init__(self, url: str) -> None:
        self.now = 100.0
        self.pulse = Pulse(lambda: self.now, Random(1))
        self.board = Board(url, self.pulse, patience=20)
        self.pulse.ask_others = self.board.claims

    def break_down(self, deployment: DeploymentSpec) -> None:
        for _ in range(FAULTS_IN_A_ROW):
            visit = self.pulse.enter(deployment)
            assert visit is not None
            self.pulse.ended(visit, "failed")

    async def probe(self, deployment: DeploymentSpec) -> Visit | None:
        visit = self.pulse.enter(deployment)
        return visit if visit is not None and await self.pulse.claims(visit) else None


@pytest.fixture
def deployment() -> DeploymentSpec:
    """One that no other test has."""
    provider = ProviderSpec(1, "p", KINDS["generic"], "http://x", 1, 1, 1, 1)
    return DeploymentSpec(uuid4().int % 10**12, "d", "m", provider, None, None, None)


def together(tell: Callable[[Colleague, Colleague], Awaitable[Any]], url: str = "") -> None:
    async def run() -> None:
        url_in_use = url or os.environ["REDIS_URL"]
        one, two = Colleague(url_in_use), Colleague(url_in_use)
        try:
            await tell(one, two)
        finally:
            await one.board.close()
            await two.board.close()

    asyncio.run(run())


def test_a_circuit_that_one_opens_is_open_for_the_other_until_its_probe_succeeds(
    deployment: DeploymentSpec,
) -> None:
    async def tell(one: Colleague, two: Colleague) -> None:
        one.break_down(deployment)
        await one.board.look()
        assert two.pulse.available(deployment)
        await two.board.look()
        assert not two.pulse.available(deployment)
        assert two.pulse.why(deployment) == "failing"
        one.now += 5
        probe = await one.probe(deployment)
        assert probe is not None
        one.pulse.ended(probe, "ok")
        await one.board.look()
        await two.board.look()
        assert two.pulse.available(deployment)

    together(tell)


def test_only_one_of_two_probes_at_a_time(deployment: DeploymentSpec) -> None:
    async def tell(one: Colleague, two: Colleague) -> None:
        one.break_down(deployment)
        await one.board.look()
        await two.board.look()
        one.now, two.now = one.now + 5, two.now + 5
        first = await one.probe(deployment)
        assert first is not None
        assert await two.probe(deployment) is None
        # For the next second not even Redis is asked.
        assert not two.pulse.available(deployment)
        assert two.pulse.in_flight(deployment) == 0

    together(tell)


def test_what_is_posted_can_be_read_by_others_and_tells_no_secret(deployment: DeploymentSpec) -> None:
    async def tell(one: Colleague, _two: Colleague) -> None:
        visit = one.pulse.enter(deployment)
        assert visit is not None
        one.pulse.ended(visit, "rate_limited", 30.0)
        await one.board.look()
        notices = await read_board(os.environ["REDIS_URL"])
        assert notices is not None
        (notice,) = [each for each in notices if each.key[0] == deployment.id]
        assert (notice.why, notice.openings) == ("rate_limited", 1)

    together(tell)


def test_without_redis_each_goes_by_what_it_sees_and_probes_itself(deployment: DeploymentSpec) -> None:
    async def tell(one: Colleague, _two: Colleague) -> None:
        one.break_down(deployment)
        with pytest.raises((RedisError, OSError)):
            await one.board.look()
        assert not one.pulse.available(deployment)
        one.now += 5
        assert await one.probe(deployment) is not None
        # What could not be posted is posted later.
        assert one.pulse.health.changed == {(deployment.id, "")}

    together(tell, NOWHERE)
