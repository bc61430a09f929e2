"""Never lost: programs are killed under load, and each request at the provider has exactly one event."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from django.db import connection

from billing import journal
from billing.money import plain
from gateway.drills import books, callers, payers
from gateway.drills.ground import DrillError, Ground, wait_until
from gateway.drills.payers import Payer
from gateway.drills.verdict import Verdict

CLIENTS = 60
SHIP_SECONDS = 45.0
# Live workers give idle money back within four seconds.
RETURN_SECONDS = 12.0
SHUFFLED_REQUESTS_SECONDS = 1.5


def run(ground: Ground, rounds: int, seconds: float, seed: int, say: Callable[[str], None]) -> list[Verdict]:
    """``rounds`` times: ``seconds`` of load with every program killed once, then the books. Raises DrillError."""
    ground.start_provider()
    payers.make_provider(ground.provider_url)
    payer = payers.everything()
    ground.start_server()
    ground.start_shipper()
    ground.start_celery()
    found = []
    for number in range(1, rounds + 1):
        found.append(_round(ground, payer, number, seconds, seed + number))
        say(f"round {number}: {found[-1].word}")
    return found


def _round(ground: Ground, payer: Payer, number: int, seconds: float, seed: int) -> Verdict:
    dice = random.Random(seed)  # noqa: S311  # moments to strike at, not secrets
    copies = ground.directory / f"copies-{number}"
    copies.mkdir()
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(_load, ground, payer, stop, seed)
        try:
            order = _strike(ground, dice, seconds, copies)
        finally:
            stop.set()
        seen = load.result()
    wrong = _settled(ground)
    in_doubt = books.reserved() if not wait_until(lambda: books.reserved() == 0, RETURN_SECONDS) else None

    wrong += _shuffled(ground, payer, dice, seed)
    wrong += _again(ground, copies, dice)
    ground.start_server()
    ground.start_shipper()
    interrupted, events = _counts()
    wrong += ground.defects()
    return Verdict(
        {
            "round": str(number),
            "killed, in order": " ".join(order),
            "answers": " ".join(f"{status}:{count}" for status, count in sorted(seen.statuses.items())),
            "at provider": str(len(books.at_the_provider(ground.provider_log))),
            "events": str(events),
            "interrupted": str(interrupted),
            "in doubt": "0" if in_doubt is None else plain(in_doubt),
        },
        wrong,
    )


def _load(ground: Ground, payer: Payer, stop: threading.Event, seed: int) -> callers.Seen:
    return asyncio.run(callers.mixed(ground.url, payer, CLIENTS, lambda: not stop.is_set(), seed))


def _strike(ground: Ground, dice: random.Random, seconds: float, copies: Path) -> list[str]:
    """Kill each program at a random moment within ``seconds``; returns the order."""
    order = ["worker", "shipper", "celery", "postgres", "redis", "worker"]
    dice.shuffle(order)
    began = time.monotonic()
    moments = sorted(dice.uniform(0.1, 0.95) * seconds for _ in order)
    for victim, moment in zip(order, moments, strict=True):
        time.sleep(max(0.0, moment - (time.monotonic() - began)))
        _copy(ground, copies)
        match victim:
            case "worker":
                ground.kill_worker(dice.choice)
            case "shipper":
                ground.kill("shipper")
                ground.start_shipper()
            case "celery":
                ground.kill("celery")
                ground.start_celery()
            case "postgres":
                ground.kill_postgres()
            case _:
                ground.kill_redis()
    time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    return order


def _copy(ground: Ground, copies: Path) -> None:
    """Keep the segments as they are at this moment, half-written lines and all."""
    for path in ground.journal.glob("*.journal"):
        try:
            shutil.copyfile(path, copies / path.name)
        except FileNotFoundError:
            # The shipper was done with it.
            continue


def _settled(ground: Ground) -> list[str]:
    """Wait for the books; says what they lack. Raises DrillError while nothing is shipped at all."""
    # Killing PostgreSQL closed this process's connection too.
    connection.close()
    arrived = books.at_the_provider(ground.provider_log)
    wait_until(lambda: arrived <= books.recorded().keys(), SHIP_SECONDS)
    events = books.recorded()
    if not events:
        raise DrillError(f"Nothing was shipped. {ground.last_words('shipper')}")
    wrong = []
    if missing := arrived - events.keys():
        wrong.append(f"{len(missing)} requests have no event: {sorted(missing)[:3]}")
    if twice := [request for request, count in events.items() if count > 1]:
        wrong.append(f"{len(twice)} requests have several events: {twice[:3]}")
    wrong += books.miscounted(ground.provider_log)[:3]
    wrong += books.differences()
    if letters := books.sums().letters:
        wrong.append(f"{letters} dead letters")
    return wrong


def _shuffled(ground: Ground, payer: Payer, dice: random.Random, seed: int) -> list[str]:
    """Ship what a killed server left with its lines in any order; nothing may stay reserved after it."""
    ground.stop("shipper")
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(_load, ground, payer, stop, seed + 500)
        time.sleep(SHUFFLED_REQUESTS_SECONDS)
        # In the middle of requests, and no worker is left to write.
        ground.kill("server")
        stop.set()
        load.result()
    for path in ground.journal.glob("*.journal"):
        lines = path.read_bytes().split(b"\n")[:-1]
        dice.shuffle(lines)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
    ground.start_shipper()
    wrong = _settled(ground)
    if not wait_until(lambda: books.reserved() == 0 and not _files(ground), SHIP_SECONDS):
        wrong.append(f"{plain(books.reserved())} reserved and {_files(ground)} files with no worker alive")
    return [f"after lines in another order: {each}" for each in wrong]


def _again(ground: Ground, copies: Path, dice: random.Random) -> list[str]:
    """Ship everything a second time, under its worker's name and under a stranger's: nothing changes."""
    before = books.sums()
    ground.stop("shipper")
    for path in sorted(copies.iterdir()):
        named = journal.segment_of(path)
        if named is None:
            continue
        shutil.copyfile(path, ground.journal / path.name)
        lines = path.read_bytes().split(b"\n")[:-1]
        dice.shuffle(lines)
        stranger = journal.segment_path(ground.journal, uuid4(), 1)
        stranger.write_bytes(b"".join(line + b"\n" for line in lines))
    ground.start_shipper()
    if not wait_until(lambda: not _files(ground), SHIP_SECONDS):
        return [f"{_files(ground)} segments were not shipped again. {ground.last_words('shipper')}"]
    ground.stop("shipper")
    after = books.sums()
    wrong = [] if after == before else [f"shipping again changed {before} to {after}"]
    return wrong + [f"after shipping again: {each}" for each in books.differences()]


def _files(ground: Ground) -> int:
    return len(list(ground.journal.glob("*.journal")))


def _counts() -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE end_reason = 'interrupted'), count(*) FROM billing_usageevent"
        )
        interrupted, events = cursor.fetchone()
        return interrupted, events
