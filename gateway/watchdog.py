"""Ends a supervisor's children when the supervisor itself is gone, even by ``kill -9``.

Run as a program of its own, by path: ``watchdog.py DATA_DIR``. It reads lines from a pipe whose other
end only the supervisor holds: ``add PID``, ``remove PID``, ``done``. Each PID leads a process group.
If the pipe closes without ``done``, it ends the groups and stops embedded servers nobody uses.
It imports nothing of Weir until then, so that it stays small.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_SECONDS = 5.0


def watch(lines: Iterable[str]) -> list[int] | None:
    """Follow ``lines`` to their end. The groups still there; None if the supervisor said goodbye."""
    groups: list[int] = []
    for line in lines:
        word, _, number = line.strip().partition(" ")
        if word == "done":
            return None
        if word == "add":
            groups.append(int(number))
        elif word == "remove" and int(number) in groups:
            groups.remove(int(number))
    return groups


def end(groups: list[int]) -> None:
    """Ask the leader of each group to end; after the grace time kill every group."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(_exists(group) for group in groups):
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    """Watch standard input, then clean up."""
    groups = watch(sys.stdin)
    if groups is None:
        return
    end(groups)
    data_dir = Path(sys.argv[1])
    if (data_dir / "services.users").exists():
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from gateway import embedded

        embedded.stop_unused(data_dir)


if __name__ == "__main__":
    main()
