"""The whole of Weir as processes, for tests that call ``/v1`` as an app does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import zoneinfo
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
from django.conf import settings
from django.db import connection

from billing.services.prices import set_price
from billing.services.quotas import set_quota
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from tenants.models import ApiKey, Membership, Organization, Team
from tenants.permissions import Role
from tenants.services.keys import create_key
from tenants.services.members import add_member
from tenants.services.organizations import create_organization
from tenants.services.teams import create_team
from tests.cast import hashed_password
from tests.simulator.server import RunningSimulator, running_simulator, wait_until

ROOT = Path(__file__).resolve().parent.parent

# US dollars per million tokens, chosen so that sums are easy by hand.
COST: dict[str, Any] = {"input": Decimal("1.00"), "cached_input": Decimal("0.10"), "output": Decimal("4.00")}
PRICE: dict[str, Any] = {"input": Decimal("2.00"), "cached_input": Decimal("0.20"), "output": Decimal("8.00")}


@dataclass
class Tenant:
    """An organization with one team and one key, made for one test."""

    stack: Stack
    organization: Organization
    team: Team
    owner: Membership
    key: ApiKey
    secret: str

    def client(self, secret: str | None = None, **options: Any) -> openai.OpenAI:
        """The OpenAI SDK, unchanged but for its address and key; without its own retries."""
        return openai.OpenAI(
            base_url=f"{self.stack.url}/v1",
            api_key=secret or self.secret,
            **{"max_retries": 0, "timeout": 30, **options},
        )

    def http(self, secret: str | None = None) -> httpx.Client:
        """A plain HTTP client with the key."""
        return httpx.Client(
            base_url=self.stack.url, headers={"Authorization": f"Bearer {secret or self.secret}"}, timeout=30
        )


@dataclass
class Stack:
    """Running processes on one database. ``url`` has no path."""

    url: str
    data_dir: Path
    simulator: RunningSimulator
    environment: dict[str, str]
    workers: int
    server: subprocess.Popen[bytes] | None = None
    shipper: subprocess.Popen[bytes] | None = None
    groups: list[str] = field(default_factory=list)

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        port = self.url.rsplit(":", 1)[1]
        log = (self.data_dir / "server.log").open("ab")
        self.server = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "uvicorn",
                    "gateway.asgi:application",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    port,
                ),
                *("--workers", str(self.workers), "--no-access-log", "--log-level", "warning"),
                *("--timeout-graceful-shutdown", "5", "--timeout-worker-healthcheck", "30"),
            ],
            cwd=ROOT,
            env={**self.environment, "WEB_CONCURRENCY": str(self.workers)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        wait_until(self._answers, 60)

    def _answers(self) -> bool:
        assert self.server is not None
        assert self.server.poll() is None, (self.data_dir / "server.log").read_text()
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def start_shipper(self) -> None:
        """Start the journal shipper."""
        log = (self.data_dir / "shipper.log").open("ab")
        self.shipper = subprocess.Popen(
            [sys.executable, "manage.py", "ship"], cwd=ROOT, env=self.environment, stdout=log, stderr=log
        )

    def kill_server(self) -> None:
        """SIGKILL to the server and all its workers at once."""
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def stop(self) -> None:
        """End everything, the server first."""
        for process in (self.server, self.shipper):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def group(
        self, name: str, *models: str, price: dict[str, Any] | None = PRICE, **options: Any
    ) -> ModelGroup:
        """A model group over deployments of simulator models, priced unless ``price`` is None."""
        group = ModelGroup.objects.create(name=name, **options)
        for position, model in enumerate(models):
            deployment = self.deployment(f"{name}-{position}-{model}", model)
            GroupDeployment.objects.create(group=group, deployment=deployment, priority=position)
        if price is not None:
            set_price(acting_user=None, model_group=group, **price)
        return group

    def deployment(
        self, name: str, model: str, *, cost: dict[str, Any] | None = COST, provider: str = "simulator"
    ) -> Deployment:
        """A deployment of a simulator model, with a cost unless ``cost`` is None."""
        made = Deployment.objects.create(name=name, provider=Provider.objects.get(name=provider), model=model)
        if cost is not None:
            set_price(acting_user=None, deployment=made, **cost)
        return made

    def tenant(
        self, slug: str, *, quotas: Sequence[tuple[str, str, str, str]] = (), **organization: Any
    ) -> Tenant:
        """An organization of a test, whose owner has the password of ``tests/cast.py``.

        ``quotas`` are (scope, metric, limit, period).
        """
        org = create_organization(acting_user=None, slug=slug, name=slug, **organization)
        owner = add_member(acting_user=None, organization=org, email=f"owner@{slug}.example", role=Role.OWNER)
        owner.user.password = hashed_password(settings.PASSWORD_HASHERS[0])
        owner.user.save(update_fields=["password"])
        team = create_team(acting_user=None, organization=org, slug="team", name="Team")
        key, secret = create_key(acting_user=None, team=team, name="key", owner=owner)
        targets: dict[str, Any] = {
            "organization": org,
            "team": team,
            "key": key,
            "member": owner,
            "end_user": org,
        }
        for scope, metric, limit, period in quotas:
            set_quota(
                acting_user=None,
                scope=scope,
                target=targets[scope],
                metric=metric,
                limit=Decimal(limit),
                period=period,
            )
        return Tenant(self, org, team, owner, key, secret)

    def settled(self) -> None:
        """Wait until every request that began has ended and is shipped."""
        from django_scopes import scopes_disabled

        from billing.models import UsageEvent

        def shipped() -> bool:
            written = journaled(self.data_dir / "journal")
            if not written:
                return True
            with scopes_disabled():
                return UsageEvent.objects.filter(request_id__in=written).count() == len(written)

        wait_until(shipped)


def wait_for_workers() -> None:
    """Wait until every worker has read what is committed by now."""
    from gateway.v1.worker import CHANNEL, READ_AT

    # Of the time of day that the workers go by: they run on this machine.
    now = f"{READ_AT}{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"

    def read() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT application_name FROM pg_stat_activity"
                " WHERE datname = current_database() AND starts_with(application_name, %s)",
                [READ_AT],
            )
            return [name for (name,) in cursor.fetchall()]

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, 'tenants'), pg_notify(%s, 'routing')", [CHANNEL, CHANNEL])
    wait_until(lambda: min(read(), default="") > now)


def journaled(directory: Path) -> set[str]:
    """Ids of the requests in the segments still there."""
    import orjson

    found = set()
    for path in directory.glob("*.journal"):
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            continue
        for line in lines:
            found.add(orjson.loads(line[9:])["request_id"])
    return found


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment_for(data_dir: Path) -> dict[str, str]:
    """The environment of processes that share this test run's database."""
    address, _, query = os.environ["DATABASE_URL"].partition("?")
    address = address.rsplit("/", 1)[0] + "/" + connection.settings_dict["NAME"]
    return {
        **os.environ,
        "DATABASE_URL": f"{address}?{query}" if query else address,
        "WEIR_DATA_DIR": str(data_dir),
        # The secrets of this test process, or keys made here would mean nothing there.
        **_secrets(),
        "SHIP_INTERVAL_SECONDS": "0.02",
        # A test may write zones of its own there, whose midnight is near.
        "PYTHONTZPATH": os.pathsep.join((str(data_dir / "zones"), *zoneinfo.TZPATH)),
        # Longer than by default: what a test lets end in time does so also on a busy machine.
        "ABANDONED_SECONDS": "4",
        # As in production: whatever the programs do, they can do without changing the books.
        "DATABASE_ROLE": "weir_app",
    }


def _secrets() -> dict[str, str]:
    return {
        "SECRET_KEY": settings.SECRET_KEY,
        "API_KEY_PEPPER": settings.API_KEY_PEPPER,
        "CREDENTIAL_KEYS": ",".join(settings.CREDENTIAL_KEYS),
    }


@contextmanager
def running_stack(directory: Path, workers: int = 2) -> Iterator[Stack]:
    """Start simulator, server and shipper; stop them at the end."""
    data_dir = directory / "data"
    data_dir.mkdir()
    with running_simulator(directory / "simulator.jsonl") as simulator:
        stack = Stack(
            f"http://127.0.0.1:{free_port()}", data_dir, simulator, environment_for(data_dir), workers
        )
        # The console is on it too, and its forms are only taken from where it says it is.
        stack.environment["PUBLIC_URL"] = stack.url
        before = Provider.objects.filter(name="simulator").values_list("base_url", flat=True).first()
        if before is None:
            Provider.objects.create(
                name="simulator",
                kind="simulator",
                base_url=simulator.base_url,
                first_token_timeout=5,
                idle_timeout=5,
            )
            stack.group("sim-small", "sim-small")
            stack.group("sim-embed", "sim-embed")
        else:
            Provider.objects.filter(name="simulator").update(base_url=simulator.base_url)
        try:
            stack.start_server()
            stack.start_shipper()
            yield stack
        finally:
            stack.stop()
            if before is not None:
                # Another stack on this database goes on with its own simulator.
                Provider.objects.filter(name="simulator").update(base_url=before)
