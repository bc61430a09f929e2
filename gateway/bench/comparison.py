"""One run: everything started, each workload put to each peer, everything torn down."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

import psycopg
from django.conf import settings
from redis import Redis

from gateway import embedded
from gateway.bench import measure, peers, profiled
from gateway.bench.load import Order, Report
from gateway.bench.peers import Floor, PeerError, Programs
from gateway.bench.table import PROVIDER, WEIR, Cell
from gateway.bench.workloads import WORKLOADS, Workload

UNLIMITED = "Weir, no quota, no budget"
DRAIN_SECONDS = 120.0
LOAD_SECONDS = 300.0


class BenchError(RuntimeError):
    """The run failed: an answer was wrong, or a program did not do its part."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long one cell takes, in seconds."""

    seconds: float
    warm_seconds: float


FULL = Length(5.0, 1.0)
QUICK = Length(0.4, 0.2)


class Comparison:
    """A run's programs. Make it with ``prepared``."""

    def __init__(
        self,
        directory: Path,
        programs: Programs,
        database_url: str,
        databases: dict[str, int],
        length: Length,
        load_average: float,
    ) -> None:
        self._directory = directory
        self._programs = programs
        self._database_url = database_url
        self._databases = databases
        self._length = length
        self._load_average = load_average
        self._cores = peers.cores()
        self._provider_port, self._floor_port, self._server_port = (peers.free_port() for _ in range(3))
        self._shipped = 0
        self.floor: Floor | None = None

    def start(self) -> None:
        """Start every program and make the tenants. Raises PeerError, BenchError."""
        start, cores = self._programs.start, self._cores
        provider = peers.simulator_command(self._provider_port)
        self._provider = start(
            "simulator",
            provider,
            cores.load,
            lambda: peers.answers(self._provider_port, "/_sim/health"),
        )
        self._once("the database", "manage.py", "migrate", "--no-input", "--verbosity", "0")
        self._secrets: dict[str, str] = json.loads(
            self._once(
                "the tenants", "-m", "gateway.bench.tenant", f"http://127.0.0.1:{self._provider_port}/v1"
            )
        )
        self.floor = peers.floor(self._directory, self._floor_port, self._provider_port)
        if self.floor is not None:
            self._floor = start(
                "floor", self.floor.command, cores.server, lambda: peers.listens(self._floor_port)
            )
        self._start_server()
        self._shipper = start("ship", peers.shipper_command(), cores.rest)

    def cells(self, workload: Workload, *, unlimited: bool = False) -> Iterator[Cell]:
        """Put ``workload`` to the provider, the floor and the gateway, one after another.

        ``unlimited`` adds the gateway for a tenant without quota or budget. Raises BenchError.
        """
        yield self._cell(workload, PROVIDER, self._provider_port, self._provider, "limited")
        if self.floor is not None:
            yield self._cell(workload, self.floor.name, self._floor_port, self._floor, "limited")
        yield self._weir(workload, WEIR, "limited")
        if unlimited:
            yield self._weir(workload, UNLIMITED, "unlimited")

    def profile(self, workload: Workload) -> list[str]:
        """The functions of the gateway that take the most time under ``workload``."""
        file = self._directory / f"{workload.name}.profile"
        self._programs.stop("server")
        self._start_server(file)
        os.kill(self._server, signal.SIGUSR1)
        report = self._load(workload, self._server_port, self._server, "limited")
        self._programs.stop("server")
        self._start_server()
        requests = report.warm + report.requests
        self._await_books(requests)
        return profiled.top(file, settings.BASE_DIR, requests)

    def check_books(self) -> tuple[int, Decimal]:
        """How many requests are on the books, and the sum of their charges in US dollars.

        Raises BenchError unless every request that was answered is, and the budgets agree.
        """
        with psycopg.connect(self._database_url) as connection:
            rows = connection.execute(
                "SELECT organization_id, count(*), sum(charge) FROM billing_usageevent GROUP BY 1"
            ).fetchall()
            spent = connection.execute("SELECT organization_id, spent FROM billing_budget").fetchall()
        charged = {organization: charge for organization, _, charge in rows}
        count = sum(number for _, number, _ in rows)
        if count != self._shipped:
            raise BenchError(f"{self._shipped} requests were answered, but {count} are on the books.")
        if any(amount != charged.get(organization, 0) for organization, amount in spent):
            raise BenchError("What budgets have spent is not what requests were charged.")
        return count, sum(charged.values(), Decimal(0))

    def machine(self) -> dict[str, object]:
        """On what it was measured."""
        return {
            "cores": os.cpu_count(),
            "pinning": str(self._cores),
            "system": " ".join(os.uname()[::2]),
            "python": sys.version.split()[0],
            "load_average_before": round(self._load_average, 2),
            "floor": self.floor.name if self.floor else None,
        }

    def _start_server(self, profile: Path | None = None) -> None:
        self._server = self._programs.start(
            "server",
            peers.server_command(self._server_port, profile),
            self._cores.server,
            lambda: peers.answers(self._server_port, "/healthz"),
        )

    def _weir(self, workload: Workload, peer: str, key: str) -> Cell:
        """A cell of the gateway, with what its other programs used until every request was on the books."""
        roots = {"shipper": self._shipper, **self._databases}
        before = {name: measure.used([root]) for name, root in roots.items()}
        cell = self._cell(workload, peer, self._server_port, self._server, key)
        requests = cell.report.warm + cell.report.requests
        self._await_books(requests)
        for name, root in roots.items():
            use = measure.used([root]) - before[name]
            cell.beside[name] = use.cpu_seconds / requests * 1e6
        return cell

    def _cell(self, workload: Workload, peer: str, port: int, watched: int, key: str) -> Cell:
        report = self._load(workload, port, watched, key)
        if report.errors:
            words = f"\nThe server: {self._programs.last_words('server')}" if watched == self._server else ""
            raise BenchError(f"{workload.name}, {peer}: {'; '.join(report.errors)}{words}")
        return Cell(workload.name, peer, report, {})

    def _load(self, workload: Workload, port: int, watched: int, key: str) -> Report:
        order = Order(
            port=port,
            secret=self._secrets[key],
            body=workload.body(),
            connections=workload.connections,
            seconds=self._length.seconds,
            warm_seconds=self._length.warm_seconds,
            watch=[watched],
            rate=workload.rate,
            events=workload.events,
        )
        with peers.pinned(self._cores.load):
            done = subprocess.run(
                [sys.executable, "-m", "gateway.bench.load"],
                cwd=settings.BASE_DIR,
                input=json.dumps(asdict(order)),
                capture_output=True,
                text=True,
                check=False,
                timeout=LOAD_SECONDS,
            )
        if done.returncode != 0:
            raise BenchError(f"The load generator failed: {done.stderr.strip()[-500:]}")
        return Report(**json.loads(done.stdout))

    def _await_books(self, requests: int) -> None:
        """Wait until ``requests`` more are on the books. Raises BenchError."""
        self._shipped += requests
        deadline = time.monotonic() + DRAIN_SECONDS
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            while time.monotonic() < deadline:
                row = connection.execute("SELECT count(*) FROM billing_usageevent").fetchone()
                if row is not None and row[0] >= self._shipped:
                    return
                time.sleep(0.2)
        words = self._programs.last_words("ship")
        raise BenchError(f"The shipper did not bring every request to the books. {words}")

    def _once(self, what: str, *words: str) -> str:
        """Run a Python program to its end; returns what it printed."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=settings.BASE_DIR,
            env=self._programs.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"Preparing {what} failed:\n{done.stderr.strip()[-2000:]}")
        return done.stdout


@contextmanager
def prepared(data_dir: Path, length: Length) -> Iterator[Comparison]:
    """A comparison with all its programs running, on databases of its own in ``data_dir/bench``.

    They are removed at the end. Raises BenchError, PeerError, embedded.ServiceError.
    """
    directory = data_dir / "bench"
    load_average = os.getloadavg()[0]
    data_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        claim = stack.enter_context((data_dir / "bench.lock").open("ab"))
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"A bench is running in {data_dir} already.") from None
        # What a killed run left.
        clear(directory)
        directory.mkdir()
        stack.callback(clear, directory)
        with peers.pinned(peers.cores().rest):
            services = embedded.start(directory)
        stack.callback(services.release)
        environment = {
            **os.environ,
            "DATABASE_URL": services.database_url,
            "REDIS_URL": services.redis_url,
            "WEIR_DATA_DIR": str(directory),
            "WEB_CONCURRENCY": "1",
        }
        programs = stack.enter_context(Programs(directory, environment))
        with Redis.from_url(services.redis_url) as client:
            redis = int(client.info("server")["process_id"])
        postgres = int((directory / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
        comparison = Comparison(
            directory,
            programs,
            services.database_url,
            {"PostgreSQL": postgres, "Redis": redis},
            length,
            load_average,
        )
        comparison.start()
        yield comparison


def clear(directory: Path) -> None:
    """Remove ``directory`` and the sockets of its servers, which must not be in use."""
    if directory.exists() and not embedded.stop_unused(directory):
        raise BenchError(f"Somebody uses the servers in {directory}.")
    for name in ("postgres", "redis"):
        shutil.rmtree(embedded.socket_directory(directory, name), ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def compare(
    comparison: Comparison,
    say: Callable[[Workload, Sequence[Cell]], None],
    *,
    names: Sequence[str] = (),
    unlimited: bool = False,
) -> list[Cell]:
    """Put every workload (or those of ``names``) to every peer; ``say`` gets each as it is done."""
    found: list[Cell] = []
    for workload in WORKLOADS:
        if names and workload.name not in names:
            continue
        cells = list(comparison.cells(workload, unlimited=unlimited))
        say(workload, cells)
        found += cells
    return found


__all__ = ("FULL", "QUICK", "BenchError", "Comparison", "PeerError", "compare", "prepared")
