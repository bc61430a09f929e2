"""Where a drill takes place: scratch databases and every program of a gateway, started, killed, restarted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django.db import connection
from redis import Redis

from gateway import embedded
from gateway.bench.measure import processes, tree
from gateway.bench.peers import answers, free_port
from gateway.embedded import postgres, redis
from gateway.supervisor import Watchdog

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 40.0


class DrillError(RuntimeError):
    """The drill itself failed: a program did not start, or did not do its part in time."""


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether ``holds`` came true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Ground:
    """The programs of one drill, and their files in ``directory``. Make it with ``prepared``."""

    def __init__(self, directory: Path, workers: int, watchdog: Watchdog, *, durable: bool) -> None:
        self.directory = directory
        self.journal = directory / "journal"
        self.provider_log = directory / "simulator.jsonl"
        self.workers = workers
        self._watchdog = watchdog
        self._durable = durable
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._server_port, self._provider_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._server_port}"
        self.provider_url = f"http://127.0.0.1:{self._provider_port}/v1"

    def start_provider(self) -> None:
        """Start the simulator, which writes down every request it gets. Raises DrillError."""
        words = ("-m", "routing.simulator", "--port", str(self._provider_port))
        self._start(
            "simulator",
            (*words, "--log", str(self.provider_log)),
            lambda: answers(self._provider_port, "/_sim/health"),
        )

    def start_server(self) -> None:
        """Start the server with its workers, all of them ready. Raises DrillError."""
        from gateway.processes import gateway_children

        server = next(
            child
            for child in gateway_children("127.0.0.1", self._server_port, self.workers)
            if child.name == "server"
        )
        self._start("server", server.command[1:], lambda: answers(self._server_port, "/healthz"))
        if not wait_until(lambda: self._living_journals() >= self.workers, START_SECONDS):
            raise DrillError(f"Not all workers of the server started. {self.last_words('server')}")

    def start_shipper(self) -> None:
        """Start the shipper."""
        self._start("shipper", ("manage.py", "ship"), lambda: True)

    def start_celery(self) -> None:
        """Start Celery's worker with its clock: rollups, postings, partitions."""
        from gateway.processes import gateway_children

        worker = next(child for child in gateway_children("", 0, 0) if child.name == "worker")
        schedule = str(self.directory / "celerybeat-schedule")
        self._start("celery", (*worker.command[1:], "--beat", "--schedule", schedule), lambda: True)

    def stop(self, name: str) -> None:
        """End a program in good order. Raises DrillError if it has to be killed."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            raise DrillError(f"{name} did not end. {self.last_words(name)}") from None
        finally:
            self._watchdog.say(f"remove {process.pid}")

    def stop_all(self) -> None:
        """End what runs, the server first, whatever state it is in."""
        for name in ("server", "shipper", "celery", "simulator"):
            if name in self._running:
                with contextlib.suppress(DrillError):
                    self.stop(name)

    def kill(self, name: str) -> None:
        """SIGKILL to a program and all its children."""
        process = self._running.pop(name)
        _kill_group(process)
        self._watchdog.say(f"remove {process.pid}")

    def kill_worker(self, choose: Callable[[Sequence[int]], int]) -> int:
        """SIGKILL to the one worker of the server that ``choose`` picks; its server starts another."""
        server = self._running["server"].pid
        workers = [number for number in tree(server, processes()) if number != server and _is_worker(number)]
        if not workers:
            raise DrillError(f"The server has no workers. {self.last_words('server')}")
        victim = choose(workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return victim

    def kill_postgres(self) -> None:
        """SIGKILL to the postmaster, then start it again as an operator's supervisor would."""
        home = self.directory / "postgres"
        postmaster = int((home / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(postmaster, signal.SIGKILL)
        time.sleep(0.5)
        postgres.start(home, embedded.socket_directory(self.directory, "postgres"), durable=self._durable)

    def kill_redis(self) -> None:
        """SIGKILL to Redis, then start it again."""
        sockets = embedded.socket_directory(self.directory, "redis")
        with Redis.from_url(redis.url(sockets)) as client:
            number = int(client.info("server")["process_id"])
        os.kill(number, signal.SIGKILL)
        time.sleep(0.5)
        redis.start(self.directory / "redis", sockets, durable=self._durable)

    @contextmanager
    def frozen_redis(self) -> Iterator[None]:
        """Redis stopped by SIGSTOP: connections stay open, and nothing answers."""
        sockets = embedded.socket_directory(self.directory, "redis")
        with Redis.from_url(redis.url(sockets)) as client:
            number = int(client.info("server")["process_id"])
        os.kill(number, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(number, signal.SIGCONT)

    @contextmanager
    def stopped_postgres(self) -> Iterator[None]:
        """PostgreSQL shut down, as for a restart that takes long."""
        home = self.directory / "postgres"
        # This process's own connection would be closed under it.
        connection.close()
        postgres.stop(home)
        try:
            yield
        finally:
            postgres.start(home, embedded.socket_directory(self.directory, "postgres"), durable=self._durable)

    def server_memory(self) -> int:
        """Bytes that the server and its workers have resident."""
        running = processes()
        return sum(running[number].rss_bytes for number in tree(self._running["server"].pid, running))

    def last_words(self, name: str) -> str:
        """The end of what a program wrote."""
        log = self.directory / f"{name}.log"
        written = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return "Its last words:\n" + "\n".join(written[-12:])

    def defects(self) -> list[str]:
        """What the programs' logs say of defects and of records that could not be shipped."""
        found = []
        for name in ("server", "shipper"):
            log = self.directory / f"{name}.log"
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            found += [
                f"{name}: {line[:160]}"
                for line in lines
                if "Defect while serving" in line or "dead letters" in line
            ]
        return found

    def _start(self, name: str, words: Sequence[str], ready: Callable[[], bool]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env={**os.environ, "WEB_CONCURRENCY": str(self.workers)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[name] = process
        self._watchdog.say(f"add {process.pid}")
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DrillError(f"{name} did not start. {self.last_words(name)}")
            time.sleep(0.05)

    def _living_journals(self) -> int:
        return len(list(self.journal.glob("*.alive"))) if self.journal.exists() else 0


def _is_worker(number: int) -> bool:
    """Whether the process is a worker of the server, not a tracker that multiprocessing keeps."""
    try:
        return b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return False


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def prepared(data_dir: Path, workers: int, *, durable: bool, keep: Path | None = None) -> Iterator[Ground]:
    """A migrated scratch database and a place for the programs, of which none runs.

    ``durable`` False has ``fsync`` and ``synchronous_commit`` off, as an operator may have them. The
    environment of this process is made to point there, and Django is set up on it. All is removed
    at the end; after an exception the files stay. With ``keep`` it is all in that directory, with what an
    earlier time left there, and nothing is removed. Raises DrillError, embedded.ServiceError.
    """
    if keep is None:
        data_dir.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="drill-", dir=data_dir))
    else:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = keep
    with ExitStack() as stack:
        services = embedded.start(directory, durable=durable)
        stack.callback(services.release)
        watchdog = Watchdog(directory)
        stack.callback(watchdog.close)
        os.environ.update(
            DATABASE_URL=services.database_url,
            REDIS_URL=services.redis_url,
            WEIR_DATA_DIR=str(directory),
            DJANGO_SETTINGS_MODULE="gateway.settings",
        )
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", interactive=False, verbosity=0)
        ground = Ground(directory, workers, watchdog, durable=durable)
        stack.callback(ground.stop_all)
        yield ground
    if keep is not None:
        return
    for name in ("postgres", "redis"):
        shutil.rmtree(embedded.socket_directory(directory, name), ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
