"""The journal: what was written can be read, whatever happened to the writer."""

from __future__ import annotations

import fcntl
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import journal
from billing.journal import JournalFull, JournalInUse, JournalReader, JournalWriter

ROOT = Path(__file__).resolve().parents[2]
WORKER = UUID("00000000-0000-4000-8000-0000000000aa")


def begin(name: str, **more: Any) -> dict[str, Any]:
    return {"t": "begin", "request_id": name, **more}


def end(name: str, **more: Any) -> dict[str, Any]:
    return {"t": "end", "request_id": name, **more}


def records(path: Path, offset: int = 0) -> list[dict[str, Any]]:
    return [line.record for line in JournalReader(path, offset).lines() if line.record is not None]


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """As on a full disk: a write is cut short at ``size`` bytes, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_is_a_checksum_and_json(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    writer.begin(begin("a"))
    path = tmp_path / "000000000000400080000000000000aa-000001.journal"
    # The checksum is gzip's, as its own tool prints it.
    assert path.read_bytes() == b'9c342043 {"t":"begin","request_id":"a"}\n'


def test_records_come_back_in_order(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    writer.begin(begin("a"))
    writer.begin(begin("b"))
    writer.end(end("b", charge="0.000000000001"))
    path = journal.segment_path(tmp_path, WORKER, 1)
    assert records(path) == [begin("a"), begin("b"), end("b", charge="0.000000000001")]
    assert writer.open_requests == 1


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    writer.begin(begin("a"))
    reader = JournalReader(journal.segment_path(tmp_path, WORKER, 1))
    assert [line.record for line in reader.lines()] == [begin("a")]
    assert list(reader.lines()) == []
    writer.end(end("a"))
    assert [line.record for line in reader.lines()] == [end("a")]


def test_a_reader_that_is_left_midway_goes_on_after_the_last_line_it_gave(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    for name in "abc":
        writer.begin(begin(name))
    reader = JournalReader(journal.segment_path(tmp_path, WORKER, 1))
    assert next(reader.lines()).record == begin("a")
    assert [line.record for line in reader.lines()] == [begin("b"), begin("c")]


def test_a_long_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    # A line is 9 + 31 + 1 = 41 bytes, so 100 bytes hold three of them.
    writer = JournalWriter(tmp_path, WORKER, segment_bytes=100)
    for number in range(7):
        writer.begin(begin(f"r{number}"))
    found = [records(journal.segment_path(tmp_path, WORKER, number)) for number in (1, 2, 3)]
    assert [len(part) for part in found] == [3, 3, 1]
    assert [record["request_id"] for part in found for record in part] == [f"r{n}" for n in range(7)]


def test_rotation_on_demand(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    writer.begin(begin("a"))
    writer.rotate()
    writer.end(end("a"))
    assert records(journal.segment_path(tmp_path, WORKER, 1)) == [begin("a")]
    assert records(journal.segment_path(tmp_path, WORKER, 2)) == [end("a")]


def test_a_bad_line_in_the_middle_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(
        journal.encode(begin("a")) + b"garbage\n" + journal.encode(begin("b")).replace(b'"b"', b'"c"')
    )
    with path.open("ab") as file:
        file.write(journal.encode(begin("d")))
    lines = list(JournalReader(path).lines())
    assert [line.record and line.record["request_id"] for line in lines] == ["a", None, None, "d"]
    assert lines[1].raw == b"garbage"
    assert "checksum" in lines[2].fault
    assert lines[-1].end == path.stat().st_size


def test_a_bad_last_line_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    good = journal.encode(begin("a"))
    path.write_bytes(good + b"00000000 {}\n")
    reader = JournalReader(path)
    assert [line.record for line in reader.lines()] == [begin("a")]
    assert reader.offset == len(good)


def test_what_is_no_json_object_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"".join(b"%08x %b\n" % (crc32(body), body) for body in (b"[1]", b"{")))
    assert [(line.record, line.raw) for line in JournalReader(path).lines()] == [(None, b"[1]"), (None, b"{")]


def test_a_line_longer_than_a_block_is_read_whole(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    big = begin("a", text="x" * 2_500_000)
    writer.begin(big)
    writer.begin(begin("b"))
    assert records(journal.segment_path(tmp_path, WORKER, 1)) == [big, begin("b")]


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=12),
    segment_bytes=st.integers(1, 400),
    cut=st.integers(0, 10_000),
)
def test_cut_anywhere_what_remains_is_a_prefix(texts: list[str], segment_bytes: int, cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        writer = JournalWriter(directory, WORKER, segment_bytes=segment_bytes)
        written = [begin(str(number), text=text) for number, text in enumerate(texts)]
        for record in written:
            writer.begin(record)
        writer.close()
        segments = sorted(directory.glob("*.journal"))
        whole = [record for path in segments for record in records(path)]
        assert whole == written

        last = segments[-1]
        cut = min(cut, last.stat().st_size)
        before = last.read_bytes()
        last.write_bytes(before[:cut])
        lines = [line for path in segments for line in JournalReader(path).lines()]
        kept = len(written) - before.count(b"\n") + before[:cut].count(b"\n")
        assert [line.record for line in lines] == written[:kept]


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.integers(1, 60), max_size=30))
def test_a_file_seen_growing_gives_each_record_once(steps: list[int]) -> None:
    written = [begin(str(number), text="é\n" * number) for number in range(6)]
    whole = b"".join(journal.encode(record) for record in written)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x"
        path.touch()
        reader = JournalReader(path)
        seen: list[Any] = []
        at = 0
        for step in [*steps, len(whole)]:
            with path.open("ab") as file:
                file.write(whole[at : at + step])
            at += step
            seen += [line.record for line in reader.lines()]
        assert seen == written


def test_on_a_full_disk_nothing_begins_and_no_end_is_lost(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    writer.begin(begin("a"))
    path = journal.segment_path(tmp_path, WORKER, 1)
    size = path.stat().st_size
    with files_no_longer_than(size + 10):
        with pytest.raises(JournalFull):
            writer.begin(begin("b"))  # cut short, and taken back
        assert path.stat().st_size == size
        with pytest.raises(JournalFull):
            writer.end(end("a"))
        with pytest.raises(JournalFull):
            writer.begin(begin("c"))
        with pytest.raises(JournalFull):
            writer.end(end("refused"))
        while_full = writer.full
    writer.begin(begin("d"))
    assert (while_full, writer.full) == (True, False)
    assert records(path) == [begin("a"), end("a"), begin("d")]
    assert writer.open_requests == 1


def test_a_segment_that_cannot_be_followed_goes_on(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER, segment_bytes=50)
    journal.segment_path(tmp_path, WORKER, 2).touch()  # in the way of the next segment
    for name in "abc":
        writer.begin(begin(name))
    assert records(journal.segment_path(tmp_path, WORKER, 1)) == [begin("a"), begin("b"), begin("c")]


def test_strings_that_are_not_unicode_do_not_lose_the_line(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    writer.begin(begin("a", end_user="\ud800"))
    (line,) = JournalReader(journal.segment_path(tmp_path, WORKER, 1)).lines()
    assert b'"request_id": "a"' in line.raw


def test_a_living_worker_holds_its_lock_and_a_closed_one_lets_go(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    with journal.alive_path(tmp_path, WORKER).open() as alive:
        with pytest.raises(BlockingIOError):
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        writer.close()
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_worker_id_is_used_once(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, WORKER)
    with pytest.raises(JournalInUse):
        JournalWriter(tmp_path, WORKER)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".alive", ".journal"]
    writer.close()


def test_what_was_written_before_kill_9_is_there(tmp_path: Path) -> None:
    program = (
        "import sys, uuid, pathlib; from billing.journal import JournalWriter\n"
        "w = JournalWriter(pathlib.Path(sys.argv[1]), uuid.UUID(sys.argv[2]))\n"
        "n = 0\n"
        "while True:\n"
        "    w.begin({'t': 'begin', 'request_id': str(n)}); print(n, flush=True); n += 1\n"
    )
    worker = uuid4()
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(worker)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(500)]
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().splitlines() if line]
    child.wait()
    found = [int(record["request_id"]) for record in records(journal.segment_path(tmp_path, worker, 1))]
    # Every line the worker told us of is there; one more may be, written but not told.
    assert found[: len(told)] == told
    assert len(found) <= len(told) + 1
    with journal.alive_path(tmp_path, worker).open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
