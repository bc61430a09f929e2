"""Whose turn it is: the attempts of one request in order, within the caller's patience."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from math import ceil, isfinite
from random import Random
from time import time

from gateway.v1.contracts import INVALID_OUTPUT
from gateway.v1.errors import NO_RETRY, Headers, ProviderLimit, ProviderTimeout, Unavailable, V1Error
from gateway.v1.exchange import Exchange, Offer
from gateway.v1.pulse import Pulse
from routing.circuit import Outcome, outcome_of
from routing.health import Visit
from routing.table import DeploymentSpec, GroupSpec

# One request is sent upstream no more often than this.
MAX_ATTEMPTS = 5
# Seconds before a second try at the same deployment, by chance between these.
RETRY_PAUSE = (0.05, 0.2)
# The part of a caller's patience that is used: its own clock started before ours.
USABLE = 0.95
# Of the time left, what one attempt may take while others wait: to the first token of a stream, and
# for a whole answer.
STREAM_PART, WHOLE_PART = 1 / 2, 2 / 3
# Less than this much is not worth cutting a total timeout short.
NEARLY = 0.9
# Seconds that an attempt must have at least.
LEAST_WAIT = 0.1
# A provider that was silent for this long failed, however long it may take by its own settings.
PATIENT_WAIT = 10.0
# A caller that is asked to wait for a probe that is under way.
PROBE_WAIT = 1.0


@dataclass(slots=True)
class Turn:
    """One attempt that may be made. ``patient``: whether its silence would be the provider's fault."""

    offer: Offer
    visit: Visit
    patient: bool = True
    # Seconds that the provider may be silent by its own settings, whatever the caller's patience.
    silence: float = 0.0
    # The offer with its own timeouts.
    original: Offer | None = None
    # Seconds that the provider asked us to wait before the next.
    retry_after: float | None = None


class Turns:
    """The attempts of one exchange. ``tried`` holds the ids of the deployments that had a turn."""

    def __init__(self, pulse: Pulse, exchange: Exchange, offers: Iterable[Offer], random: Random) -> None:
        self._pulse = pulse
        self._exchange = exchange
        self._waiting = list(offers)
        self._offered = [offer.candidate.deployment for offer in self._waiting]
        self._random = random
        self._endpoint = exchange.facts.endpoint if exchange.facts is not None else ""
        # What may be tried although it was.
        self._again: Offer | None = None
        self._reconnecting = False
        self.tried: set[int] = set()

    async def next(self, *, within: GroupSpec | None = None) -> Turn | None:
        """The next attempt to make, of the group ``within`` alone; None: there is none, or no time for one."""
        while self._waiting and len(self._exchange.attempts) < MAX_ATTEMPTS:
            if within is not None and self._waiting[0].candidate.group is not within:
                return None
            offer = self._waiting.pop(0)
            deployment = offer.candidate.deployment
            if deployment.id in self.tried:
                if offer is not self._again:
                    continue
                if self._reconnecting:
                    await asyncio.sleep(self._random.uniform(*RETRY_PAUSE))
            left = self._left()
            if left is not None and left < LEAST_WAIT:
                return None
            visit = self._pulse.enter(deployment, offer.credential, self._endpoint)
            if visit is None or not await self._claims(visit):
                continue
            self.tried.add(deployment.id)
            provider = deployment.provider
            silence = max(provider.first_token_timeout, provider.idle_timeout)
            if left is None:
                return Turn(offer, visit, silence=silence, original=offer)
            shortened, patient = self._shortened(offer, left)
            return Turn(shortened, visit, patient, silence, offer)
        return None

    async def _claims(self, visit: Visit) -> bool:
        try:
            return await self._pulse.claims(visit)
        except BaseException:
            # A client that left meanwhile must not keep the probe's place.
            self._pulse.ended(visit, "")
            raise

    def failed(self, turn: Turn, reason: str) -> None:
        """A turn failed, which may be worth another one at the same deployment.

        That is so where another of its credentials is left, where it never reached the provider and
        nobody else is left, and once where the answer was not valid.
        """
        offer = turn.original
        assert offer is not None  # noqa: S101  # a turn was had
        deployment = offer.candidate.deployment
        if outcome_of(reason) in (Outcome.LIMIT, Outcome.CREDENTIAL):
            self.ended(turn, reason)
            if len(deployment.provider.secrets) > 1 and self._pulse.available(deployment):
                self._again = offer
                self._waiting.insert(0, offer)
        elif reason == INVALID_OUTPUT and self._again is None:
            # Another answer of the same model may be valid.
            self._again = offer
            self._waiting.insert(0, offer)
        elif reason == "connect" and not self._reconnecting and not self._others():
            self._reconnecting = self._pulse.may_retry(deployment.id)
            if self._reconnecting:
                self._again = offer
                self._waiting = [offer]

    def narrow(self, fits: Callable[[Offer], bool]) -> bool:
        """Go on with deployments not tried yet that fit, if there are any."""
        self._waiting = [
            offer
            for offer in self._waiting
            if offer.candidate.deployment.id not in self.tried and fits(offer)
        ]
        return bool(self._waiting) and len(self._exchange.attempts) < MAX_ATTEMPTS

    def instead(self, offers: Collection[Offer]) -> None:
        """Go on with these and no others."""
        self._waiting = list(offers)

    def ended(self, turn: Turn, reason: str) -> None:
        """A turn is over; ``reason`` is its attempt's, empty for one that was given up."""
        if not turn.patient and reason.startswith("timeout"):
            reason = ""
        self._pulse.ended(turn.visit, reason, turn.retry_after)

    def nobody(self) -> V1Error:
        """What to tell the client if nobody had a turn."""
        left = self._left()
        if left is not None and left < LEAST_WAIT:
            return ProviderTimeout(
                "The time that the caller gave was over before a provider could be asked.", headers=NO_RETRY
            )
        return unserved(self._pulse, self._offered, self._endpoint)

    def _others(self) -> bool:
        return any(offer.candidate.deployment.id not in self.tried for offer in self._waiting)

    def _left(self) -> float | None:
        """Seconds until the caller gives up; None: it did not say."""
        patience = self._exchange.patience
        return None if patience is None else patience * USABLE - self._exchange.elapsed_ms() / 1000

    def _shortened(self, offer: Offer, left: float) -> tuple[Offer, bool]:
        """The offer with timeouts that leave time for those who wait, and whether they are still fair."""
        facts, candidate = self._exchange.facts, offer.candidate
        streamed = facts is not None and facts.stream
        provider = candidate.deployment.provider
        if self._others():
            left *= STREAM_PART if streamed else WHOLE_PART
        first = min(provider.first_token_timeout, left)
        # A stream that has begun may go on for longer: the caller waits for each piece anew.
        total = provider.total_timeout
        if not streamed and left < NEARLY * total:
            total = left
        if first == provider.first_token_timeout and total == provider.total_timeout:
            return offer, True
        hurried = replace(provider, first_token_timeout=first, total_timeout=total)
        deployment = replace(candidate.deployment, provider=hurried)
        patient = left >= min(provider.first_token_timeout, PATIENT_WAIT)
        return replace(offer, candidate=candidate._replace(deployment=deployment)), patient


def idle_wait(exchange: Exchange, turn: Turn) -> float:
    """Seconds that a stream which has just begun may pause: the caller must hear of a stall before it gives up.

    What is left of its patience, and never less than half of that, since OpenAI's SDKs wait anew for each piece.
    """
    idle = turn.offer.candidate.deployment.provider.idle_timeout
    if exchange.patience is None:
        return idle
    usable = exchange.patience * USABLE
    wait = min(idle, max(usable - exchange.elapsed_ms() / 1000, usable / 2))
    turn.patient = turn.patient and wait >= min(idle, PATIENT_WAIT)
    return wait


def unserved(pulse: Pulse, deployments: Iterable[DeploymentSpec], endpoint: str) -> V1Error:
    """The error where no deployment may be asked now, saying whose fault it is and when to come again."""
    waits, reasons = [], set()
    for deployment in deployments:
        waits.append(pulse.wait(deployment, endpoint))
        reasons.add(pulse.why(deployment, endpoint))
    seconds = min((wait for wait in waits if isfinite(wait)), default=PROBE_WAIT)
    headers: Headers = [(b"retry-after", str(max(1, ceil(seconds))).encode())]
    if reasons == {"rate_limited"}:
        return ProviderLimit(
            "The provider's rate limit was reached (not a limit of this gateway), so it is not asked for a while.",
            headers=headers,
        )
    if reasons == {"credential"}:
        return Unavailable(
            "The provider refuses this gateway's credential. The operator of this gateway must look into it.",
            code="provider_unavailable",
            headers=headers,
        )
    if reasons == {"unknown_model"}:
        return Unavailable(
            "The provider does not know the model that is configured for it. The operator of this gateway must "
            "look into it.",
            code="provider_unavailable",
            headers=headers,
        )
    return Unavailable(
        "The provider is failing, so it is not asked for a while. This is the provider's fault, not this gateway's.",
        code="provider_unavailable",
        headers=headers,
    )


def retry_after_of(headers: Headers) -> float | None:
    """Seconds of a ``retry-after`` header, which may be a number or a date; None without one."""
    for name, value in headers:
        if name == b"retry-after":
            text = value.decode("latin-1").strip()
            try:
                seconds = float(text)
            except ValueError:
                try:
                    seconds = parsedate_to_datetime(text).timestamp() - time()
                except ValueError:
                    return None
            return seconds if isfinite(seconds) and seconds >= 0 else None
    return None


def patience_of(headers: dict[bytes, bytes]) -> float | None:
    """How many seconds the caller will wait for an answer, as OpenAI's SDKs tell; None: not told."""
    found = []
    for name in (b"x-stainless-timeout", b"x-stainless-read-timeout"):
        told = headers.get(name)
        if told is None:
            continue
        try:
            seconds = float(told)
        except ValueError:
            continue
        if 0 < seconds < 86_400:
            found.append(seconds)
    return min(found, default=None)
