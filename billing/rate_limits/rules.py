"""What a limit is, how a request stands with it, and the refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REQUESTS = "requests_per_minute"
TOKENS = "tokens_per_minute"
CONCURRENCY = "concurrency"
# How each metric is called in Redis.
LETTERS: Mapping[str, str] = {REQUESTS: "r", TOKENS: "t", CONCURRENCY: "c"}


@dataclass(frozen=True, slots=True)
class RateRule:
    """One limit that binds a request: ``limit`` requests or tokens a minute, or requests at a time.

    A minute's allowance fills up evenly: ``limit / 60`` each second, and never holds more than ``limit``.
    ``label`` is what a message calls the limit.
    """

    quota_id: int
    scope: str
    metric: str
    limit: int
    label: str


class RateLimited(Exception):
    """A limit refuses the request, of which nothing was counted.

    ``remaining`` is what the limit has left. ``retry_after_seconds`` is when the request would fit
    (for concurrency a guess), None where it never will because it alone is more than the limit.
    """

    def __init__(self, rule: RateRule, limit: int, remaining: int, retry_after_seconds: float | None) -> None:
        super().__init__(f"The limit {rule.label!r} is reached.")
        self.rule = rule
        self.limit = limit
        self.remaining = remaining
        self.retry_after_seconds = retry_after_seconds

    @property
    def standing(self) -> Standing:
        """How the limit stands; a minute's allowance fills up evenly."""
        used = self.limit - self.remaining
        return Standing(self.limit, self.remaining, used * 60 / self.limit if self.limit else 0.0)


def places(rules: Sequence[RateRule], subjects: Sequence[str]) -> tuple[list[str], list[str | int | float]]:
    """Where Redis counts each of ``rules`` for its subject, and what the script is told of each."""
    keys: list[str] = []
    told: list[str | int | float] = []
    for rule, subject in zip(rules, subjects, strict=True):
        letter = LETTERS[rule.metric]
        keys.append(f"weir:limit:{letter}:{rule.quota_id}:{subject}")
        told += (letter, rule.limit)
    return keys, told


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands. ``reset_seconds``: until it is whole again."""

    limit: int
    remaining: int
    reset_seconds: float


class Ticket:
    """Leave for one request, to be handed to ``RateLimiter.release`` at its end."""

    __slots__ = ("_levels", "ended", "keys", "left", "local", "request_id", "rules", "taken_at", "tokens")

    def __init__(
        self,
        rules: Sequence[RateRule],
        keys: Sequence[str],
        tokens: int,
        request_id: str,
        taken_at: float,
        levels: Sequence[int],
        *,
        local: bool,
    ) -> None:
        """``levels`` has two numbers for each rule: what remains, and milliseconds to its reset."""
        self.rules = rules
        self.keys = keys
        self.tokens = tokens
        self.request_id = request_id
        self.taken_at = taken_at
        self.local = local
        self.ended = False
        # Whether its slots are free already.
        self.left = False
        self._levels = levels

    @property
    def remaining(self) -> dict[str, Standing]:
        """By metric, the rule that has the least left. Metrics without a rule are absent."""
        tightest: dict[str, Standing] = {}
        for place, rule in enumerate(self.rules):
            left = self._levels[2 * place]
            known = tightest.get(rule.metric)
            if known is None or left < known.remaining:
                tightest[rule.metric] = Standing(rule.limit, left, self._levels[2 * place + 1] / 1000)
        return tightest
