"""A second attempt at another deployment while the first is late; whichever begins to answer first goes on."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque

from gateway.v1.cancelling import cancelled
from gateway.v1.exchange import Exchange
from gateway.v1.fetch import COUNTED_ENDPOINTS, Fetch
from gateway.v1.pulse import Pulse
from gateway.v1.turns import Turns, retry_after_of
from gateway.v1.upstream import Upstream

# Of the requests to a model group, so many may be sent twice; so many at once after a quiet time.
SHARE = 0.05
BURST = 5.0
# So many times to the first token are remembered of a deployment, and so many say what is usual.
LATELY, ENOUGH = 100, 20
# The reason of an attempt that another one beat.
LOSER = "hedge_loser"


class Hedges:
    """The hedging of one worker: how long its deployments take, and what each group may still send twice."""

    def __init__(self, upstream: Upstream, pulse: Pulse) -> None:
        self._upstream = upstream
        self._pulse = pulse
        self._credit: defaultdict[int, float] = defaultdict(float)
        # Seconds to the first token by deployment, of streams and of whole answers.
        self._times: defaultdict[tuple[int, bool], deque[float]] = defaultdict(_lately)

    async def first(self, exchange: Exchange, turns: Turns, fetch: Fetch) -> Fetch:
        """Begin ``fetch``, and another one if it is late; returns the one to go on with, begun or failed.

        Late is later than nineteen of twenty requests like this one to the same deployment. The other one
        is stopped and its turn is over; who goes on stands last among the exchange's attempts. Only the first
        attempt of a request is hedged, and only chats and embeddings, whose cost can be estimated.
        """
        facts, candidate = exchange.facts, fetch.turn.offer.candidate
        if facts is None or facts.endpoint not in COUNTED_ENDPOINTS or len(exchange.attempts) > 1:
            return fetch
        group = candidate.group
        self._credit[group.id] = credit = min(BURST, self._credit[group.id] + SHARE)
        times = self._times[candidate.deployment.id, facts.stream]
        began = time.perf_counter()
        if len(times) < ENOUGH or credit < 1:
            if await fetch.begun():
                times.append(time.perf_counter() - began)
            return fetch
        late = sorted(times)[len(times) * 19 // 20]
        own = asyncio.create_task(fetch.begun())
        rival: Fetch | None = None
        other: asyncio.Task[bool] | None = None
        try:
            await asyncio.wait({own}, timeout=late)
            turn = None
            # Others may have spent it meanwhile.
            if not own.done() and not exchange.client_gone and self._credit[group.id] >= 1:
                self._credit[group.id] -= 1
                turn = await turns.next(within=group)
                if turn is None:
                    self._credit[group.id] += 1
            if turn is not None:
                rival = Fetch(self._upstream, self._pulse, exchange, turn)
                other = asyncio.create_task(rival.begun())
            if rival is None or other is None:
                if await own:
                    times.append(time.perf_counter() - began)
                fetch.taken_over()
                return fetch
            await asyncio.wait({own, other}, return_when=asyncio.FIRST_COMPLETED)
            if (own.done() and not own.result()) or (other.done() and not other.result()):
                # One has failed: all depends on the other.
                await asyncio.wait({own, other})
            # It took this long, or would have taken longer.
            times.append(time.perf_counter() - began)
            ahead = own.done() and (own.result() or (other.done() and not other.result()))
            winner, loser, beaten = (fetch, rival, other) if ahead else (rival, fetch, own)
            await self._lose(exchange, turns, loser, beaten)
        except BaseException:
            if rival is not None and other is not None:
                await self._lose(exchange, turns, rival, other)
            await cancelled([own])
            # What it cost is for the request, as without hedging.
            fetch.taken_over()
            await fetch.close()
            turns.ended(fetch.turn, fetch.attempt.reason)
            raise
        winner.taken_over()
        return winner

    async def _lose(self, exchange: Exchange, turns: Turns, loser: Fetch, task: asyncio.Task[bool]) -> None:
        turn, attempt, spent = loser.turn, loser.attempt, loser.spent
        if loser.failure is not None:
            turn.retry_after = retry_after_of(loser.failure.error.headers)
        else:
            await cancelled([task])
            attempt.reason = LOSER
            spent = loser.used
            self._pulse.at_least(turn.visit, (exchange.elapsed_ms() - attempt.started_ms) / 1000)
        exchange.waste(attempt, turn.offer, spent)
        await loser.close()
        turns.ended(turn, attempt.reason)


def _lately() -> deque[float]:
    return deque(maxlen=LATELY)
