"""``manage.py up``: the whole gateway with one command, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from billing import database_role
from gateway import embedded
from gateway.processes import gateway_children, manage, simulator_child
from gateway.supervisor import Supervisor

READY_SECONDS = 90.0
SIMULATOR_PORT = 8100
MODEL_PORT = 8300
COLOURS = {"server": 36, "ship": 33, "worker": 35, "beat": 34, "simulator": 32, "smollm2": 32, "weir": 1}


class Command(BaseCommand):
    """Prepare the database, start every part, say where it is, keep it running."""

    # Run in handle(), after the port was found free.
    requires_system_checks = []
    help = "Run everything: the server, the shipper, Celery, and in demo mode a simulated provider."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
        parser.add_argument("--workers", type=int, default=1, help="server processes (default: %(default)s)")
        parser.add_argument("--data-dir", help="journal, embedded services, secrets (default: var/)")
        parser.add_argument("--no-demo", action="store_true", help="no simulated provider, no demo tenant")
        parser.add_argument("--model", choices=["smollm2"], help="also run this small real model")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run until stopped. Raises ``CommandError`` if a port is taken or nothing becomes ready."""
        host, port = options["host"], options["port"]
        if options["workers"] < 1:
            raise CommandError("--workers must be at least 1.")
        if not 1 <= port <= 65535:
            raise CommandError("--port must be from 1 to 65535.")
        check_free(host, port)
        self.claim(settings.WEIR_DATA_DIR)
        self.check()
        # The default ends the process without the clean-up below.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        services = None
        try:
            if settings.DEBUG:
                services = embedded.ensure_environment(settings.WEIR_DATA_DIR)
            self.serve(host, port, options["workers"], demo=not options["no_demo"], model=options["model"])
        except embedded.ServiceError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            # Short, and not to be cut.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if services is not None:
                services.release()
        with contextlib.suppress(OSError):
            self.stdout.write("Weir has stopped.")

    def serve(self, host: str, port: int, workers: int, *, demo: bool, model: str | None) -> None:
        """Prepare the database, run the children until asked to stop."""
        reachable = "127.0.0.1" if host in {"0.0.0.0", "::", ""} else host  # noqa: S104 - a comparison
        base_url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
        os.environ.setdefault("PUBLIC_URL", base_url)

        # In processes of their own: this one read its settings before the services had addresses.
        self.prepare("the database", "migrate", "--no-input", "--verbosity", "0")
        if settings.DEBUG:
            # Made by the migration above; elsewhere the operator decides.
            os.environ.setdefault("DATABASE_ROLE", database_role.ROLE)
        if not settings.DEBUG:
            self.prepare("static files", "collectstatic", "--no-input", "--verbosity", "0")

        children = gateway_children(host, port, workers)
        demo_options = ["--base-url", base_url]
        if demo:
            simulator_port = free_port(SIMULATOR_PORT)
            children.append(simulator_child(simulator_port))
            demo_options += ["--simulator-url", f"http://127.0.0.1:{simulator_port}"]
        if model:
            model_port = free_port(MODEL_PORT)
            children.append(manage(model, model, "--port", str(model_port), stage=3))
            demo_options += [f"--{model}-url", f"http://127.0.0.1:{model_port}"]
        summary = self.prepare("the demo", "demo", *demo_options) if demo else ""
        if settings.SIGN_UP_PLAN:
            self.prepare("the settings", "check", "--database", "default")

        printer = Printer({child.name for child in children})
        supervisor = Supervisor(
            children, data_dir=settings.WEIR_DATA_DIR, directory=settings.BASE_DIR, say=printer.say
        )
        printer.when_closed = supervisor.stop

        async def ready() -> bool:
            if not await answers(f"{base_url}/healthz"):
                printer.say("weir", f"not ready after {READY_SECONDS:g} s; the lines above say why")
                return False
            printer.box(base_url, summary)
            return True

        if not asyncio.run(supervisor.run(ready)):
            raise CommandError("Weir did not start.")

    def claim(self, data_dir: Path) -> None:
        """Take the data directory for this process. Raises ``CommandError`` if it is taken."""
        data_dir.mkdir(parents=True, exist_ok=True)
        self.claimed = (data_dir / "up.lock").open("ab")
        try:
            fcntl.flock(self.claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                f"Weir is running in {data_dir} already. Choose another with --data-dir, or stop that one."
            ) from error

    def prepare(self, what: str, *command: str) -> str:
        """Run a management command to its end. Returns what it printed; raises ``CommandError``."""
        self.stdout.write(f"Preparing {what} ...")
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=settings.BASE_DIR,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(f"Preparing {what} failed; the lines above say why.\n{done.stdout}".rstrip())
        return done.stdout


def check_free(host: str, port: int) -> None:
    """Raise ``CommandError`` unless a server can listen on ``host`` and ``port``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on {host} port {port}: {error.strerror}."
            + (f" Choose another: make run PORT={port + 1}" if error.errno == errno.EADDRINUSE else "")
        ) from error


def free_port(preferred: int) -> int:
    """``preferred``, so that addresses stay the same from run to run, or any free port."""
    try:
        check_free("127.0.0.1", preferred)
    except CommandError:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    return preferred


async def answers(url: str) -> bool:
    """Whether ``url`` answers 200 within ``READY_SECONDS``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(url)).status_code == 200:
                        return True
                await asyncio.sleep(0.2)
    return False


class Printer:
    """Writes the children's lines, each with its child's name before it."""

    def __init__(self, names: set[str]) -> None:
        self.width = max(len(name) for name in names | {"weir"})
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.when_closed: Callable[[], None] = lambda: None

    def say(self, name: str, line: str) -> None:
        """Write one line of the child ``name``."""
        label = f"{name:<{self.width}} |"
        if self.colour:
            label = f"\x1b[{COLOURS.get(name, 0)}m{label}\x1b[0m"
        self.write(f"{label} {line}")

    def box(self, base_url: str, summary: str) -> None:
        """Write where the gateway is and how to use it."""
        rule = "=" * min(100, shutil.get_terminal_size().columns)
        summary = summary.rstrip() or f"Console   {base_url}/\nAPI       {base_url}/v1"
        lines = [
            "Weir is ready.",
            *(f"  {line}" for line in summary.splitlines()),
            "Ctrl-C stops everything.",
        ]
        self.write("\n".join(["", rule, *lines, rule, ""]))

    def write(self, text: str) -> None:
        """Write to standard output; whoever reads it may be gone, which is a wish to stop."""
        try:
            print(text, flush=True)  # noqa: T201 - the terminal is where this belongs
        except OSError:
            self.when_closed()
