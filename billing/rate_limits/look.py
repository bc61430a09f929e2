"""How a request would stand with its limits, by the script that decides, and without taking anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

from billing.rate_limits.rules import TOKENS, RateRule, places
from billing.rate_limits.wire import SCRIPT

NEVER = -1


@dataclass(frozen=True, slots=True)
class RateLook:
    """One limit: what is ``used`` of it, and what the request would ``take``.

    ``wait_seconds`` is when the request would fit (for concurrency a guess), 0 where it fits, None where it
    never will. ``bites`` is the one limit that a client would be told of.
    """

    rule: RateRule
    used: int
    take: int
    wait_seconds: float | None
    bites: bool

    @property
    def fits(self) -> bool:
        """Whether this limit lets the request pass."""
        return self.wait_seconds == 0


def look_at_rates(
    redis: Redis, rules: Sequence[RateRule], subjects: Sequence[str], tokens: int
) -> list[RateLook]:
    """How a request of about ``tokens`` tokens stands with each of ``rules``; parameters as of
    ``RateLimiter.acquire``. Raises ``redis.RedisError``."""
    if not rules:
        return []
    keys, told = places(rules, subjects)
    arguments = ["look", "nobody", tokens, 0, *told]
    # An asynchronous client has the same method, and the annotation is of both.
    answer = cast("list[int]", redis.eval(SCRIPT.decode(), len(keys), *keys, *arguments))
    refused, found = answer[0], answer[1:]
    return [
        RateLook(
            rule,
            found[2 * place],
            tokens if rule.metric == TOKENS else 1,
            None if (wait := found[2 * place + 1]) == NEVER else wait / 1000,
            bites=place == refused,
        )
        for place, rule in enumerate(rules)
    ]
