"""``fastest`` in simulated time, with the policy, pulse and circuits that a worker uses."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import count
from random import Random

import pytest

from gateway.v1.pulse import Pulse
from routing.health import Visit
from routing.policy import Need, Signals, order
from routing.table import Member
from tests.routing.test_policy import A, B, C, group, table

GROUP = group("g", Member(A, 1, 1), Member(B, 1, 1), Member(C, 1, 1), strategy="fastest")
TABLE = table(GROUP)
# Requests a second, and seconds to the first token of who is well.
RATES = [(2, 0.4), (5, 0.4), (20, 0.3), (50, 0.2)]


class Simulation:
    """Requests at ``rate`` a second to three deployments; ``b`` fails half its requests and ``c`` is
    three times slower, until both recover. Falls back as the relay does."""

    def __init__(self, seed: int, rate: float, first_token: float) -> None:
        self.now = 1000.0
        self.random = Random(seed)
        self.rate = rate
        self.first_token = first_token
        self.pulse = Pulse(lambda: self.now, Random(seed + 1))
        self.signals = Signals(
            lambda _deployment: Decimal(1),
            self.pulse.in_flight,
            self.pulse.latency,
            self.pulse.due,
            self.pulse.available,
        )
        self.ill = False
        self.asked: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers: Iterator[int] = count()

    def run(self, requests: int) -> Counter[str]:
        """So many more requests, and what is due meanwhile; attempts by deployment."""
        self.asked = []
        for _ in range(requests):
            self.now += self.random.expovariate(self.rate)
            self._catch_up()
            self._ask(set())
        return Counter(self.asked)

    def _catch_up(self) -> None:
        until = self.now
        while self._events and self._events[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self.now = until

    def _later(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), happen))

    def _ask(self, tried: set[int]) -> None:
        for candidate in order(TABLE, GROUP, Need(), self.signals, self.random, lambda _name: True):
            deployment = candidate.deployment
            visit = None if deployment.id in tried else self.pulse.enter(deployment)
            if visit is not None:
                self.asked.append(deployment.name)
                self._visit(deployment.name, visit, tried | {deployment.id})
                return

    def _visit(self, name: str, visit: Visit, tried: set[int]) -> None:
        seconds = self.first_token * self.random.uniform(0.8, 1.25)
        if self.ill and name == "c":
            seconds *= 3

        def fail() -> None:
            self.pulse.ended(visit, "failed")
            self._ask(tried)

        def answer() -> None:
            self.pulse.first_token(visit, seconds)
            self._later(4 * self.first_token, lambda: self.pulse.ended(visit, "ok"))

        fails = self.ill and name == "b" and self.random.random() < 0.5
        self._later(seconds / 5 if fails else seconds, fail if fails else answer)


def shares(attempts: Counter[str]) -> dict[str, float]:
    """The part of all attempts that each of the ill got."""
    return {name: attempts[name] / attempts.total() for name in "bc"}


@pytest.mark.parametrize(
    ("rate", "first_token", "seed"),
    [
        *((rate, first_token, seed) for rate, first_token in RATES for seed in range(8)),
        *((200, 0.2, seed) for seed in range(2)),
    ],
)
def test_the_ill_get_under_a_tenth_within_200_requests_and_their_share_within_a_minute_of_recovery(
    rate: float, first_token: float, seed: int
) -> None:
    simulation = Simulation(seed, rate, first_token)
    well = simulation.run(200)
    assert min(well[name] for name in "abc") > 40
    simulation.ill = True
    first, second = simulation.run(100), simulation.run(100)
    assert max(shares(second).values()) < 0.1, second
    if rate < 200:
        # What it took to find out included. Faster, a third has been sent before the slow one could have answered.
        assert max(shares(first + second).values()) < 0.1, first + second
    for _ in range(2):
        assert max(shares(simulation.run(200)).values()) < 0.1
    simulation.ill = False
    recovered = simulation.now
    while simulation.now < recovered + 60:
        simulation.run(1)
    again = simulation.run(200)
    assert min(again[name] for name in "abc") > 30, again


def test_who_is_silent_is_slow_before_its_answer_comes() -> None:
    now = 1000.0
    pulse = Pulse(lambda: now)
    quick, silent = pulse.enter(A), pulse.enter(A)
    assert quick is not None
    assert silent is not None
    pulse.first_token(quick, 0.5)
    now += 3
    assert pulse.latency(A) == 3
    pulse.ended(silent, "client_gone")
    assert pulse.latency(A) == 0.5
