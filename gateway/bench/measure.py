"""What processes used, from the system's own books; and percentiles."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process: CPU in seconds since its start (``kernel_seconds`` is a part of ``cpu_seconds``; 0
    where the system does not tell it apart), and resident memory in bytes."""

    parent: int
    cpu_seconds: float
    kernel_seconds: float
    rss_bytes: int

    def __sub__(self, before: Process) -> Process:
        """What was used since ``before``; the memory stays as it is."""
        return Process(
            self.parent,
            self.cpu_seconds - before.cpu_seconds,
            self.kernel_seconds - before.kernel_seconds,
            self.rss_bytes,
        )


NOTHING = Process(0, 0.0, 0.0, 0)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` (0 to 1) of them do not exceed.

    Raises ValueError if there are none.
    """
    if not values:
        raise ValueError("There are no values.")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def parse_stat(text: str, ticks: int, page: int) -> tuple[int, Process]:
    """The id and the use of a process, from its ``/proc/PID/stat``.

    ``ticks`` is clock ticks a second, ``page`` bytes a page.
    """
    # The name in parentheses may itself hold spaces and parentheses.
    number, _, rest = text.partition(" (")
    fields = rest[rest.rindex(")") + 2 :].split()
    user, kernel = int(fields[11]) / ticks, int(fields[12]) / ticks
    return int(number), Process(int(fields[1]), user + kernel, kernel, int(fields[21]) * page)


def parse_ps(line: str) -> tuple[int, Process]:
    """The same from a line of ``ps -axo pid=,ppid=,rss=,time=``; time is ``[[days-]hours:]minutes:seconds``."""
    number, parent, rss, clock = line.split()
    days, _, rest = clock.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return int(number), Process(int(parent), seconds + 86400 * int(days or 0), 0.0, int(rss) * 1024)


def processes() -> dict[int, Process]:
    """Every process of this machine that can be seen, by id."""
    if not (PROC / "self" / "stat").exists():
        listed = subprocess.run(
            ["/bin/ps", "-axo", "pid=,ppid=,rss=,time="], capture_output=True, text=True, check=True
        )
        return dict(parse_ps(line) for line in listed.stdout.splitlines())
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found = {}
    for directory in PROC.iterdir():
        if directory.name.isdigit():
            # It may have ended meanwhile.
            with suppress(OSError):
                number, process = parse_stat((directory / "stat").read_text(), ticks, page)
                found[number] = process
    return found


def tree(root: int, of: dict[int, Process]) -> list[int]:
    """``root`` and all its descendants among ``of``."""
    members = [root] if root in of else []
    for member in members:
        members += [number for number, process in of.items() if process.parent == member]
    return members


def used(roots: Iterable[int]) -> Process:
    """What the processes ``roots`` and their descendants have used together."""
    of = processes()
    total = NOTHING
    for root in roots:
        for number in tree(root, of):
            process = of[number]
            total = Process(
                0,
                total.cpu_seconds + process.cpu_seconds,
                total.kernel_seconds + process.kernel_seconds,
                total.rss_bytes + process.rss_bytes,
            )
    return total


def threads(process: int) -> dict[str, float]:
    """CPU seconds by name of thread, where the system tells (Linux); otherwise empty."""
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[str, float] = {}
    with suppress(OSError):
        for task in (PROC / str(process) / "task").iterdir():
            text = (task / "stat").read_text()
            name = text[text.index("(") + 1 : text.rindex(")")]
            _, use = parse_stat(text, ticks, 1)
            name = "event loop" if task.name == str(process) else name
            found[name] = found.get(name, 0.0) + use.cpu_seconds
    return found
