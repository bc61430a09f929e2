"""A circuit breaker, and what the end of an attempt means to it. Pure: time and chance are given.

A circuit is

    closed     requests pass; faults in a row, or a large share of faults, open it
    open       nothing passes until its pause is over; each opening pauses for longer, with jitter
    half-open  one request at a time passes, as the probe; its success closes, its fault opens again
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from random import Random


class Outcome(Enum):
    """What an attempt says about whom it was made with."""

    OK = "ok"
    # The provider failed.
    FAULT = "fault"
    # The provider answered that the credential has had its share.
    LIMIT = "limit"
    # The provider does not take the credential.
    CREDENTIAL = "credential"
    # The provider does not know the model that it is asked for.
    UNKNOWN = "unknown"
    # Nothing: the client's own error, a client that left, a limit of the gateway.
    NEUTRAL = "neutral"


_OUTCOMES = {
    "ok": Outcome.OK,
    "rate_limited": Outcome.LIMIT,
    "credential": Outcome.CREDENTIAL,
    "no_money": Outcome.CREDENTIAL,
    **dict.fromkeys(
        ("", "client_gone", "interrupted", "refused", "context_window", "content_filter"), Outcome.NEUTRAL
    ),
    "unknown_model": Outcome.UNKNOWN,
    # Another attempt was faster, which opens no circuit.
    "hedge_loser": Outcome.NEUTRAL,
    **dict.fromkeys(("over_limit", "unsupported", "invalid_output"), Outcome.NEUTRAL),
}


def outcome_of(reason: str) -> Outcome:
    """What the reason of an attempt, one word as in the request log, says about the provider."""
    return _OUTCOMES.get(reason, Outcome.FAULT)


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long a circuit stays open: doubled at each opening from ``first`` to ``longest`` seconds."""

    first: float
    longest: float

    def at(self, opening: int, random: Random) -> float:
        """The pause of the ``opening``-th opening in a row, from 1, a fifth longer or shorter by chance."""
        return float(min(self.longest, self.first * 2 ** min(opening - 1, 16)) * random.uniform(0.8, 1.2))


FAULT_PAUSES = Pauses(2.0, 20.0)
LIMIT_PAUSES = Pauses(1.0, 60.0)
CREDENTIAL_PAUSES = Pauses(30.0, 600.0)
UNKNOWN_PAUSES = Pauses(5.0, 60.0)
# Who answered within this many seconds knows its model, whatever it says of one request.
ANSWERED_SECONDS = 60.0
# A provider's Retry-After is honoured up to here.
LONGEST_RETRY_AFTER = 600.0
LONGEST_AFTER_FAULT = 60.0
FAULTS_IN_A_ROW = 5
# With at least this many attempts in the window, a share of faults opens too.
WINDOW_SECONDS = 30.0
WINDOW_ATTEMPTS = 20
WINDOW_SHARE = 0.5
# A circuit that stayed closed for so long begins with the first pause again.
FORGIVEN_SECONDS = 60.0


class Circuit:
    """One breaker."""

    __slots__ = (
        *("_closed_at", "_counts", "_faults", "_in_a_row", "_total"),
        *("asks", "epoch", "openings", "probing", "until", "why"),
    )

    def __init__(self) -> None:
        # When the pause ends; None: closed.
        self.until: float | None = None
        self.why = ""
        # The endpoint to probe it by; empty: not known.
        self.asks = ""
        self.openings = 0
        self.probing = False
        # Grows with each opening and closing, so that late news of earlier attempts is known as such.
        self.epoch = 0
        self._closed_at = float("-inf")
        self._forget()

    def _forget(self) -> None:
        self._in_a_row = self._faults = self._total = 0
        # [second, attempts, faults] of the window, oldest first.
        self._counts: deque[list[int]] = deque()

    @property
    def closed(self) -> bool:
        """Whether requests pass as they like."""
        return self.until is None

    def passes(self, now: float) -> bool:
        """Whether a request may go now, be it as the probe."""
        return self.until is None or (now >= self.until and not self.probing)

    def open(self, until: float, why: str, now: float, asks: str = "") -> None:
        """Let nothing pass until then. ``asks`` is the endpoint to probe by."""
        if self.until is None and now - self._closed_at > FORGIVEN_SECONDS:
            self.openings = 0
        self.openings += 1
        self.until, self.why, self.asks, self.probing = until, why, asks, False
        self.epoch += 1
        self._forget()

    def next_opening(self, now: float) -> int:
        """Which opening in a row the next one would be."""
        forgiven = self.until is None and now - self._closed_at > FORGIVEN_SECONDS
        return 1 if forgiven else self.openings + 1

    def close(self, now: float) -> None:
        """Let everything pass."""
        self.until, self.why, self.probing = None, "", False
        self._closed_at = now
        self.epoch += 1
        self._forget()

    def counts(self, fault: bool, now: float) -> bool:
        """Count an attempt; whether that is one fault too many."""
        second = int(now)
        if not self._counts or self._counts[-1][0] != second:
            self._counts.append([second, 0, 0])
            while self._counts[0][0] <= now - WINDOW_SECONDS:
                _, total, faults = self._counts.popleft()
                self._total -= total
                self._faults -= faults
        newest = self._counts[-1]
        newest[1] += 1
        self._total += 1
        if not fault:
            self._in_a_row = 0
            return False
        newest[2] += 1
        self._faults += 1
        self._in_a_row += 1
        return self._in_a_row >= FAULTS_IN_A_ROW or (
            self._total >= WINDOW_ATTEMPTS and self._faults >= WINDOW_SHARE * self._total
        )
