"""Outages: Redis frozen, PostgreSQL stopped, each under fifty clients, and what the callers noticed of it."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from django.db import connection

from billing.money import plain
from billing.services.quotas import set_quota
from gateway.bench.measure import percentile
from gateway.drills import books, callers, payers
from gateway.drills.callers import ask, body_of, new_client
from gateway.drills.ground import DrillError, Ground, wait_until
from gateway.drills.payers import Payer
from gateway.drills.verdict import Verdict

CLIENTS = 50
# Of the clients: those whose limit is so low that it must show, and those who have none at all.
LIMITED_CLIENTS, FREE_CLIENTS = 10, 15
PER_MINUTE = 240
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 5.0
SLOWEST_P99 = 3.0
SHIP_SECONDS, RETURN_SECONDS = 60.0, 15.0
# What a caller may be told while the money cannot be asked: that it is so, and to come again.
CLOSED = 503


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: when it was asked for (monotonic seconds), how long it took, its status (0: none came)."""

    asked: float
    seconds: float
    status: int
    payer: Payer


@dataclass(frozen=True, slots=True)
class Callers:
    """Who asks: far within every kind of limit, beyond a limit of requests, and without any limit."""

    wide: Payer
    limited: Payer
    free: Payer


def run(
    ground: Ground, redis_seconds: float, postgres_seconds: float, say: Callable[[str], None]
) -> list[Verdict]:
    """Both outages, one after the other, then the books. Raises DrillError."""
    ground.start_provider()
    payers.make_provider(ground.provider_url)
    who = Callers(payers.everything(), payers.everything(), payers.nothing())
    set_quota(
        acting_user=None,
        scope="organization",
        target=who.limited.organization,
        metric="requests_per_minute",
        limit=PER_MINUTE,
    )
    ground.start_server()
    ground.start_shipper()
    ground.start_celery()
    found = []
    for name, seconds, outage in (
        ("Redis frozen", redis_seconds, ground.frozen_redis),
        ("PostgreSQL stopped", postgres_seconds, ground.stopped_postgres),
    ):
        if seconds:
            found.append(_outage(ground, who, name, seconds, outage()))
            say(f"{name}: {found[-1].word}")
    return found


def _outage(
    ground: Ground,
    who: Callers,
    name: str,
    seconds: float,
    outage: AbstractContextManager[None],
) -> Verdict:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(lambda: asyncio.run(_clients(ground.url, who, stop)))
        try:
            time.sleep(BEFORE_SECONDS)
            before = peak = ground.server_memory()
            began = time.monotonic()
            with outage:
                while time.monotonic() < began + seconds:
                    time.sleep(0.25)
                    peak = max(peak, ground.server_memory())
            ended = time.monotonic()
            time.sleep(AFTER_SECONDS)
        finally:
            stop.set()
        answers = load.result()
    during = [each for each in answers if began <= each.asked < ended]
    after = [
        each for each in answers if each.asked >= ended + AFTER_SECONDS / 2 and each.payer is not who.limited
    ]
    wrong = _seen(name, who, during, after, ended - began)
    if peak > 2 * before:
        wrong.append(f"memory grew from {before >> 20} to {peak >> 20} MB")
    wrong += _settled(ground)
    statuses = Counter(str(each.status) for each in during)
    return Verdict(
        {
            "outage": name,
            "seconds": f"{ended - began:.0f}",
            "answers meanwhile": " ".join(f"{status}:{count}" for status, count in sorted(statuses.items())),
            "from leases": str(_passed(during, who.wide)),
            "without": str(_passed(during, who.free)),
            "p50 ms": f"{percentile([each.seconds for each in during], 0.5) * 1000:.0f}",
            "p99 ms": f"{percentile([each.seconds for each in during], 0.99) * 1000:.0f}",
            "limited: passed": str(_passed(during, who.limited)),
            "MB before, peak": f"{before >> 20}, {peak >> 20}",
            "events": str(books.sums().events),
        },
        wrong,
    )


def _passed(answers: list[Answer], payer: Payer) -> int:
    return sum(each.payer is payer and each.status == 200 for each in answers)


def _seen(name: str, who: Callers, during: list[Answer], after: list[Answer], seconds: float) -> list[str]:
    """What of the answers is not as it must be."""
    if not during or not after:
        raise DrillError(f"{name}: nobody was answered.")
    wrong = []
    redis = name.startswith("Redis")
    if strange := Counter(each.status for each in during if each.status not in {200, 429, CLOSED}):
        wrong.append(f"answers that may not be: {dict(strange)} (0: none came)")
    # Without PostgreSQL, money is spent as far as it is leased, and who needs none goes on.
    unaffected = (who.wide, who.free) if redis else (who.free,)
    if unserved := [each.status for each in during if each.payer in unaffected and each.status != 200]:
        wrong.append(f"{len(unserved)} requests that lacked nothing were not served: {set(unserved)}")
    if not _passed(during, who.wide):
        wrong.append("not one request was served from a lease")
    if redis and any(each.status == CLOSED for each in during):
        wrong.append("requests were turned away")
    slow = percentile([each.seconds for each in during], 0.99)
    if redis and slow > SLOWEST_P99:
        wrong.append(f"p99 was {slow:.2f} s")
    # A bucket that is full at the beginning, and what flows in meanwhile.
    passed = _passed(during, who.limited)
    if passed > PER_MINUTE * (1 + seconds / 60) + 1:
        wrong.append(f"{passed} requests passed a limit of {PER_MINUTE} a minute in {seconds:.0f} s")
    if unserved := [each.status for each in after if each.status != 200]:
        wrong.append(f"after it was over, {len(unserved)} of {len(after)} were not served: {set(unserved)}")
    return wrong


async def _clients(url: str, who: Callers, stop: threading.Event) -> list[Answer]:
    """Ask at a moderate pace until ``stop``; every answer is kept, none is given up before 30 seconds."""
    answers: list[Answer] = []

    async def call(number: int) -> None:
        dice = random.Random(number)  # noqa: S311  # variety, not secrets
        payer = who.wide
        if number < LIMITED_CLIENTS + FREE_CLIENTS:
            payer = who.limited if number < LIMITED_CLIENTS else who.free
        async with new_client() as client:
            while not stop.is_set():
                body = body_of(dice.choice(callers.BOUNDS), stream=False, end_user=payer.end_user)
                asked = time.monotonic()
                status, _ = await ask(client, url, payer.secrets[0], body)
                answers.append(Answer(asked, time.monotonic() - asked, status, payer))
                await asyncio.sleep(dice.uniform(0.2, 0.5))

    await asyncio.gather(*(call(number) for number in range(CLIENTS)))
    return answers


def _settled(ground: Ground) -> list[str]:
    """What the books lack when everything is back."""
    connection.close()
    arrived = books.at_the_provider(ground.provider_log)
    wait_until(lambda: arrived <= books.recorded().keys(), SHIP_SECONDS)
    events = books.recorded()
    wrong = []
    if missing := arrived - events.keys():
        wrong.append(f"{len(missing)} requests have no event: {sorted(missing)[:3]}")
    if twice := [request for request, count in events.items() if count > 1]:
        wrong.append(f"{len(twice)} requests have several events: {twice[:3]}")
    if not wait_until(lambda: books.reserved() == 0, RETURN_SECONDS):
        wrong.append(f"{plain(books.reserved())} is still reserved")
    wrong += books.miscounted(ground.provider_log)[:3] + books.differences() + ground.defects()
    return wrong
