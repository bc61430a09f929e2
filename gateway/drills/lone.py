"""An outage of the only deployment: what it costs the provider, and how long callers wait to hear of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.db import connection
from pyreqwest.client import Client

from billing.models import TaskRun
from gateway.bench.measure import percentile
from gateway.drills import payers
from gateway.drills.callers import ask, body_of, new_client
from gateway.drills.ground import DrillError, Ground, wait_until
from gateway.drills.payers import Payer
from gateway.drills.verdict import Verdict
from routing.circuit import FAULTS_IN_A_ROW
from routing.models import Deployment

REQUESTS, SECONDS, CONNECTIONS = 1000, 10.0, 16
FAILING, WELL = "sim-503", "sim-small"
# Probes of the pauses of 2, 4 and 8 seconds that fit in, a fifth shorter and by both kinds of probe.
MOST_PROBES = 8
# What a caller may wait for its answer once the circuit is open.
WANTED_MS = 50.0
BACK_SECONDS, CELERY_SECONDS = 30.0, 60.0
# After a probe, until each worker has read its outcome.
READ_SECONDS = 1.5
# Until each worker knows a changed deployment.
ARRIVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its status, and how long it and a plain ``/healthz`` beside it took, in milliseconds."""

    status: int
    ms: float
    healthz_ms: float


def run(ground: Ground, say: Callable[[str], None]) -> list[Verdict]:
    """A thousand requests in ten seconds to a provider that has begun to fail; then it is back.

    Raises DrillError.
    """
    ground.start_provider()
    payers.make_provider(ground.provider_url)
    payer = payers.nothing()
    ground.start_server()
    ground.start_shipper()
    ground.start_celery()
    if not wait_until(TaskRun.objects.filter(name="probe").exists, CELERY_SECONDS):
        raise DrillError("Celery does not probe.")
    answers = asyncio.run(_day(ground.url, payer))
    say(f"{len(answers)} answers")
    asked = _asked(ground.provider_log)
    customers = sum(not each.startswith("probe_") for each in asked)
    wrong = []
    # At each worker the first failures, and who was under way when the circuit opened.
    if len(asked) > ground.workers * FAULTS_IN_A_ROW + CONNECTIONS + MOST_PROBES:
        wrong.append(f"the provider was asked {len(asked)} times")
    if strange := {each.status for each in answers} - {502, 503}:
        wrong.append(f"answers that may not be: {strange} (0: none came)")
    refused = [each for each in answers if each.status == 503]
    if not refused:
        raise DrillError("The circuit never opened.")
    Deployment.objects.update(model=WELL)
    # Nobody asks meanwhile: only a background probe can notice.
    if not wait_until(lambda: len(_asked(ground.provider_log, WELL)) > CONNECTIONS, BACK_SECONDS):
        wrong.append("no background probe found that the provider is back")
    else:
        time.sleep(READ_SECONDS)
        if (status := asyncio.run(_one(ground.url, payer))) != 200:
            wrong.append(f"after a probe succeeded, a request was answered {status}")
    ms, plain = [each.ms for each in refused], [each.healthz_ms for each in refused]
    return [
        Verdict(
            {
                "requests": str(len(answers)),
                "at the provider": str(len(asked)),
                "of customers": str(customers),
                "p50 ms": f"{percentile(ms, 0.5):.1f}",
                "p99 ms": f"{percentile(ms, 0.99):.1f}",
                "longest ms": f"{max(ms):.1f}",
                f"over {WANTED_MS:.0f} ms": str(sum(each > WANTED_MS for each in ms)),
                "/healthz p50, p99, longest ms": (
                    f"{percentile(plain, 0.5):.1f}, {percentile(plain, 0.99):.1f}, {max(plain):.1f}"
                ),
            },
            wrong,
        )
    ]


async def _day(url: str, payer: Payer) -> list[Answer]:
    """Requests while the provider works, so that every worker is warm, and then those of the outage."""
    clients = [new_client() for _ in range(CONNECTIONS)]
    body = body_of(4, stream=False, end_user="")
    try:
        for client in clients:
            status, _ = await ask(client, url, payer.secrets[0], body)
            if status != 200:
                raise DrillError(f"While all was well, a request was answered {status}.")
        await asyncio.to_thread(_breaks)
        return await _outage(url, payer, clients)
    finally:
        for client in clients:
            await client.close()


def _breaks() -> None:
    Deployment.objects.update(model=FAILING)
    connection.close()
    time.sleep(ARRIVE_SECONDS)


async def _outage(url: str, payer: Payer, clients: list[Client]) -> list[Answer]:
    """The requests at an even pace, one at a time on each connection, and after each a plain ``/healthz``."""
    began = time.monotonic()
    body = body_of(4, stream=False, end_user="")

    async def lane(place: int, client: Client) -> list[Answer]:
        answers = []
        for number in range(place, REQUESTS, len(clients)):
            await asyncio.sleep(max(0.0, began + number * SECONDS / REQUESTS - time.monotonic()))
            start = time.perf_counter()
            status, _ = await ask(client, url, payer.secrets[0], body)
            answered = time.perf_counter()
            await _healthz(client, url)
            answers.append(Answer(status, (answered - start) * 1000, (time.perf_counter() - answered) * 1000))
        return answers

    lanes = await asyncio.gather(*(lane(place, client) for place, client in enumerate(clients)))
    return [answer for answers in lanes for answer in answers]


async def _healthz(client: Client, url: str) -> None:
    await (await client.get(f"{url}/healthz").build().send()).bytes()


async def _one(url: str, payer: Payer) -> int:
    async with new_client() as client:
        status, _ = await ask(client, url, payer.secrets[0], body_of(4, stream=False, end_user=""))
    return status


def _asked(log: Path, model: str = FAILING) -> list[str]:
    """Ids of the requests that the provider got for a model, in their order."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return [
        each["request_id"] or "" for each in lines if each["event"] == "arrive" and each["model"] == model
    ]
