"""Starting the simulator as a process of its own, for any test that needs a provider."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0


@dataclass
class RunningSimulator:
    """A simulator process: `url` without a path, `base_url` as an OpenAI client wants it."""

    url: str
    log_path: Path
    process: subprocess.Popen[str]
    # The log as far as it was read: tests ask for it again and again, and it grows all the time.
    _lines: list[dict[str, Any]] = field(default_factory=list)
    _read_to: int = 0
    _reading: Lock = field(default_factory=Lock)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def log(self, user: str | None = None) -> list[dict[str, Any]]:
        """The lines of the log file, of one user if given."""
        with self._reading, self.log_path.open("rb") as log:
            log.seek(self._read_to)
            # What is behind the last newline is being written.
            whole, newline, _ = log.read().rpartition(b"\n")
            self._lines += [json.loads(line) for line in whole.splitlines()]
            self._read_to += len(whole) + len(newline)
            return [line for line in self._lines if user is None or line["user"] == user]

    def wait_for_end(self, user: str | None, count: int = 1) -> list[dict[str, Any]]:
        """The `end` lines (of a user if given) once there are `count` of them; fails after a deadline."""

        def ends() -> list[dict[str, Any]]:
            return [line for line in self.log(user) if line["event"] == "end"]

        wait_until(lambda: len(ends()) >= count)
        return ends()

    def reset(self) -> None:
        """Forget the cases, counters and lines in memory (the log file stays)."""
        httpx.post(f"{self.url}/_sim/reset").raise_for_status()


def wait_until(holds: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Wait until something holds; AssertionError after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@contextmanager
def running_simulator(log_path: Path, *options: str) -> Iterator[RunningSimulator]:
    """Start a simulator on a free port, with its log in `log_path`; stop it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "routing.simulator", "--port", "0", "--log", str(log_path), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("simulator listening on "), line
        yield RunningSimulator(line.split()[-1], log_path, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
