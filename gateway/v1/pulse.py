"""What a worker feels of its deployments: load, time to the first token, failures, and their circuits."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2s
from math import exp
from random import Random

from routing.circuit import Outcome, outcome_of
from routing.health import Health, Visit, question
from routing.table import DeploymentSpec, ProviderSpec

# After so many seconds an observation has faded to a third.
LATENCY_SECONDS = 10.0
FAILING_SECONDS = 40.0
# However fast they follow each other, a failure moves the share of failures so far, and an answer so far: less,
# as failures are quicker than answers, so that the answers of better times come behind them.
FAILED_STEP, ANSWERED_STEP = 0.2, 0.05
# However slowly they do.
LONGEST_STEP = 0.5
# No share is higher, or it would take too long to come down again.
MOST_FAILING = 0.7
# To the first token, of a deployment that has only failed so far.
UNKNOWN_SECONDS = 1.0
# Who was not asked for so long is worth a look.
DUE_SECONDS = 15.0
# Of the requests to a deployment, as many may be sent a second time; so many at once after a quiet time.
RETRY_SHARE = 0.1
RETRY_BURST = 10.0
# While another worker probes, this one does not ask for so long whether it may.
POSTPONED_SECONDS = 1.0


@lru_cache(maxsize=4096)
def fingerprint(secret: str) -> str:
    """A name for a credential that does not tell it."""
    return blake2s(secret.encode(), digest_size=8).hexdigest()


def fingerprints(provider: ProviderSpec) -> tuple[str, ...]:
    """The names of a provider's credentials, in their order; one for none."""
    return tuple(map(fingerprint, provider.secrets)) or ("-",)


@dataclass(slots=True)
class Feel:
    """One deployment. Times are seconds of the pulse's clock."""

    in_flight: int = 0
    # When those began that have no first token yet, by the id of their visit, oldest first.
    waiting: dict[int, float] = field(default_factory=dict)
    # To the first token, a peak-sensitive mean; 0: never measured.
    latency: float = 0.0
    latency_at: float = 0.0
    # Share of attempts that the provider failed, newer ones weighing more.
    failing: float = 0.0
    failing_at: float = 0.0
    asked_at: float = float("-inf")
    retries: float = RETRY_BURST


class Pulse:
    """The deployments as this worker sees them. ``health`` may also learn from other workers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, random: Random | None = None) -> None:
        self.clock = clock
        # Asks the other workers whether one of them makes a probe already; None: there are none.
        self.ask_others: Callable[[Visit], Awaitable[bool]] | None = None
        self.health = Health(random or Random())  # noqa: S311  # spreads load, guards nothing
        self._feel: defaultdict[int, Feel] = defaultdict(Feel)

    # --- attempts --------------------------------------------------------------------------------

    def enter(self, deployment: DeploymentSpec, preferred: str = "", endpoint: str = "") -> Visit | None:
        """Leave to ask a deployment, and with which credential, ``preferred`` (a fingerprint) if it works;
        None: not now."""
        now = self.clock()
        asked = question(endpoint, deployment.model) if endpoint else ""
        visit = self.health.enter(deployment.id, fingerprints(deployment.provider), now, preferred, asked)
        if visit is not None:
            feel = self._feel[deployment.id]
            feel.in_flight += 1
            feel.waiting[id(visit)] = feel.asked_at = now
            feel.retries = min(RETRY_BURST, feel.retries + RETRY_SHARE)
        return visit

    async def claims(self, visit: Visit) -> bool:
        """Whether the attempt may be made: if it is a probe, whether no other worker's is under way."""
        if not visit.probes or self.ask_others is None or await self.ask_others(visit):
            return True
        feel = self._feel[visit.deployment_id]
        feel.in_flight -= 1
        feel.waiting.pop(id(visit), None)
        self.health.postpone(visit, self.clock() + POSTPONED_SECONDS)
        return False

    def answered(self, visit: Visit) -> None:
        """Content came that the client can use: a probe has succeeded."""
        if visit.probes:
            self.health.answered(visit, self.clock())

    def first_token(self, visit: Visit, seconds: float) -> None:
        """Its first content came after so many seconds. A slow one counts at once, a fast one by and by."""
        now = self.clock()
        feel = self._feel[visit.deployment_id]
        if seconds >= feel.latency:
            feel.latency = seconds
        else:
            kept = exp((feel.latency_at - now) / LATENCY_SECONDS)
            feel.latency = feel.latency * kept + seconds * (1 - kept)
        feel.latency_at = now
        feel.waiting.pop(id(visit), None)
        # Not only at its end, or long answers of better times would hide the failures of the moment.
        self._felt(feel, False, now)

    def at_least(self, visit: Visit, seconds: float) -> None:
        """Its first content had not come after so many seconds, and is no longer waited for."""
        feel = self._feel[visit.deployment_id]
        if seconds > feel.latency:
            feel.latency, feel.latency_at = seconds, self.clock()

    def ended(self, visit: Visit, reason: str, retry_after: float | None = None) -> None:
        """The attempt is over; ``reason`` as in the request log, empty for one that was given up."""
        if visit.ended:
            return
        now = self.clock()
        feel = self._feel[visit.deployment_id]
        feel.in_flight -= 1
        feel.waiting.pop(id(visit), None)
        outcome = outcome_of(reason)
        if outcome is Outcome.FAULT:
            self._felt(feel, True, now)
        self.health.ended(visit, outcome, now, retry_after)

    def _felt(self, feel: Feel, fault: bool, now: float) -> None:
        kept = exp((feel.failing_at - now) / FAILING_SECONDS)
        kept = min(max(kept, 1 - LONGEST_STEP), 1 - (FAILED_STEP if fault else ANSWERED_STEP))
        feel.failing = min(MOST_FAILING, feel.failing * kept + fault * (1 - kept))
        feel.failing_at = now

    def may_retry(self, deployment_id: int) -> bool:
        """Take one from the deployment's budget of second tries, if there is one."""
        feel = self._feel[deployment_id]
        if feel.retries < 1:
            return False
        feel.retries -= 1
        return True

    # --- signals ---------------------------------------------------------------------------------

    def in_flight(self, deployment: DeploymentSpec) -> int:
        """Requests there at this moment."""
        return self._feel[deployment.id].in_flight

    def latency(self, deployment: DeploymentSpec) -> float:
        """Seconds to the first token, smoothed, and longer for who fails often; 0 if never measured.

        Who is silent for longer than that is as slow already, before the answer or the timeout comes.
        """
        feel = self._feel[deployment.id]
        seconds = feel.latency
        if seconds and feel.waiting:
            seconds = max(seconds, self.clock() - next(iter(feel.waiting.values())))
        if not feel.failing:
            return seconds
        # Every failure costs a caller an attempt. The power is such that one alone does not yet double it.
        return (seconds or UNKNOWN_SECONDS) / (1 - feel.failing) ** 3

    def due(self, deployment: DeploymentSpec) -> bool:
        """Whether it was not asked for a while, and nobody is asking."""
        feel = self._feel[deployment.id]
        return not feel.in_flight and self.clock() - feel.asked_at >= DUE_SECONDS

    def available(self, deployment: DeploymentSpec) -> bool:
        """Whether a request may go there at this moment."""
        health = self.health
        return not health.troubled(deployment.id) or (
            health.wait(deployment.id, fingerprints(deployment.provider), self.clock()) <= 0
        )

    def wait(self, deployment: DeploymentSpec, endpoint: str = "") -> float:
        """Seconds until a request may go there; infinite while that depends on a probe under way."""
        asked = question(endpoint, deployment.model) if endpoint else ""
        return self.health.wait(deployment.id, fingerprints(deployment.provider), self.clock(), asked)

    def why(self, deployment: DeploymentSpec, endpoint: str = "") -> str:
        """What keeps requests away: ``failing``, ``rate_limited``, ``credential`` or, of this endpoint,
        ``unknown_model``; empty if nothing."""
        asked = question(endpoint, deployment.model) if endpoint else ""
        return self.health.why(deployment.id, fingerprints(deployment.provider), self.clock(), asked)
