"""Rate limits: counted in Redis for all workers together, and by each alone while Redis is away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import orjson
import pytest
from redis import Redis

from billing.rate_limits import (
    CONCURRENCY,
    REQUESTS,
    TOKENS,
    RateLimited,
    RateLimiter,
    RateRule,
    Standing,
    Ticket,
)
from gateway.embedded import redis as embedded_redis

ROOT = Path(__file__).resolve().parents[2]
URL = os.environ["REDIS_URL"]


def limit(metric: str, count: int, quota_id: int = 1) -> RateRule:
    return RateRule(quota_id, "key", metric, count, f"{count} {metric}")


@pytest.fixture
def who() -> str:
    """Someone of whom Redis knows nothing."""
    return uuid4().hex


@asynccontextmanager
async def limiter(url: str = URL, **options: float) -> AsyncIterator[RateLimiter]:
    made = RateLimiter(url, "test", **options)  # type: ignore[arg-type] # all are numbers
    try:
        yield made
    finally:
        await made.close()


async def ask(limiter: RateLimiter, rules: list[RateRule], who: str, tokens: int = 0) -> Ticket:
    return await limiter.acquire(rules, [who] * len(rules), tokens, uuid4().hex)


async def allowed(limiter: RateLimiter, rules: list[RateRule], who: str, tokens: int = 0) -> bool:
    try:
        await ask(limiter, rules, who, tokens)
    except RateLimited:
        return False
    return True


async def told(limiter: RateLimiter, who: str) -> None:
    """Wait until what was sent without waiting has been done: calls keep their order."""
    await ask(limiter, [limit(REQUESTS, 10**9, 999)], who)


def age(client: Redis, key: str, seconds: float) -> None:
    """Make a bucket look as if it had been left alone for ``seconds``."""
    kept = client.get(key)
    assert isinstance(kept, bytes)
    level, at = struct.unpack("dd", kept)
    client.set(key, struct.pack("dd", level, at - seconds * 1000), px=100_000)


@pytest.fixture
def server() -> Iterator[Redis]:
    with Redis.from_url(URL) as client:
        yield client


def test_the_limit_passes_and_the_next_is_refused(who: str) -> None:
    rule = limit(REQUESTS, 6)

    async def scenario() -> RateLimited:
        async with limiter() as asking:
            for _ in range(6):
                await ask(asking, [rule], who)
            with pytest.raises(RateLimited) as refusal:
                await ask(asking, [rule], who)
            return refusal.value

    refusal = asyncio.run(scenario())
    assert refusal.rule is rule
    assert (refusal.limit, refusal.remaining) == (6, 0)
    # One of six a minute comes free every ten seconds.
    assert refusal.retry_after_seconds is not None
    assert 9 < refusal.retry_after_seconds <= 10


def test_the_allowance_fills_up_evenly(who: str, server: Redis) -> None:
    rule = limit(REQUESTS, 6)

    async def scenario() -> list[bool]:
        async with limiter() as asking:
            for _ in range(6):
                await ask(asking, [rule], who)
            age(server, f"weir:limit:r:1:{who}", 20.5)
            return [await allowed(asking, [rule], who) for _ in range(3)]

    assert asyncio.run(scenario()) == [True, True, False]


def test_a_refusal_counts_nothing_anywhere(who: str) -> None:
    wide, slots, narrow = limit(REQUESTS, 3), limit(CONCURRENCY, 2, 2), limit(TOKENS, 100, 3)

    async def scenario() -> dict[str, Standing]:
        async with limiter() as asking:
            await ask(asking, [narrow], who, 60)
            for _ in range(5):
                with pytest.raises(RateLimited) as refusal:
                    await ask(asking, [wide, slots, narrow], who, 50)
                assert refusal.value.rule is narrow
                assert refusal.value.remaining == 40
            return (await ask(asking, [wide, slots, narrow], who, 40)).remaining

    standing = asyncio.run(scenario())
    assert standing[REQUESTS].remaining == 2
    assert standing[CONCURRENCY].remaining == 1
    assert standing[TOKENS].remaining == 0


def test_of_two_limits_that_refuse_the_longer_wait_is_told(who: str) -> None:
    quick, slow = limit(REQUESTS, 60), limit(REQUESTS, 1, 2)

    async def scenario() -> RateLimited:
        async with limiter() as asking:
            await ask(asking, [slow], who)
            for _ in range(60):
                await ask(asking, [quick], who)
            with pytest.raises(RateLimited) as refusal:
                await ask(asking, [quick, slow], who)
            return refusal.value

    assert asyncio.run(scenario()).rule is slow


def test_a_request_larger_than_its_limit_will_never_fit(who: str) -> None:
    async def scenario() -> RateLimited:
        async with limiter() as asking:
            with pytest.raises(RateLimited) as refusal:
                await ask(asking, [limit(TOKENS, 100)], who, 101)
            return refusal.value

    refusal = asyncio.run(scenario())
    assert (refusal.remaining, refusal.retry_after_seconds) == (100, None)


@pytest.mark.parametrize("metric", [REQUESTS, TOKENS, CONCURRENCY])
def test_a_limit_of_zero_lets_nothing_through(who: str, metric: str) -> None:
    async def scenario() -> RateLimited:
        async with limiter() as asking:
            with pytest.raises(RateLimited) as refusal:
                await ask(asking, [limit(metric, 0)], who, 1)
            return refusal.value

    assert asyncio.run(scenario()).retry_after_seconds is None


def test_the_tightest_limit_of_each_metric_is_shown(who: str) -> None:
    rules = [limit(REQUESTS, 10), limit(REQUESTS, 4, 2), limit(TOKENS, 6000, 3), limit(TOKENS, 60_000, 4)]

    async def scenario() -> dict[str, Standing]:
        async with limiter() as asking:
            return (await ask(asking, rules, who, 100)).remaining

    # 1 of 4 a minute is back after 15 s, 100 of 6000 after 1 s.
    assert asyncio.run(scenario()) == {REQUESTS: Standing(4, 3, 15.0), TOKENS: Standing(6000, 5900, 1.0)}


def test_used_tokens_correct_the_estimate_in_both_directions(who: str) -> None:
    rule = limit(TOKENS, 1000)

    async def scenario() -> list[int]:
        left = []
        async with limiter() as asking:
            first = await ask(asking, [rule], who, 600)
            asking.release(first, 100)
            asking.release(first, 0)  # Only the first counts.
            second = await ask(asking, [rule], who, 100)
            left.append(second.remaining[TOKENS].remaining)
            asking.release(second, 700)
            third = await ask(asking, [rule], who, 1)
            left.append(third.remaining[TOKENS].remaining)
            asking.release(third)
            left.append((await ask(asking, [rule], who, 1)).remaining[TOKENS].remaining)
        return left

    first, second, third = asyncio.run(scenario())
    # 1000 tokens a minute: some may have leaked out in the moment between.
    assert 795 <= first <= 820
    assert first - 602 <= second <= first - 570
    assert second - 2 <= third <= second + 20


def test_tokens_of_a_minute_ago_are_not_given_back_twice(who: str) -> None:
    rule = limit(TOKENS, 1000)
    seconds = [0.0]

    async def scenario() -> int:
        made = RateLimiter(URL, "test", clock=lambda: seconds[0])
        ticket = await ask(made, [rule], who, 900)
        seconds[0] += 61
        made.release(ticket, 0)
        left = (await ask(made, [rule], who, 1)).remaining[TOKENS].remaining
        await made.close()
        return left

    assert asyncio.run(scenario()) <= 120


def test_a_slot_is_free_once_its_client_has_left_and_tokens_when_the_request_ends(who: str) -> None:
    slots, tokens = limit(CONCURRENCY, 2), limit(TOKENS, 100, 2)

    async def scenario() -> list[int]:
        async with limiter() as asking:
            first = await ask(asking, [slots, tokens], who, 90)
            await ask(asking, [slots], who)
            asking.leave(first)
            asking.leave(first)
            left = await ask(asking, [slots, tokens], who, 0)
            asking.release(left, 0)
            asking.release(first, 10)
            ended = await ask(asking, [slots, tokens], who, 0)
            return [
                each.remaining[metric].remaining for each in (left, ended) for metric in (CONCURRENCY, TOKENS)
            ]

    found = asyncio.run(scenario())
    # Two of two slots in use each time; tokens leak back while the test runs.
    assert found[0] == found[2] == 0
    assert found[1] < 50 <= found[3]


def test_a_slot_is_free_again_when_its_request_ends(who: str) -> None:
    rule = limit(CONCURRENCY, 2)

    async def scenario() -> list[bool]:
        async with limiter() as asking:
            first = await ask(asking, [rule], who)
            await ask(asking, [rule], who)
            full = await allowed(asking, [rule], who)
            asking.release(first)
            return [full, await allowed(asking, [rule], who), await allowed(asking, [rule], who)]

    assert asyncio.run(scenario()) == [False, True, False]


def test_the_slots_of_a_crashed_worker_free_themselves_and_those_in_use_do_not(who: str) -> None:
    rule = limit(CONCURRENCY, 2)

    async def scenario() -> None:
        crashed = RateLimiter(URL, "crashed", slot_seconds=0.6)
        async with limiter(slot_seconds=0.6) as asking:
            await ask(crashed, [rule], who)
            await ask(asking, [rule], who)
            await crashed.close()
            assert not await allowed(asking, [rule], who)
            deadline = time.monotonic() + 10
            while not await allowed(asking, [rule], who):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            # Several lives of a slot later, the two that are under way still count.
            await asyncio.sleep(1.5)
            assert not await allowed(asking, [rule], who)

    asyncio.run(scenario())


def test_a_request_cancelled_while_it_asks_leaves_nothing_behind(who: str) -> None:
    rules = [limit(CONCURRENCY, 1), limit(TOKENS, 1000, 2)]

    async def scenario() -> int:
        async with limiter() as asking:
            await told(asking, who)
            for turns in range(60):
                task = asyncio.create_task(ask(asking, rules, who, 900))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                (ended,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(ended, Ticket):
                    asking.release(ended, 0)  # It was faster.
                await told(asking, who)
            return (await ask(asking, rules, who, 1)).remaining[TOKENS].remaining

    assert asyncio.run(scenario()) >= 990


def test_without_limits_redis_is_not_asked() -> None:
    async def scenario() -> None:
        made = RateLimiter("redis://127.0.0.1:1/0", "test")
        coroutine = made.acquire([], [], 5, "r")
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        ticket: Ticket = end.value.value
        assert ticket.remaining == {}
        made.release(ticket, 5)
        assert made.fallbacks == 0
        await made.close()

    asyncio.run(scenario())


def test_a_lost_script_is_taught_again(who: str, server: Redis) -> None:
    rule = limit(REQUESTS, 2)

    async def scenario() -> tuple[list[bool], int]:
        async with limiter() as asking:
            await ask(asking, [rule], who)
            server.script_flush()
            passed = await asyncio.gather(*(allowed(asking, [rule], who) for _ in range(5)))
            return passed, asking.fallbacks

    passed, fallbacks = asyncio.run(scenario())
    assert (sum(passed), fallbacks) == (1, 0)


def test_two_subjects_of_one_quota_do_not_share_it(who: str) -> None:
    rule = limit(REQUESTS, 1)

    async def scenario() -> list[bool]:
        async with limiter() as asking:
            return [await allowed(asking, [rule], name) for name in (who, f"{who}2", who)]

    assert asyncio.run(scenario()) == [True, True, False]


class Server:
    """A Redis of this test's own, to stop and start."""

    def __init__(self) -> None:
        self.home = Path(mkdtemp(prefix="weir-"))
        self.url = embedded_redis.url(self.home)

    def start(self) -> None:
        embedded_redis.start(self.home / "data", self.home, durable=False)

    def stop(self) -> None:
        embedded_redis.stop(self.home)

    def freeze(self) -> None:
        with Redis.from_url(self.url, socket_timeout=5) as client:
            self.pid = int(client.info("server")["process_id"])
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@pytest.fixture
def own_server() -> Iterator[Server]:
    made = Server()
    made.start()
    yield made
    made.stop()
    shutil.rmtree(made.home, ignore_errors=True)


def test_without_redis_a_worker_enforces_its_share_and_returns_when_it_is_back(
    who: str, own_server: Server
) -> None:
    rule = limit(REQUESTS, 8)

    async def scenario() -> None:
        async with limiter(own_server.url, workers=4, pause=0.2) as asking:
            await ask(asking, [rule], who)
            await asyncio.to_thread(own_server.stop)
            passed = [await allowed(asking, [rule], who) for _ in range(5)]
            # A quarter of 8.
            assert passed == [True, True, False, False, False]
            assert asking.fallbacks == 5
            await asyncio.to_thread(own_server.start)
            await asyncio.sleep(0.25)
            # An empty Redis: the whole limit.
            assert [await allowed(asking, [rule], who) for _ in range(9)] == [True] * 8 + [False]
            assert asking.fallbacks == 5

    asyncio.run(scenario())


def test_while_redis_is_away_slots_and_tokens_are_counted_too(who: str) -> None:
    slots, tokens = limit(CONCURRENCY, 2), limit(TOKENS, 1000, 2)

    async def scenario() -> None:
        async with limiter("redis://127.0.0.1:1/0", workers=2) as asking:
            held = await ask(asking, [slots, tokens], who, 400)
            assert held.remaining[TOKENS] == Standing(1000, 100, 48.0)
            assert not await allowed(asking, [slots], who)
            asking.release(held, 100)
            assert await allowed(asking, [slots, tokens], who, 350)
            assert not await allowed(asking, [tokens], who, 100)
            # More than the share of 500, which nobody else may have used: when it is whole.
            assert await allowed(asking, [tokens], f"{who}2", 900)
            with pytest.raises(RateLimited) as refusal:
                await ask(asking, [tokens], f"{who}3", 1001)
            assert refusal.value.retry_after_seconds is None

    asyncio.run(scenario())


def test_a_redis_that_hangs_holds_up_no_crowd(who: str, own_server: Server) -> None:
    rule = limit(REQUESTS, 1000)

    async def scenario() -> None:
        async with limiter(own_server.url, patience=0.25, pause=30) as asking:
            await ask(asking, [rule], who)
            own_server.freeze()
            try:
                # All wait for the one batch, and whoever comes later for nothing.
                await asyncio.gather(*(ask(asking, [rule], who) for _ in range(300)))
                coroutine = ask(asking, [rule], who)
                with pytest.raises(StopIteration):
                    coroutine.send(None)
            finally:
                own_server.thaw()
            assert asking.fallbacks == 301

    asyncio.run(scenario())


def slots_taken(server: Server) -> int:
    with Redis.from_url(server.url, socket_timeout=30) as client:
        return sum(client.zcard(key) for key in client.scan_iter("weir:limit:c:*"))


async def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.02)


def test_a_slot_that_was_released_while_redis_hung_is_free_when_it_is_back(
    who: str, own_server: Server
) -> None:
    async def scenario() -> None:
        # By itself it would lapse after ten minutes.
        async with limiter(own_server.url, patience=0.1, pause=0.1, slot_seconds=600) as asking:
            told, untold = (
                await ask(asking, [limit(CONCURRENCY, 5)], who),
                await ask(asking, [limit(CONCURRENCY, 5, 2)], who),
            )
            assert slots_taken(own_server) == 2
            own_server.freeze()
            # The first is sent and gets no answer; the second finds Redis known to be away.
            asking.release(told)
            await until(lambda: asking._wire.away)
            asking.release(untold)
            own_server.thaw()
            await until(lambda: slots_taken(own_server) == 0)

    asyncio.run(scenario())


def test_a_slot_that_redis_gave_too_late_is_given_back(who: str, own_server: Server) -> None:
    def scripts_run() -> int:
        with Redis.from_url(own_server.url, socket_timeout=30) as client:
            return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    async def scenario() -> None:
        async with limiter(own_server.url, patience=0.1, pause=0.1, slot_seconds=600) as asking:
            await ask(asking, [limit(REQUESTS, 100)], who)
            before = scripts_run()
            own_server.freeze()
            held = await ask(asking, [limit(CONCURRENCY, 5)], who)
            assert asking.fallbacks == 1
            own_server.thaw()
            # The one that nobody waits for, and what takes it back.
            await until(lambda: scripts_run() >= before + 2)
            assert slots_taken(own_server) == 0
            asking.release(held)

    asyncio.run(scenario())


def test_time_in_which_the_event_loop_was_held_up_is_not_taken_for_redis_being_away(
    who: str, own_server: Server
) -> None:
    async def scenario() -> None:
        async with limiter(own_server.url, patience=2) as asking:
            await ask(asking, [limit(REQUESTS, 100)], who)
            own_server.freeze()
            waiting = asyncio.create_task(ask(asking, [limit(REQUESTS, 100)], who))
            # The question is sent.
            await asyncio.sleep(0.05)
            own_server.thaw()
            time.sleep(2.5)  # noqa: ASYNC251 - that is what is tried
            await waiting
            assert asking.fallbacks == 0

    asyncio.run(scenario())


WORKER_PROGRAM = """
import asyncio, sys
import orjson
from billing.rate_limits import CONCURRENCY, REQUESTS, RateLimited, RateLimiter, RateRule

job = orjson.loads(sys.argv[1])
minute = RateRule(1, "key", REQUESTS, job["limit"], "minute")
slots = RateRule(2, "key", CONCURRENCY, job["slots"], "slots")

async def main():
    limiter = RateLimiter(job["url"], job["name"], patience=30)
    passed = 0

    async def client(number):
        nonlocal passed
        for turn in range(40):
            try:
                await limiter.acquire([minute, slots], [job["who"]] * 2, 0, f"{job['name']}-{number}-{turn}")
                passed += 1
            except RateLimited:
                pass

    await asyncio.gather(*(client(number) for number in range(20)))
    await limiter.close()
    print(orjson.dumps([passed, limiter.fallbacks]).decode())

asyncio.run(main())
"""


@pytest.mark.parametrize(("minute", "slots", "most"), [(1, 500, 2), (500, 100, 100)])
def test_eight_processes_together_keep_the_limit(who: str, minute: int, slots: int, most: int) -> None:
    """One a minute, within less than a minute: one, or a second if the machine is very slow. And of
    requests that never end, as many as there are slots."""
    processes = []
    for number in range(8):
        job = {"limit": minute, "slots": slots, "url": URL, "name": f"w{number}", "who": who}
        command = [sys.executable, "-c", WORKER_PROGRAM, orjson.dumps(job).decode()]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    outputs = [orjson.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert [fallbacks for _, fallbacks in outputs] == [0] * 8
    passed = sum(passed for passed, _ in outputs)
    assert min(minute, slots) <= passed <= most
