"""One connection to Redis on which the calls of concurrent requests travel together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

from hiredis import pack_command
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

SCRIPT = (Path(__file__).parent / "script.lua").read_bytes()
DIGEST = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
MOST_IN_A_BATCH = 256
# A timer that rings later than this was held up by other work of this process. That is looked at so often.
HELD_UP_SECONDS = 0.02
SECOND_LOOKS = 3
# Its annotation allows a tuple of one.
pack = cast("Callable[[tuple[str | bytes | int | float, ...]], bytes]", pack_command)
TEACH = pack(("SCRIPT", "LOAD", SCRIPT))


class RedisAway(Exception):
    """Redis did not answer in time, or not as it should."""


Amends = Callable[[], bytes]


class Call:
    """One call of the script, on its way. ``amends`` packs the call to make later if this one is lost."""

    __slots__ = ("abandoned", "amends", "answer", "packed", "retried")

    def __init__(
        self,
        packed: bytes,
        answer: asyncio.Future[list[int]] | None = None,
        abandoned: Callable[[list[int]], None] | None = None,
        amends: Amends | None = None,
    ) -> None:
        self.packed = packed
        self.answer = answer
        self.abandoned = abandoned
        self.amends = amends
        self.retried = False

    def fail(self) -> None:
        """Tell whoever waits that Redis is away."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(RedisAway())


@contextlib.asynccontextmanager
async def _patient(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError after ``seconds`` in which the event loop was free to see an answer: the time in
    which something else held up the loop is not Redis's."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    looks = 0
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer, due, looks
        late = loop.time() - due
        if late > HELD_UP_SECONDS and looks < SECOND_LOOKS:
            looks += 1
            due = loop.time() + min(late, seconds)
            timer = loop.call_at(due, look)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        timer = loop.call_at(due, look)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


def run(keys: Sequence[str], arguments: Sequence[str | int | float]) -> bytes:
    """The packed command that runs the script."""
    return pack(("EVALSHA", DIGEST, len(keys), *keys, *arguments))


class Wire:
    """Calls of the script. Those made while others are on their way form the next batch.

    After a failure no call is tried for ``pause`` seconds; each then fails at once with ``RedisAway``.
    Whether a call that got no answer was carried out is not known. What makes amends for it is sent as
    soon as Redis is back, and given up after ``amends_within`` seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        patience: float,
        pause: float,
        amends_within: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``patience``: seconds in which a batch must be answered, connecting included. ``name`` is how
        Redis lists the connection."""
        # The one timeout is around the batch, and the one retry is the pause.
        self._pool = ConnectionPool.from_url(
            url,
            client_name=name,
            socket_timeout=None,
            socket_connect_timeout=patience,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection: Any = None
        self._patience = patience
        self._pause = pause
        self._clock = clock
        self._away_until = float("-inf")
        self._queue: list[Call] = []
        self._amends_within = amends_within
        # Since when, and what.
        self._owed: list[tuple[float, Amends]] = []
        self._payday: asyncio.TimerHandle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def away(self) -> bool:
        """Whether calls fail at once."""
        return self._closed or self._away_until > self._clock()

    async def call(
        self, packed: bytes, abandoned: Callable[[list[int]], None], amends: Amends | None = None
    ) -> list[int]:
        """The answer to a call. Raises ``RedisAway``.

        Of a caller that is cancelled meanwhile, ``abandoned`` gets the answer if the call was sent.
        """
        if self.away:
            raise RedisAway
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._put(Call(packed, answer, abandoned, amends))
        try:
            return await answer
        except asyncio.CancelledError:
            # The answer can be here already, and the caller still not hear it.
            if not answer.cancelled() and answer.exception() is None:
                abandoned(answer.result())
            raise

    def tell(self, packed: bytes, amends: Amends | None = None) -> None:
        """Send a call without waiting for it to be done; lost while Redis is away."""
        if not self.away:
            self._put(Call(packed, amends=amends))
        elif amends is not None:
            self._owe([(self._clock(), amends)])

    async def close(self) -> None:
        """Send what waits, and hang up."""
        if self._pump is not None:
            await asyncio.wait([self._pump])
        self._closed = True
        if self._payday is not None:
            self._payday.cancel()
        await self._hang_up()

    def _put(self, call: Call) -> None:
        self._queue.append(call)
        if self._pump is None:
            # The task begins in the next turn of the loop, with the calls of all that run in this one.
            self._pump = asyncio.create_task(self._run())

    async def _run(self) -> None:
        batch: list[Call] = []
        try:
            while self._queue:
                calls, self._queue = self._queue[:MOST_IN_A_BATCH], self._queue[MOST_IN_A_BATCH:]
                batch = [call for call in calls if call.answer is None or not call.answer.cancelled()]
                async with _patient(self._patience):
                    answers = await self._exchange(batch)
                self._deliver(batch, answers)
                batch = []
        except (RedisError, OSError, TimeoutError):
            self._away_until = self._clock() + self._pause
        finally:
            self._pump = None
            lost, self._queue = batch + self._queue, []
            for call in lost:
                call.fail()
            if lost:
                now = self._clock()
                self._owe([(now, call.amends) for call in lost if call.amends is not None])
                await self._hang_up()

    def _owe(self, owed: list[tuple[float, Amends]]) -> None:
        self._owed += owed
        if self._owed and self._payday is None and not self._closed:
            self._payday = asyncio.get_running_loop().call_later(self._pause, self._pay)

    def _pay(self) -> None:
        """Send what is owed; what is lost again is owed again."""
        self._payday = None
        oldest = self._clock() - self._amends_within
        owed, self._owed = [each for each in self._owed if each[0] > oldest], []
        if self.away:
            self._owe(owed)
            return
        for _, amends in owed:
            self._put(Call(amends(), amends=amends))

    async def _exchange(self, batch: Sequence[Call]) -> list[Any]:
        """Send a batch, and read as many answers; an error that Redis answers stands in its place."""
        connection = self._connection
        if connection is None:
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call] # the library's gap
            await connection.connect()
            await connection.send_packed_command(TEACH, check_health=False)
            await connection.read_response()
            self._connection = connection
        await connection.send_packed_command([call.packed for call in batch], check_health=False)
        answers: list[Any] = []
        for _ in batch:
            try:
                answers.append(await connection.read_response(disable_decoding=True))
            except RedisError as error:
                if not connection.is_connected:
                    raise
                answers.append(error)
        return answers

    def _deliver(self, batch: Sequence[Call], answers: Sequence[Any]) -> None:
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, NoScriptError) and not call.retried:
                # Somebody emptied the script cache: teach it again, and ask again.
                call.retried = True
                self._queue[:0] = [Call(TEACH), call]
            elif isinstance(answer, Exception):
                call.fail()
            elif call.answer is None:
                pass
            elif not call.answer.cancelled():
                call.answer.set_result(answer)
            elif call.abandoned is not None:
                call.abandoned(answer)

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await connection.disconnect(nowait=True)
