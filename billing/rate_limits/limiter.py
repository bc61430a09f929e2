"""Ask Redis for leave, once a request."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from billing.rate_limits.rules import CONCURRENCY, LETTERS, TOKENS, RateLimited, RateRule, Ticket, places
from billing.rate_limits.share import Share
from billing.rate_limits.wire import Amends, RedisAway, Wire, run

TAKEN = -1
MINUTE_SECONDS = 60.0


class RateLimiter:
    """The limits of all workers together, as one worker asks for them. Use it from one event loop.

    With Redis away, or slower than ``patience`` seconds, the worker enforces its own share of each
    limit (``limit / workers``), and asks Redis again after ``pause`` seconds. ``fallbacks`` counts
    the requests decided so. ``workers`` may be set at any time.
    """

    def __init__(
        self,
        redis_url: str,
        worker: object,
        *,
        workers: int = 1,
        patience: float = 0.25,
        pause: float = 1.0,
        slot_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``worker`` names this process in Redis's list of clients. ``slot_seconds`` after a crash, its
        requests no longer count against concurrency."""
        self.workers = workers
        self.fallbacks = 0
        self._clock = clock
        self._wire = Wire(
            redis_url,
            name=f"weir-{worker}",
            patience=patience,
            pause=pause,
            # By then they have lapsed.
            amends_within=slot_seconds,
            clock=clock,
        )
        self._share = Share(clock)
        self._slot_seconds = slot_seconds
        self._slot_milliseconds = round(slot_seconds * 1000)
        self._open: set[Ticket] = set()
        self._refresher: asyncio.Task[None] | None = None

    async def acquire(
        self, rules: Sequence[RateRule], subjects: Sequence[str], tokens: int, request_id: str
    ) -> Ticket:
        """Count a request of about ``tokens`` tokens in all of ``rules``, or in none.

        ``subjects[i]`` is whom ``rules[i]`` counts for, such as the organization for a plan's quota or
        the end user for a default. ``request_id`` must be unique. Raises ``RateLimited``, of several
        limits for the one to wait for longest.
        """
        now = self._clock()
        if not rules:
            return Ticket((), (), tokens, request_id, now, (), local=True)
        keys, told = places(rules, subjects)
        arguments = ["acquire", request_id, tokens, self._slot_milliseconds, *told]

        def abandoned(answer: list[int]) -> None:
            """The caller was cancelled before it could hear that it may: take it back."""
            if answer[0] == TAKEN:
                self.release(Ticket(rules, keys, tokens, request_id, now, answer[1:], local=False), 0)

        try:
            answer = await self._wire.call(
                run(keys, arguments), abandoned, _free_slots(rules, keys, request_id)
            )
        except RedisAway:
            self.fallbacks += 1
            return self._share.acquire(rules, keys, tokens, request_id, self.workers)
        self._share.forget()
        if answer[0] != TAKEN:
            rule, wait = rules[answer[0]], answer[2]
            raise RateLimited(rule, rule.limit, answer[1], None if wait < 0 else wait / 1000)
        ticket = Ticket(rules, keys, tokens, request_id, now, answer[1:], local=False)
        if any(rule.metric == CONCURRENCY for rule in rules):
            self._open.add(ticket)
            if self._refresher is None:
                self._refresher = asyncio.create_task(self._refresh())
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Free the slots of a request that goes on for nobody; ``release`` is still due for its tokens."""
        if ticket.ended or ticket.left:
            return
        self._open.discard(ticket)
        self._give_back(ticket, 0.0)
        ticket.left = True

    def release(self, ticket: Ticket, used_tokens: int | None = None) -> None:
        """The request has ended; with ``used_tokens``, put its tokens right. Waits for nothing.

        Called again for the same ticket, it does nothing. Slots that Redis keeps because it is away are
        freed when it is back, and lapse by themselves after ``slot_seconds``; tokens within the minute.
        """
        if ticket.ended:
            return
        ticket.ended = True
        self._open.discard(ticket)
        difference = 0.0 if used_tokens is None else float(used_tokens - ticket.tokens)
        if difference < 0:
            # Of what was taken, a part has leaked out of the bucket since, and is not given twice.
            difference *= max(0.0, 1 - (self._clock() - ticket.taken_at) / MINUTE_SECONDS)
        self._give_back(ticket, difference)

    def _give_back(self, ticket: Ticket, difference: float) -> None:
        """Free the ticket's slots, unless they are, and add ``difference`` to its tokens."""
        if ticket.local:
            self._share.release(ticket, difference, self.workers)
            return
        keys: list[str] = []
        arguments: list[str | int | float] = ["release", ticket.request_id, difference]
        for rule, key in zip(ticket.rules, ticket.keys, strict=True):
            if (rule.metric == CONCURRENCY and not ticket.left) or (rule.metric == TOKENS and difference):
                keys.append(key)
                arguments += (LETTERS[rule.metric], rule.limit)
        if keys:
            slots = None if ticket.left else _free_slots(ticket.rules, ticket.keys, ticket.request_id)
            self._wire.tell(run(keys, arguments), slots)

    async def close(self) -> None:
        """Send what waits, and hang up."""
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher
        await self._wire.close()

    async def _refresh(self) -> None:
        """Keep the slots of requests that are under way alive."""
        while True:
            await asyncio.sleep(self._slot_seconds / 3)
            for ticket in list(self._open):
                slots = [
                    key
                    for rule, key in zip(ticket.rules, ticket.keys, strict=True)
                    if rule.metric == CONCURRENCY
                ]
                self._wire.tell(run(slots, ("refresh", ticket.request_id, self._slot_milliseconds)))


def _free_slots(rules: Sequence[RateRule], keys: Sequence[str], request_id: str) -> Amends | None:
    """Packs the call that frees the slots of a request, which can be made twice. None if it takes none."""
    slots = [key for rule, key in zip(rules, keys, strict=True) if rule.metric == CONCURRENCY]
    if not slots:
        return None
    return lambda: run(slots, ("release", request_id, 0, *(LETTERS[CONCURRENCY], 1) * len(slots)))
