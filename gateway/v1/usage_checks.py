"""The accounting check: of a sample of answers the gateway counts the tokens itself, and keeps what providers
reported beside it, by deployment and day.

Nothing is kept of a request but its part in the sums. Counting goes on in a thread, after the client has
everything; what cannot be counted exactly (images, tools, an answer in pieces) is no part of it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from random import Random
from typing import Any, Final

import psycopg
from psycopg_pool import AsyncConnectionPool

from billing.patience import patient
from billing.token_usage import COUNTED, ESTIMATED, REPORTED, TokenUsage
from gateway.v1.counting import Told, count_usage
from gateway.v1.fetch import Fetch

logger = logging.getLogger(__name__)

WRITE_SECONDS = 2.0
# A worker that ends waits no longer for it.
PATIENCE_SECONDS = 5.0
# Answers that wait to be counted; of more, the sample is smaller.
MOST_WAITING = 16
# Bounds of a ratio, so that it fits its column and can be divided by.
LEAST, MOST = Decimal("0.0001"), Decimal(99_999_999)

_ADD: Final = """
INSERT INTO gateway_usagecheck AS known
    (deployment, day, requests, reported_input, reported_output, counted_input, counted_output, worst_ratio)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (deployment, day) DO UPDATE SET
    requests = known.requests + excluded.requests,
    reported_input = known.reported_input + excluded.reported_input,
    reported_output = known.reported_output + excluded.reported_output,
    counted_input = known.counted_input + excluded.counted_input,
    counted_output = known.counted_output + excluded.counted_output,
    worst_ratio = CASE
        WHEN greatest(excluded.worst_ratio, 1 / excluded.worst_ratio)
           > greatest(known.worst_ratio, 1 / known.worst_ratio) THEN excluded.worst_ratio
        ELSE known.worst_ratio END
"""


@dataclass(slots=True)
class Sums:
    """Of one deployment and day. ``worst_ratio`` is reported by counted tokens, of the request where they
    are farthest apart."""

    requests: int = 0
    reported_input: int = 0
    reported_output: int = 0
    counted_input: int = 0
    counted_output: int = 0
    worst_ratio: Decimal = Decimal(1)

    def add(self, reported: TokenUsage, hidden: int, counted: TokenUsage) -> None:
        """Count one request in. ``hidden`` tokens of the reported output were not shown."""
        output = reported.completion - hidden
        self.requests += 1
        self.reported_input += reported.prompt
        self.reported_output += output
        self.counted_input += counted.prompt
        self.counted_output += counted.completion
        ratio = Decimal(reported.prompt + output) / max(counted.total, 1)
        self.worst_ratio = _worse(self.worst_ratio, min(max(ratio.quantize(LEAST), LEAST), MOST))

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(
            self.requests + other.requests,
            self.reported_input + other.reported_input,
            self.reported_output + other.reported_output,
            self.counted_input + other.counted_input,
            self.counted_output + other.counted_output,
            _worse(self.worst_ratio, other.worst_ratio),
        )


class UsageChecks:
    """One worker's part. ``share`` of the answers are counted; 0: none, and nothing is done. ``sums`` is what is not
    written yet, by deployment and day (UTC)."""

    def __init__(self, pool: AsyncConnectionPool[Any], share: float) -> None:
        self.share = share
        self._pool = pool
        self._random = Random()  # noqa: S311  # draws a sample, guards nothing
        self.sums: dict[tuple[str, date], Sums] = {}
        self._waiting: set[asyncio.Task[None]] = set()

    def sample(self, fetch: Fetch) -> None:
        """Count a whole answer, if it is drawn and can be. Never waits, never raises."""
        if not self.share or self._random.random() >= self.share or len(self._waiting) >= MOST_WAITING:
            return
        told, reported = fetch.told(), fetch.spent
        if told is None or reported is None or reported.source != REPORTED or reported.quantities:
            return
        deployment = fetch.turn.offer.candidate.deployment
        task = asyncio.create_task(self._count(deployment.name, deployment.model, told, reported))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _count(self, deployment: str, model: str, told: Told, reported: TokenUsage) -> None:
        try:
            counted, hidden = await asyncio.to_thread(_counted, told, model, reported)
        except Exception as error:  # noqa: BLE001  # what a provider sent may be anything
            logger.warning("An answer could not be counted for the check: %s", type(error).__name__)
            return
        if counted.source != COUNTED:
            return
        self.sums.setdefault((deployment, datetime.now(UTC).date()), Sums()).add(reported, hidden, counted)

    async def run(self) -> None:
        """Write down what was counted, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def close(self) -> None:
        """Count what waits, and write it down."""
        await asyncio.gather(*self._waiting)
        await self.write()

    async def write(self) -> None:
        """Write down what was counted since the last time; kept for the next time if it cannot be."""
        if not self.sums:
            return
        try:
            async with patient(self._pool, PATIENCE_SECONDS) as connection:
                # One statement at a time, each a transaction: workers never wait for each other in a circle.
                for key in sorted(self.sums):
                    sums = self.sums[key]
                    values = (
                        *(*key, sums.requests, sums.reported_input, sums.reported_output),
                        *(sums.counted_input, sums.counted_output, sums.worst_ratio),
                    )
                    # Out first: what is counted meanwhile begins anew.
                    del self.sums[key]
                    try:
                        await connection.execute(_ADD, values)
                    except BaseException:
                        self.sums[key] = sums.plus(self.sums.get(key, Sums()))
                        raise
        except psycopg.Error as error:
            logger.warning("The accounting check could not be written: %s", type(error).__name__)


def _worse(one: Decimal, other: Decimal) -> Decimal:
    """The one that is farther from 1, by how many times."""
    return max(one, other, key=lambda ratio: max(ratio, 1 / ratio))


def _counted(told: Told, model: str, reported: TokenUsage) -> tuple[TokenUsage, int]:
    """What was used, and how many tokens of the reported output are not in the text that was counted. The
    source is another than ``counted`` where that cannot be known."""
    every = list(told.messages)
    if not told.sums_up:
        shown = any(message.get("reasoning_content") or message.get("reasoning") for message in every)
        return count_usage(told.facts, model, every), 0 if shown else reported.reasoning
    answered = [message for message in every if "reasoning_content" not in message]
    counted = count_usage(told.facts, model, answered)
    if len(answered) < len(every) and not reported.reasoning:
        # It thought, and how much of its output that was is not told.
        return replace(counted, source=ESTIMATED), 0
    return counted, reported.reasoning
