"""Keeps a set of programs running, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

WATCHDOG = Path(__file__).with_name("watchdog.py")
CHUNK = 65536


@dataclass(frozen=True)
class Child:
    """A program to keep running.

    A child of a lower ``stage`` has ended before one of a higher stage is asked to. A child that
    has not ended ``stop_seconds`` after it was asked is killed.
    """

    name: str
    command: Sequence[str]
    stage: int = 0
    stop_seconds: float = 10.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Backoff:
    """Seconds to wait before a restart: doubled each time, from ``first`` up to ``longest``.

    A child that ran for ``healthy`` seconds starts over at ``first``.
    """

    first: float = 0.5
    longest: float = 30.0
    healthy: float = 30.0


class Watchdog:
    """The process that ends the children if this one is killed."""

    def __init__(self, data_dir: Path) -> None:
        # A session of its own: Ctrl-C in the terminal must not reach it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(WATCHDOG), str(data_dir)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def say(self, line: str) -> None:
        """Tell it about a child, or ``done``."""
        assert self._process.stdin is not None  # noqa: S101 - it was made with a pipe
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Dismiss it."""
        self.say("done")
        assert self._process.stdin is not None  # noqa: S101 - it was made with a pipe
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


class Supervisor:
    """Runs ``children`` until ``stop`` is called; restarts the ones that die.

    ``say(name, line)`` receives each line a child writes, and what the supervisor has to tell.
    Start it once, with ``run``.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        data_dir: Path,
        directory: Path,
        say: Callable[[str, str], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._children = children
        self._data_dir = data_dir
        self._directory = directory
        self._say = say
        self._backoff = backoff or Backoff()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._watchdog: Watchdog | None = None

    def stop(self) -> None:
        """Ask for an orderly end; asked again, kill what is left."""
        if self._stopping.is_set():
            self._hurry.set()
        else:
            self._stopping.set()
            self._say("weir", "stopping; Ctrl-C again to hurry")

    async def run(self, ready: Callable[[], Awaitable[bool]] | None = None) -> bool:
        """Start the children in their order and keep them until ``stop``.

        ``ready`` is awaited beside them; if it answers False everything is stopped.
        Returns False in that case, True after an orderly end.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has SIGHUP ignored: the terminal's end is then no wish to stop.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self.stop)
        self._watchdog = Watchdog(self._data_dir)
        keepers = {child.name: asyncio.create_task(self._keep(child)) for child in self._children}
        readiness = asyncio.create_task(self._readiness(ready))
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            # A keeper ends before that only by a defect, which its result raises below.
            await asyncio.wait([stopped, *keepers.values()], return_when="FIRST_COMPLETED")
        finally:
            self._stopping.set()
            readiness.cancel()
            await self._end(keepers)
            self._watchdog.close()
        for keeper in keepers.values():
            keeper.result()
        try:
            return await readiness
        except asyncio.CancelledError:
            return True

    async def _readiness(self, ready: Callable[[], Awaitable[bool]] | None) -> bool:
        """Await ``ready``; stop if it answers False or fails."""
        if ready is None:
            return True
        answer = False
        try:
            answer = await ready()
        finally:
            if not answer:
                self._stopping.set()
        return answer

    async def _keep(self, child: Child) -> None:
        """Run ``child`` again and again until asked to stop."""
        delay = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                code = await self._run_once(child)
            except OSError as error:
                reason = f"could not start: {error}"
            else:
                reason = (
                    f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                )
            if self._stopping.is_set():
                return
            healthy = time.monotonic() - started >= self._backoff.healthy
            delay = self._backoff.first if healthy or not delay else min(delay * 2, self._backoff.longest)
            self._say(child.name, f"{reason}; starting again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run_once(self, child: Child) -> int:
        """Run ``child`` to its end, passing on what it writes. Returns its exit code."""
        # A pipe of our own: with asyncio's, wait() would also wait for grandchildren to close it.
        readable, writable = os.pipe()
        with os.fdopen(readable, "rb", buffering=0) as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *child.command,
                    stdin=subprocess.DEVNULL,
                    stdout=writable,
                    stderr=subprocess.STDOUT,
                    cwd=self._directory,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **child.environment},
                    start_new_session=True,
                )
            finally:
                os.close(writable)
            return await self._follow(child, process, output)

    async def _follow(self, child: Child, process: asyncio.subprocess.Process, output: FileIO) -> int:
        """Pass on what a started child writes until it ends. Returns its exit code."""
        assert self._watchdog is not None  # noqa: S101 - run() made it
        self._watchdog.say(f"add {process.pid}")
        self._running[child.name] = process
        if self._stopping.is_set():
            process.terminate()
        pump = asyncio.create_task(self._pump(child.name, output))
        try:
            code = await process.wait()
        finally:
            # What a dead leader leaves behind would hold its port, or work twice beside the next one.
            _kill_group(process.pid)
            del self._running[child.name]
            self._watchdog.say(f"remove {process.pid}")
        await asyncio.wait([pump], timeout=1)
        pump.cancel()
        return code

    async def _pump(self, name: str, output: FileIO) -> None:
        """Pass on a child's output line by line, however long the lines are."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), output
        )
        with contextlib.closing(transport):
            await self._pass_on(name, reader)

    async def _pass_on(self, name: str, reader: asyncio.StreamReader) -> None:
        """Split what ``reader`` gives into lines and say them."""
        rest = b""
        while chunk := await reader.read(CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > CHUNK:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._say(name, line.decode(errors="replace").rstrip("\r"))
        if rest:
            self._say(name, rest.decode(errors="replace"))

    async def _end(self, keepers: Mapping[str, asyncio.Task[None]]) -> None:
        """End the children stage by stage."""
        for stage in sorted({child.stage for child in self._children}):
            group = [child for child in self._children if child.stage == stage]
            await asyncio.gather(*(self._end_child(child, keepers[child.name]) for child in group))

    async def _end_child(self, child: Child, keeper: asyncio.Task[None]) -> None:
        """Ask a child to end, wait, kill it if it does not."""
        process = self._running.get(child.name)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        hurry = asyncio.create_task(self._hurry.wait())
        done, _ = await asyncio.wait(
            [keeper, hurry], timeout=child.stop_seconds, return_when="FIRST_COMPLETED"
        )
        hurry.cancel()
        if keeper not in done and (process := self._running.get(child.name)) is not None:
            self._say(child.name, "did not end when asked; killed")
            _kill_group(process.pid)
        await asyncio.wait([keeper])


def _kill_group(leader: int) -> None:
    """Kill what is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
