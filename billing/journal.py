"""The usage journal: append-only files that a worker writes and the shipper reads.

A worker appends one line when a request goes upstream (``begin``) and one when it ends (``end``)::

    <crc32 of the JSON, 8 hex digits> <JSON object>\\n

Each line is one ``os.write`` to a file opened with O_APPEND. When it returns, the line is in the
kernel's page cache, so it survives ``kill -9`` of the worker; it is not fsynced, so a power cut may
lose the last seconds. Files are called ``<worker, 32 hex digits>-<number, 6 digits>.journal``. While
a worker lives it holds an flock on ``<worker>.alive``; whoever can take that lock knows it is dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zlib import crc32

import orjson

SEGMENT_BYTES = 8 * 1024 * 1024
_SEGMENT = re.compile(r"^([0-9a-f]{32})-([0-9]{6,})\.journal$")
_READ_BYTES = 1024 * 1024
# Eight digits and a space.
_PREFIX = 9


class JournalFull(Exception):
    """A line could not be written (disk full, or an I/O error): no request may go upstream."""


class JournalInUse(Exception):
    """The directory already has a worker of this id."""


def segment_path(directory: Path, worker: UUID, number: int) -> Path:
    """The file of a worker's segment ``number`` (from 1)."""
    return directory / f"{worker.hex}-{number:06d}.journal"


def alive_path(directory: Path, worker: UUID) -> Path:
    """The file that a worker keeps locked as long as it lives."""
    return directory / f"{worker.hex}.alive"


def segment_of(path: Path) -> tuple[UUID, int] | None:
    """The worker and number of a segment file; None if ``path`` is not one."""
    match = _SEGMENT.match(path.name)
    return (UUID(match[1]), int(match[2])) if match else None


def encode(record: dict[str, Any]) -> bytes:
    """``record`` as one line of the journal. Decimals become strings, times ISO 8601."""
    try:
        body = orjson.dumps(record, default=_plain)
    except TypeError:
        # A string that is not Unicode, or an integer beyond 64 bits: written all the same, since
        # losing the line would lose the charge. The shipper may have to put it aside.
        body = json.dumps(record, default=str).encode()
    return b"%08x %b\n" % (crc32(body), body)


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(type(value).__name__)


class JournalWriter:
    """One worker's journal. For one thread (a worker's event loop); a call takes a few microseconds.

    Lines of requests that began but whose end could not be written are kept in memory and written
    before anything else as soon as the disk takes them.
    """

    def __init__(self, directory: Path, worker: UUID, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the first segment. Raises JournalInUse, or OSError if the directory cannot be written."""
        directory.mkdir(parents=True, exist_ok=True)
        self.worker = worker
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._begun: set[str] = set()
        self._kept: list[bytes] = []
        self._alive = self._take_life()
        try:
            self._number = 1
            self._fd = self._open(self._number)
        except OSError:
            os.close(self._alive)
            alive_path(directory, worker).unlink()
            raise
        self._size = 0
        self._torn = False
        self._rotate_at = segment_bytes

    def _take_life(self) -> int:
        """Lock a file first and only then give it its name, so that nobody ever sees it unlocked."""
        draft = self._directory / f"{self.worker.hex}.alive.{os.getpid()}"
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alive_path(self._directory, self.worker).hardlink_to(draft)
        except (BlockingIOError, FileExistsError) as error:
            os.close(fd)
            raise JournalInUse(f"A worker {self.worker} already writes in {self._directory}.") from error
        finally:
            draft.unlink(missing_ok=True)
        return fd

    def _open(self, number: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return os.open(segment_path(self._directory, self.worker, number), flags, 0o600)

    @property
    def open_requests(self) -> int:
        """How many requests have begun and not ended."""
        return len(self._begun)

    @property
    def full(self) -> bool:
        """Whether lines wait in memory because the disk did not take them."""
        return bool(self._kept)

    def begin(self, record: dict[str, Any]) -> None:
        """Record that a request goes upstream. Raises JournalFull: then it must not go."""
        self._write(encode(record))
        self._begun.add(record["request_id"])

    def end(self, record: dict[str, Any]) -> None:
        """Record how a request ended. Raises JournalFull if the disk did not take it; the line of a
        request that had begun is then kept and written later, that of a refused one is not."""
        line = encode(record)
        try:
            self._write(line)
        except JournalFull:
            if record["request_id"] in self._begun:
                self._begun.discard(record["request_id"])
                self._kept.append(line)
            raise
        self._begun.discard(record["request_id"])

    def flush(self) -> None:
        """Write the lines that had to be kept. Raises JournalFull if the disk still does not take them."""
        while self._kept:
            self._append(self._kept[0])
            del self._kept[0]

    def rotate(self) -> None:
        """Go on in a new segment, opened before the present one is left. Raises OSError."""
        fd = self._open(self._number + 1)
        os.close(self._fd)
        self._fd, self._number, self._size, self._torn = fd, self._number + 1, 0, False
        self._rotate_at = self._segment_bytes

    def close(self) -> None:
        """Let go of the journal. The shipper then takes this worker for dead: it ships the rest, returns
        its leases and records requests without an end as interrupted. Raises JournalFull if lines
        that were kept are lost by it."""
        if self._fd < 0:
            return
        try:
            self.flush()
        finally:
            os.close(self._fd)
            self._fd = -1
            os.close(self._alive)

    def _write(self, line: bytes) -> None:
        if self._kept:
            self.flush()
        self._append(line)

    def _append(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise JournalFull(f"The journal cannot be written: {error.strerror}.") from error
        if written != len(line):
            # The disk filled up within the line: take the half line back, so that the next is whole.
            # Where even that fails, the next line starts anew and the reader reports the half one.
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                self._size += written
                self._torn = True
            raise JournalFull("The journal cannot be written: the disk is full.")
        self._torn = False
        self._size += written
        if self._size >= self._rotate_at:
            try:
                self.rotate()
            except OSError:
                # The line is safe where it is; a longer segment does no harm.
                self._rotate_at = self._size + self._segment_bytes


@dataclass(frozen=True, slots=True)
class Line:
    """One line read: a ``record`` and the JSON it was read from (``raw``), or, with ``record`` None, the
    ``fault`` that makes ``raw`` unreadable. ``end`` is the offset in bytes just after the line."""

    end: int
    record: dict[str, Any] | None
    raw: bytes
    fault: str = ""


class JournalReader:
    """Reads one segment from ``offset`` (bytes), which advances past each line given out."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def lines(self) -> Iterator[Line]:
        """The complete lines from the offset on. Ends without error before a last line that has no
        newline or whose checksum is wrong: it is being written, or its worker died in it. Raises
        FileNotFoundError."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            rest = b""
            waiting: Line | None = None
            while block := file.read(_READ_BYTES):
                *whole, rest = (rest + block).split(b"\n")
                for text in whole:
                    # A wrong line is given out only when something follows it.
                    if waiting is not None:
                        self.offset = waiting.end
                        yield waiting
                        waiting = None
                    line = _decode(text, self.offset + len(text) + 1)
                    if line.record is None and line.fault == _CHECKSUM:
                        waiting = line
                    else:
                        self.offset = line.end
                        yield line
            if waiting is not None and rest:
                self.offset = waiting.end
                yield waiting


_CHECKSUM = "The checksum does not match."


def _decode(text: bytes, end: int) -> Line:
    body = text[_PREFIX:]
    try:
        right = text[8:_PREFIX] == b" " and int(text[:8], 16) == crc32(body)
    except ValueError:
        right = False
    if not right:
        return Line(end, None, text, _CHECKSUM)
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return Line(end, None, body, f"Not JSON: {error}")
    if not isinstance(record, dict):
        return Line(end, None, body, "Not a JSON object.")
    return Line(end, record, body)
