"""PostgreSQL and Redis without an installation: both come in wheels and live under a data directory.

Every process that uses the servers holds a shared lock on ``services.users`` in the data directory;
whoever leaves last stops them. Such locks vanish with their process, so a killed user is never
counted. Start and stop are serialised by ``services.lock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gateway.embedded import postgres, redis
from gateway.embedded.place import ServiceError, socket_directory

__all__ = ["ServiceError", "Services", "ensure_environment", "socket_directory", "start", "stop_unused"]

ALL = frozenset({"postgres", "redis"})


@contextlib.contextmanager
def _one_at_a_time(data_dir: Path) -> Iterator[None]:
    """Hold the data directory's start-and-stop lock."""
    with (data_dir / "services.lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _stop_if_last(data_dir: Path, users: BinaryIO) -> bool:
    """Stop the servers unless somebody besides ``users`` holds them. Needs the start-and-stop lock."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    redis.stop(socket_directory(data_dir, "redis"))
    postgres.stop(data_dir / "postgres")
    return True


@dataclass
class Services:
    """A hold on the servers of one data directory. They run at least until ``release``."""

    data_dir: Path
    database_url: str
    redis_url: str
    _users: BinaryIO
    _pid: int = field(default_factory=os.getpid)

    def release(self) -> bool:
        """Let go. The last user stops the servers; True if that was this one.

        Harmless when called twice, or in a child that inherited the hold by a fork.
        """
        if self._users.closed or self._pid != os.getpid():
            return False
        with _one_at_a_time(self.data_dir), self._users:
            return _stop_if_last(self.data_dir, self._users)


def start(data_dir: Path, *, durable: bool = True, wanted: frozenset[str] = ALL) -> Services:
    """Start the servers of ``data_dir``, or attach to them if they run already.

    ``durable=False`` trades safety against a power cut for speed, for tests. ``wanted`` names the
    servers to start. Raises ``ServiceError`` with a sentence for the operator.
    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    sockets = {name: socket_directory(data_dir, name) for name in ALL}
    users = (data_dir / "services.users").open("ab")
    try:
        with _one_at_a_time(data_dir):
            fcntl.flock(users, fcntl.LOCK_SH)
            if "postgres" in wanted:
                postgres.start(data_dir / "postgres", sockets["postgres"], durable=durable)
            if "redis" in wanted:
                redis.start(data_dir / "redis", sockets["redis"], durable=durable)
    except BaseException:
        users.close()
        raise
    return Services(
        data_dir=data_dir,
        database_url=postgres.url(sockets["postgres"]),
        redis_url=redis.url(sockets["redis"]),
        _users=users,
    )


def stop_unused(data_dir: Path) -> bool:
    """Stop the servers that a killed process left without a user; True if nobody uses them."""
    if not (data_dir / "services.users").exists():
        return True
    with _one_at_a_time(data_dir), (data_dir / "services.users").open("ab") as users:
        return _stop_if_last(data_dir, users)


def ensure_environment(data_dir: Path, *, durable: bool = True) -> Services | None:
    """Start what the environment lacks and name it there, so that children inherit it.

    Sets ``DATABASE_URL`` and ``REDIS_URL`` where unset. None if both were set already.
    """
    wanted = frozenset(
        name
        for name, variable in (("postgres", "DATABASE_URL"), ("redis", "REDIS_URL"))
        if not os.environ.get(variable)
    )
    if not wanted:
        return None
    services = start(data_dir, durable=durable, wanted=wanted)
    if "postgres" in wanted:
        os.environ["DATABASE_URL"] = services.database_url
    if "redis" in wanted:
        os.environ["REDIS_URL"] = services.redis_url
    return services
