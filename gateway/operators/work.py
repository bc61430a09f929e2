"""What runs behind the pages: Celery's tasks and queue, the workers of /v1, the journal and its shipper."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.db.models import Sum
from django.http import HttpResponse
from django.shortcuts import render
from redis import Redis, RedisError

from billing.journal import segment_of
from billing.models import Lease, TaskRun
from gateway.celery import app
from gateway.operators.access import OperatorRequest, operators_only

PATIENCE_SECONDS = 0.25
QUEUE = "celery"
# A task that did not begin for so many of its intervals, and a minute, is late.
MISSED = 3


@dataclass(frozen=True, slots=True)
class Task:
    """A task on the schedule. ``every`` is None for one by the clock; ``run`` None: it never ran."""

    name: str
    every: timedelta | None
    run: TaskRun | None
    at: datetime

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended; or was killed in it."""
        return self.run is not None and (self.run.ended_at is None or self.run.ended_at < self.run.started_at)

    @property
    def state(self) -> str:
        """``failed``, ``late``, ``never``, ``running`` or ``well``."""
        if self.run is None:
            return "never"
        interval = self.every or timedelta(days=1)
        if self.at - self.run.started_at > MISSED * interval + timedelta(minutes=1):
            return "late"
        if self.running:
            return "running"
        return "failed" if self.run.error else "well"


def tasks(at: datetime) -> list[Task]:
    """Every task on the schedule, those that need attention first: one query."""
    runs = {run.name: run for run in TaskRun.objects.all()}
    order = ["failed", "late", "never", "running", "well"]
    found = []
    for entry in app.conf.beat_schedule.values():
        name = entry["task"].rpartition(".")[2]
        every = entry["schedule"]
        interval = timedelta(seconds=every) if isinstance(every, (int, float)) else None
        found.append(Task(name, interval, runs.get(name), at))
    return sorted(found, key=lambda task: (order.index(task.state), task.name))


@dataclass(frozen=True, slots=True)
class Queue:
    """Messages that wait for a Celery worker, and those that one holds."""

    waiting: int
    held: int


def queue() -> Queue | None:
    """The queue as Redis has it; None: Redis is away."""
    try:
        with Redis.from_url(
            settings.REDIS_URL, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        ) as redis:
            # An asynchronous client has the same methods, and the annotations are of both.
            return Queue(cast(int, redis.llen(QUEUE)), cast(int, redis.hlen("unacked")))
    except (RedisError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class JournalWorker:
    """A worker of /v1 with a journal on this machine. Sizes are bytes of files that are not deleted yet:
    what is shipped is deleted with its file, so a little always stays."""

    id: UUID
    alive: bool
    segments: int
    size: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class JournalState:
    """The journal of this machine. ``shipping``: whether a shipper holds it."""

    shipping: bool
    workers: list[JournalWorker]

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(worker.size for worker in self.workers)

    @property
    def oldest(self) -> datetime | None:
        """The last writing of the file that waits longest."""
        return min((worker.oldest for worker in self.workers if worker.oldest is not None), default=None)


def journal_state(directory: Path) -> JournalState:
    """What lies in ``directory``; nothing is changed."""
    files: dict[UUID, list[os.stat_result]] = {}
    alive: dict[UUID, bool] = {}
    for path in directory.glob("*.alive"):
        if len(path.stem) == 32:
            alive[UUID(path.stem)] = _locked(path)
            files.setdefault(UUID(path.stem), [])
    for path in directory.glob("*.journal"):
        if named := segment_of(path):
            try:
                files.setdefault(named[0], []).append(path.stat())
            except FileNotFoundError:
                # Shipped meanwhile.
                continue
    workers = [
        JournalWorker(
            worker,
            alive.get(worker, False),
            len(found),
            sum(each.st_size for each in found),
            min((datetime.fromtimestamp(each.st_mtime, UTC) for each in found if each.st_size), default=None),
        )
        for worker, found in files.items()
    ]
    return JournalState(
        _locked(directory / "shipper.lock"), sorted(workers, key=lambda one: (one.alive, one.id.hex))
    )


def _locked(path: Path) -> bool:
    """Whether a process holds the file's lock."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two of these looks never meet; whoever holds it alone still shows.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def context(at: datetime) -> dict[str, Any]:
    """What the page shows."""
    state = journal_state(settings.WEIR_DATA_DIR / "journal")
    held = {
        row["worker"]: row["held"]
        for row in Lease.objects.values("worker").annotate(held=Sum("remaining")).order_by("worker")
    }
    here = {worker.id for worker in state.workers}
    every = tasks(at)
    return {
        "tasks": every,
        "troubled": sum(task.state in ("failed", "late") for task in every),
        "queue": queue(),
        "journal": state,
        "workers": [(worker, held.get(worker.id)) for worker in state.workers],
        "elsewhere": [(worker, money) for worker, money in held.items() if worker not in here],
        "at": at,
    }


@operators_only
def work(request: OperatorRequest) -> HttpResponse:
    """``/operator/work/``: looks again every five seconds."""
    return render(request, "operators/work.html", context(datetime.now(UTC)))
