"""The notice board of circuits, in Redis: what one worker learned of a provider, all know half a second later.

Never asked on the way of a request, but for one case: before a probe, whether another worker's is
under way. With Redis away each worker goes by what it sees itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.v1.pulse import Pulse
from routing.health import Key, Visit

logger = logging.getLogger(__name__)

CIRCUITS = "weir:circuits"
LOOK_SECONDS = 0.5
# Redis answers within this, or is away.
PATIENCE_SECONDS = 0.25
# A probe of a worker that died stands in nobody's way for longer.
PROBE_MILLISECONDS = 30_000
# After a probe others wait until they have read its outcome here.
READ_MILLISECONDS = 1_500
# A notice about a deployment that nobody asks any more is taken down.
FORGOTTEN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Notice:
    """An open circuit. ``until`` is the end of its pause, in seconds since 1970, ``asks`` the endpoint to
    probe it by (empty: not known)."""

    key: Key
    until: float
    why: str
    openings: int
    asks: str = ""


class Board:
    """One worker's view of the board. Use it from one event loop."""

    def __init__(self, redis_url: str, pulse: Pulse, patience: float = PATIENCE_SECONDS) -> None:
        self._redis: Any = Redis.from_url(redis_url, socket_timeout=patience, socket_connect_timeout=patience)
        self._pulse = pulse
        # Circuits that were on the board when last looked at.
        self._seen: set[Key] = set()
        self._claimed: list[Visit] = []
        self._away = False

    async def run(self) -> None:
        """Post and read, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except (RedisError, OSError, TimeoutError) as error:
                if not self._away:
                    logger.warning("Circuits are not shared while Redis is away: %s", type(error).__name__)
                self._lost()

    async def look(self) -> None:
        """Post what changed here, and take over what others posted. Raises what Redis raises."""
        health, clock = self._pulse.health, self._pulse.clock
        changed, health.changed = health.changed, set()
        over = [visit for visit in self._claimed if visit.ended or not visit.probes]
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                opened = dict(health.open_circuits())
                for key in changed:
                    circuit = opened.get(key)
                    if circuit is None or circuit.until is None:
                        pipe.hdel(CIRCUITS, _field(key))
                    else:
                        left = circuit.until - clock()
                        notice = {
                            "until": time.time() + left,
                            "why": circuit.why,
                            "openings": circuit.openings,
                            "asks": circuit.asks,
                        }
                        pipe.hset(CIRCUITS, _field(key), orjson.dumps(notice))
                for visit in over:
                    for key in visit.claimed:
                        pipe.pexpire(_name(key), READ_MILLISECONDS)
                pipe.hgetall(CIRCUITS)
                *_, found = await pipe.execute()
        except BaseException:
            health.changed |= changed
            raise
        self._away = False
        self._claimed = [visit for visit in self._claimed if visit not in over]
        await self._take_over(read(found))

    async def _take_over(self, notices: list[Notice]) -> None:
        health, now, wall = self._pulse.health, self._pulse.clock(), time.time()
        posted = set()
        for notice in notices:
            if notice.until < wall - FORGOTTEN_SECONDS:
                await self._redis.hdel(CIRCUITS, _field(notice.key))
            elif notice.key not in health.changed:
                posted.add(notice.key)
                until = now + notice.until - wall
                health.adopt(notice.key, until, notice.why, notice.openings, now, notice.asks)
        for key in self._seen - posted - health.changed:
            health.mend(key, now)
        self._seen = posted

    async def claims(self, visit: Visit) -> bool:
        """Whether this visit may be the probe of its circuits; False while another worker's is under way."""
        self._claimed.append(visit)
        try:
            for key in visit.probes:
                if not await self._redis.set(_name(key), b"1", nx=True, px=PROBE_MILLISECONDS):
                    return False
                visit.claimed += (key,)
        except (RedisError, OSError, TimeoutError):
            return True
        return True

    def _lost(self) -> None:
        """Redis is away, and may come back empty: what is known here is then posted again."""
        self._away = True
        self._seen = set()
        health = self._pulse.health
        health.changed |= {key for key, _ in health.open_circuits()}

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()


def read(found: dict[bytes, bytes]) -> list[Notice]:
    """The notices of the hash CIRCUITS."""
    notices = []
    for field, value in found.items():
        deployment_id, _, name = field.decode().partition(":")
        posted = orjson.loads(value)
        key = int(deployment_id), name
        # A worker of an earlier release posts no endpoint.
        asks = posted.get("asks", "")
        notices.append(Notice(key, posted["until"], posted["why"], posted["openings"], asks))
    return notices


async def read_board(redis_url: str) -> list[Notice] | None:
    """What is posted at this moment; None with Redis away."""
    redis: Any = Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return read(await redis.hgetall(CIRCUITS))
    except (RedisError, OSError, TimeoutError):
        return None
    finally:
        await redis.aclose()


def _field(key: Key) -> str:
    return f"{key[0]}:{key[1]}"


def _name(key: Key) -> str:
    return f"weir:probe:{_field(key)}"
