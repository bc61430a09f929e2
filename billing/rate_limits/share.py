"""A worker's own share of the limits, for as long as Redis is away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from billing.rate_limits.rules import CONCURRENCY, TOKENS, RateLimited, RateRule, Ticket


class Share:
    """The limits as one worker of ``workers`` enforces them alone: each limit divided, at least 1.

    A request that needs more tokens than the share, yet not more than the limit, passes when the
    share is whole.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By key: the level of the bucket, and when that was.
        self._buckets: dict[str, tuple[float, float]] = {}
        self._slots: Counter[str] = Counter()

    def acquire(
        self, rules: Sequence[RateRule], keys: Sequence[str], tokens: int, request_id: str, workers: int
    ) -> Ticket:
        """Count the request in every limit or in none. Raises ``RateLimited``."""
        now = self._clock()
        levels: list[int] = []
        taken: list[tuple[str, float]] = []
        for rule, key in zip(rules, keys, strict=True):
            share = max(1, rule.limit // workers)
            cost = tokens if rule.metric == TOKENS else 1
            if (cost > rule.limit and rule.metric != CONCURRENCY) or rule.limit < 1:
                raise RateLimited(rule, rule.limit, rule.limit, None)
            if rule.metric == CONCURRENCY:
                level: float = self._slots[key]
                wait = 1.0
            else:
                level = self._level(key, share, now)
                wait = (level + min(cost, share) - share) * 60 / share
            if level + min(cost, share) > share + 1e-6:
                raise RateLimited(rule, share, max(0, int(share - level)), wait)
            taken.append((key, level + cost))
            reset = 0 if rule.metric == CONCURRENCY else round((level + cost) * 60_000 / share)
            levels += (max(0, int(share - level - cost)), reset)
        for rule, (key, level) in zip(rules, taken, strict=True):
            if rule.metric == CONCURRENCY:
                self._slots[key] += 1
            else:
                self._buckets[key] = (level, now)
        return Ticket(rules, keys, tokens, request_id, now, levels, local=True)

    def release(self, ticket: Ticket, difference: float, workers: int) -> None:
        """Free the request's slots and add ``difference`` to its tokens."""
        now = self._clock()
        for rule, key in zip(ticket.rules, ticket.keys, strict=True):
            if rule.metric == CONCURRENCY:
                if not ticket.left:
                    self._slots[key] -= 1
                    if self._slots[key] <= 0:
                        del self._slots[key]
            elif rule.metric == TOKENS and difference and key in self._buckets:
                level = self._level(key, max(1, rule.limit // workers), now)
                self._buckets[key] = (max(0.0, level + difference), now)

    def forget(self) -> None:
        """Redis counts again: drop the minutes' counts. Slots stay until their requests end."""
        self._buckets.clear()

    def _level(self, key: str, share: int, now: float) -> float:
        level, at = self._buckets.get(key, (0.0, now))
        return max(0.0, level - (now - at) * share / 60)
