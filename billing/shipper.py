"""Moves the journal of a directory to PostgreSQL. One shipper a directory.

Which lines are shipped is remembered in memory only: a new shipper reads every segment again, and
the rows that are already there change nothing. A segment is deleted when all its lines are shipped,
none will be added (a later one exists, or its worker is dead), and every request begun in it has
ended. The shipper is the heir of each dead worker: it records the requests without an end as
interrupted, returns the leases, and removes the files.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from billing import durability, journal, settlement
from billing.settlement import Connection, Ended, ImpossibleRecord, Unreadable

logger = logging.getLogger(__name__)

BATCH_RECORDS = 5_000
# One statement carries a batch as JSON, which PostgreSQL limits to 256 MB.
BATCH_BYTES = 16 * 1024 * 1024
FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 10.0


class ShipperRunning(Exception):  # says what is the matter, as callers read it
    """Another shipper works on the directory."""


@dataclass(slots=True, eq=False)
class Segment:
    """A file of the journal, and up to which byte it is shipped."""

    path: Path
    number: int
    shipped: int = 0


@dataclass(slots=True)
class Begun:
    """A request that has begun and not ended: its begin record, and the segment that holds it."""

    segment: Segment
    record: dict[str, Any]


@dataclass(slots=True)
class Worker:
    """What the shipper knows of one worker. ``alive`` is the locked file of a worker that is dead."""

    id: UUID
    segments: dict[int, Segment] = field(default_factory=dict)
    begun: dict[str, Begun] = field(default_factory=dict)
    # Until the first reading is done, requests may look open whose end was in a deleted segment.
    read_once: bool = False
    dead: bool = False
    alive: int = -1


@dataclass(slots=True)
class Batch:
    """Lines that go to the database together; nothing of them is remembered before they are there."""

    lines: list[tuple[Worker, Segment, journal.Line]] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)
    aside: list[Unreadable] = field(default_factory=list)
    size: int = 0

    def add(self, worker: Worker, segment: Segment, line: journal.Line) -> None:
        """Take one line in."""
        self.lines.append((worker, segment, line))
        self.size += len(line.raw)
        match line.record:
            case None:
                self.aside.append(Unreadable(line.raw, line.fault))
            case {"t": "end"}:
                self.ends.append(Ended(worker.id, line.record, line.raw))
            case {"t": "begin", "request_id": str()}:
                pass
            case _:
                self.aside.append(Unreadable(line.raw, "Neither a begin nor an end of a request."))

    @property
    def full(self) -> bool:
        """Whether it should go before more is added."""
        return len(self.lines) >= BATCH_RECORDS or self.size >= BATCH_BYTES

    def remember(self) -> None:
        """Note, after the commit, what is shipped and which requests are open."""
        for worker, segment, line in self.lines:
            segment.shipped = line.end
            record = line.record or {}
            match record:
                case {"t": "begin", "request_id": str(request_id)}:
                    worker.begun[request_id] = Begun(segment, record)
                case {"t": "end", "request_id": str(request_id)}:
                    worker.begun.pop(request_id, None)


class Shipper:
    """Ships the journal in ``directory`` to the database of ``parameters`` (those of psycopg.connect)."""

    def __init__(self, directory: Path, parameters: dict[str, Any]) -> None:
        """Take the directory. Raises ShipperRunning if it is taken."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._parameters = parameters
        self._connection: Connection | None = None
        self._workers: dict[UUID, Worker] = {}
        self._lock = os.open(directory / "shipper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _locked(self._lock):
            os.close(self._lock)
            raise ShipperRunning(f"Another shipper works on {directory}.")

    def close(self) -> None:
        """Let go of the directory and the connection."""
        self._disconnect()
        for worker in self._workers.values():
            if worker.alive >= 0:
                os.close(worker.alive)
        self._workers.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def run(self, stop: threading.Event, interval: float) -> None:
        """Ship every ``interval`` seconds until ``stop`` is set, then once more. While the database or
        the disk is in trouble, wait longer and longer and try again."""
        backoff = 0.0
        while True:
            last = stop.is_set()
            try:
                self.ship_once()
                backoff = 0.0
            except (psycopg.Error, OSError) as error:
                # Only the kind: a database's message may quote the values it was given.
                logger.warning("Shipping failed (%s); the journal keeps what is not shipped.", _kind(error))
                self._disconnect()
                backoff = min(max(backoff * 2, FIRST_BACKOFF_SECONDS), LAST_BACKOFF_SECONDS)
            if last:
                return
            stop.wait(backoff or interval)

    def ship_once(self) -> int:
        """Ship every complete line there is, and settle the estate of dead workers. Returns how many
        events are new. Raises psycopg.Error (nothing is lost: the next call tries again) or OSError."""
        workers = self._look()
        shipped = 0
        batch = Batch()
        for worker, segment, line in self._unshipped(workers):
            batch.add(worker, segment, line)
            if batch.full:
                shipped += self._ship(batch)
                batch = Batch()
        shipped += self._ship(batch)
        for worker in workers:
            shipped += self._tidy(worker)
        return shipped

    def _look(self) -> list[Worker]:
        """The workers that have files, with their segments as they are now. Whether a worker is dead is
        asked before its segments are read, so a dead worker's are read to their very end."""
        paths: dict[UUID, dict[int, Path]] = {}
        for path in self._directory.glob("*.alive"):
            if len(path.stem) == 32:
                paths[UUID(path.stem)] = {}
        for path in self._directory.glob("*.journal"):
            if found := journal.segment_of(path):
                paths.setdefault(found[0], {})[found[1]] = path
        for worker_id, segments in paths.items():
            worker = self._workers.setdefault(worker_id, Worker(worker_id))
            if not worker.dead:
                worker.dead = self._inherit(worker)
                if worker.dead:
                    # It may have begun another segment since the directory was listed.
                    segments.update(self._segments_of(worker_id))
            for number in sorted(segments):
                worker.segments.setdefault(number, Segment(segments[number], number))
        return [self._workers[worker_id] for worker_id in sorted(paths)]

    def _segments_of(self, worker_id: UUID) -> dict[int, Path]:
        found = (
            (journal.segment_of(path), path) for path in self._directory.glob(f"{worker_id.hex}-*.journal")
        )
        return {name[1]: path for name, path in found if name}

    def _inherit(self, worker: Worker) -> bool:
        """Whether the worker is dead; its lock is then ours, so that nobody else inherits."""
        try:
            alive = os.open(journal.alive_path(self._directory, worker.id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # An heir before us was stopped between removing the files.
            return True
        if not _locked(alive):
            os.close(alive)
            return False
        worker.alive = alive
        return True

    def _unshipped(self, workers: list[Worker]) -> Iterator[tuple[Worker, Segment, journal.Line]]:
        for worker in workers:
            for number in sorted(worker.segments):
                segment = worker.segments[number]
                for line in journal.JournalReader(segment.path, segment.shipped).lines():
                    yield worker, segment, line

    def _ship(self, batch: Batch) -> int:
        inserted = 0
        if batch.ends or batch.aside:
            inserted = self._settle(batch.ends, batch.aside)
        batch.remember()
        return inserted

    def _settle(self, ends: list[Ended], aside: list[Unreadable]) -> int:
        inserted, refused = settlement.settle(self._connected(), ends, aside)
        if refused:
            logger.error("%s journal records were put aside as dead letters.", refused)
        return inserted

    def _tidy(self, worker: Worker) -> int:
        """Delete the segments that are done with; wind up a dead worker's affairs."""
        if not worker.read_once:
            for request_id in (
                settlement.recorded(self._connected(), list(worker.begun)) if worker.begun else ()
            ):
                del worker.begun[request_id]
            worker.read_once = True
        inserted = 0
        last = max(worker.segments, default=0)
        closed = [segment for number, segment in worker.segments.items() if number < last]
        if closed:
            # No more is coming there, so what cannot be read will never be.
            remains = [(segment, rest) for segment in closed if (rest := _rest(segment))]
            if remains:
                self._settle(
                    [], [Unreadable(rest, "The end of a segment is unreadable.") for _, rest in remains]
                )
                for segment, rest in remains:
                    segment.shipped += len(rest)
        if worker.dead:
            inserted = self._wind_up(worker)
        elif closed:
            needed = {id(begun.segment) for begun in worker.begun.values()}
            for segment in closed:
                if id(segment) not in needed:
                    segment.path.unlink()
                    del worker.segments[segment.number]
        return inserted

    def _wind_up(self, worker: Worker) -> int:
        ends, aside = [], []
        for begun in worker.begun.values():
            try:
                ends.append(settlement.interrupted(begun.record, worker.id, _last_sign(worker)))
            except ImpossibleRecord as error:
                aside.append(Unreadable(str(begun.record).encode(), str(error)))
        inserted = 0
        for start in range(0, len(ends), BATCH_RECORDS):
            inserted += self._settle(ends[start : start + BATCH_RECORDS], [])
        if aside:
            self._settle([], aside)
        settlement.return_leases(self._connected(), worker.id)
        if ends:
            logger.warning("Worker %s died with %s requests under way.", worker.id, len(ends))
        for number in sorted(worker.segments):
            worker.segments[number].path.unlink(missing_ok=True)
        journal.alive_path(self._directory, worker.id).unlink(missing_ok=True)
        if worker.alive >= 0:
            os.close(worker.alive)
        del self._workers[worker.id]
        return inserted

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(**{"connect_timeout": 5} | self._parameters, autocommit=True)
            self._connection.execute(durability.INSIST)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _rest(segment: Segment) -> bytes:
    """What follows the last line shipped."""
    if segment.path.stat().st_size <= segment.shipped:
        return b""
    with segment.path.open("rb") as file:
        file.seek(segment.shipped)
        return file.read()


def _last_sign(worker: Worker) -> datetime:
    """When the worker last wrote."""
    times = [segment.path.stat().st_mtime for segment in worker.segments.values()]
    return datetime.fromtimestamp(max(times), tz=UTC)


def _kind(error: Exception) -> str:
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__
