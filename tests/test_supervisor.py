"""The supervisor: restarts what dies, ends in order, leaves no orphans."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent

# A supervisor over dummy children. Each child appends to the file `events` what happens to it.
PROGRAM = """
import asyncio, sys
from pathlib import Path
from gateway.supervisor import Backoff, Child, Supervisor

CHILD = '''
import os, signal, sys, time
name, behaviour, path = sys.argv[1:]
def note(what):
    with open(path, "a") as events:
        events.write(f"{name} {what} {os.getpid()}\\\\n")
def stop(*_):
    time.sleep(0.3 if name == "first" else 0)
    note("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else stop)
if behaviour == "parent" and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("grandchild")
    time.sleep(600)
note("started")
print("hello from", name, flush=True)
if behaviour == "long-line":
    print("x" * 1_000_000, flush=True)
if behaviour == "crash":
    sys.exit(3)
time.sleep(600)
'''
directory = Path(sys.argv[1])
def child(word):
    name, behaviour, stage = word.split(":")
    command = [sys.executable, "-c", CHILD, name, behaviour, str(directory / "events")]
    if behaviour == "missing":
        command = [str(directory / "no-such-program")]
    return Child(name, command, stage=int(stage), stop_seconds=60 if name == "patient" else 1)
async def ready():
    return "unready" not in sys.argv
supervisor = Supervisor(
    [child(word) for word in sys.argv[2:] if ":" in word],
    data_dir=directory,
    directory=directory,
    say=lambda name, line: print(f"{name} | {line[:200]}", flush=True),
    backoff=Backoff(first=0.05, longest=0.2, healthy=60),
)
sys.exit(0 if asyncio.run(supervisor.run(ready)) else 7)
"""


class Run:
    """A running supervisor and what its children noted."""

    def __init__(self, directory: Path, *children: str) -> None:
        self.events_path = directory / "events"
        self.events_path.touch()
        self.output_path = directory / "output"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(directory), *children],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def events(self, what: str = "") -> list[list[str]]:
        """The events so far, as [child, what, process id], optionally of one kind."""
        events = [line.split() for line in self.events_path.read_text().splitlines()]
        return [event for event in events if not what or event[1] == what]

    def pids(self) -> list[int]:
        return [int(event[2]) for event in self.events()]

    def output(self) -> str:
        return self.output_path.read_text()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start_one(*children: str) -> Run:
        runs.append(Run(tmp_path, *children))
        return runs[-1]

    yield start_one
    for run in runs:
        run.process.kill()
        run.process.wait()
        wait_for(lambda run=run: not any(alive(pid) for pid in run.pids()), "the children's end")  # type: ignore[misc] # a bound default


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_children_stage_by_stage(start: Callable[..., Run], number: signal.Signals) -> None:
    run = start("last:quiet:2", "first:quiet:0", "middle:quiet:1")
    wait_for(lambda: len(run.events("started")) == 3, "three children")
    run.process.send_signal(number)
    assert run.process.wait(30) == 0
    assert [event[0] for event in run.events("stopped")] == ["first", "middle", "last"]


def test_a_child_that_dies_is_started_again_and_said_so(start: Callable[..., Run]) -> None:
    run = start("one:quiet:0", "two:quiet:0")
    wait_for(lambda: len(run.events("started")) == 2, "two children")
    victim = next(int(event[2]) for event in run.events("started") if event[0] == "one")
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(run.events("started")) == 3, "the restart")
    assert run.events("started")[2][0] == "one"
    wait_for(lambda: "one | was killed by SIGKILL; starting again in 0.05 s" in run.output(), "the notice")


def test_restarts_come_slower_and_slower(start: Callable[..., Run]) -> None:
    run = start("bad:crash:0")
    wait_for(lambda: run.output().count("starting again") >= 4, "four crashes")
    said = [line.rpartition("in ")[2] for line in run.output().splitlines() if "starting again" in line]
    assert said[:4] == ["0.05 s", "0.1 s", "0.2 s", "0.2 s"]


def test_a_program_that_is_missing_does_not_end_the_others(start: Callable[..., Run]) -> None:
    run = start("none:missing:0", "good:quiet:0")
    wait_for(lambda: "none | could not start" in run.output() and bool(run.events("started")), "both")
    assert run.process.poll() is None


def test_lines_carry_the_childs_name_however_long_they_are(start: Callable[..., Run]) -> None:
    run = start("chatty:long-line:0")
    wait_for(lambda: f"chatty | {'x' * 200}\n" in run.output(), "the long line")
    assert "chatty | hello from chatty\n" in run.output()


def test_a_child_that_ignores_the_request_is_killed(start: Callable[..., Run]) -> None:
    run = start("deaf:stubborn:0")
    wait_for(lambda: bool(run.events("started")), "the child")
    run.process.terminate()
    assert run.process.wait(30) == 0
    assert "deaf | did not end when asked; killed" in run.output()
    assert not any(alive(pid) for pid in run.pids())


def test_a_second_signal_kills_at_once(start: Callable[..., Run]) -> None:
    run = start("patient:stubborn:0", "first:quiet:1")
    wait_for(lambda: len(run.events("started")) == 2, "the children")
    run.process.send_signal(signal.SIGINT)
    wait_for(lambda: "stopping" in run.output(), "the first signal's effect")
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 0
    assert not any(alive(pid) for pid in run.pids())


def test_what_a_dead_child_left_behind_is_ended_with_it(start: Callable[..., Run]) -> None:
    run = start("leader:parent:0")
    wait_for(lambda: len(run.events()) == 2, "the child and its child")
    leader, grandchild = (int(run.events(what)[0][2]) for what in ("started", "grandchild"))
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: not alive(grandchild), "the grandchild's end")


def test_after_the_supervisor_is_killed_nothing_lingers(start: Callable[..., Run]) -> None:
    run = start("leader:parent:0", "deaf:stubborn:1", "first:quiet:2")
    wait_for(lambda: len(run.events()) == 4, "all four")
    run.process.kill()
    wait_for(lambda: not any(alive(pid) for pid in run.pids()), "the end of all")
    # Those that listen were asked, not killed.
    assert {event[0] for event in run.events("stopped")} == {"leader", "first"}


def test_when_readiness_fails_everything_is_stopped(start: Callable[..., Run]) -> None:
    run = start("one:quiet:0", "unready")
    assert run.process.wait(30) == 7
    assert not any(alive(pid) for pid in run.pids())


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def up(*options: str) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py up`` that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "manage.py", "up", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_taken_port_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up("--port", str(port), "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Preparing" not in done.stdout


def test_one_data_directory_serves_one_gateway(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = up("--port", str(unused_port()), "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "running in" in done.stderr
    assert "Preparing" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_whole_gateway_comes_up_and_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    port = unused_port()
    hidden = {"DATABASE_URL", "REDIS_URL", "WEIR_DATA_DIR", "WEIR_TEST_EMBEDDED", "DEBUG"}
    command = [
        sys.executable,
        "manage.py",
        "up",
        "--no-demo",
        "--port",
        str(port),
        "--data-dir",
        str(tmp_path),
    ]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name not in hidden},
            start_new_session=True,
        )
    try:
        wait_for(lambda: "Weir is ready." in (tmp_path / "output").read_text(), "the gateway")
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
        pids = [
            int((tmp_path / "postgres" / "postmaster.pid").read_text().split("\n")[0]),
            *descendants(process.pid),
        ]
        assert len(pids) > 5  # PostgreSQL, the watchdog, server, ship, worker, beat
        process.send_signal(number)
        assert process.wait(60) == (0 if number == signal.SIGTERM else -9)
        wait_for(lambda: not any(alive(pid) for pid in pids), "the end of all")
        wait_for(lambda: not (tmp_path / "redis" / "redis.sock").exists(), "the end of Redis")
        if number == signal.SIGTERM:
            assert (tmp_path / "output").read_text().endswith("Weir has stopped.\n")
    finally:
        process.kill()
        process.wait()


def descendants(pid: int) -> list[int]:
    """The process ids of a process's children, their children and so on."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = [tuple(map(int, line.split())) for line in table.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents if its_parent == parent]
    return found[1:]
