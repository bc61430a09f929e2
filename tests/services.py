"""A pytest plugin (``-p tests.services``): services and environment, before Django reads its settings.

Every pytest process, xdist workers included, takes a numbered slot by a file lock and from it a
database name, a Redis database and a data directory of its own, so that runs side by side never meet.
With DATABASE_URL and REDIS_URL set from outside, those are used as they are.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import pytest
from redis import Redis

from gateway import embedded
from gateway.embedded import postgres, redis

ROOT = Path(__file__).resolve().parent.parent / "var" / "test"
SLOTS = redis.DATABASES - 1


def take_slot() -> tuple[int, BinaryIO]:
    """A number from 1 that no running pytest process holds, and the open file that keeps it."""
    (ROOT / "slots").mkdir(parents=True, exist_ok=True)
    for number in range(1, SLOTS + 1):
        handle = (ROOT / "slots" / str(number)).open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            continue
        return number, handle
    raise pytest.UsageError("Too many test runs at once.")


slot, _slot_lock = take_slot()
_data_dir = ROOT / f"run{slot}"
shutil.rmtree(_data_dir, ignore_errors=True)
_data_dir.mkdir()

# A worker of xdist inherits the controller's addresses; those are embedded if this variable says so.
_ours = set(filter(None, os.environ.get("WEIR_TEST_EMBEDDED", "").split(",")))
for _variable in _ours:
    os.environ.pop(_variable, None)
_ours = {name for name in ("DATABASE_URL", "REDIS_URL") if not os.environ.get(name)}
os.environ["WEIR_TEST_EMBEDDED"] = ",".join(_ours)
_services = embedded.ensure_environment(ROOT, durable=False)
if _services is not None and "DATABASE_URL" in _ours:
    os.environ["DATABASE_URL"] = postgres.url(
        embedded.socket_directory(ROOT, "postgres"), f"{postgres.DATABASE}_{slot}"
    )
if _services is not None and "REDIS_URL" in _ours:
    os.environ["REDIS_URL"] = redis.url(embedded.socket_directory(ROOT, "redis"), slot)
    with Redis.from_url(os.environ["REDIS_URL"]) as _client:
        _client.flushdb()

os.environ["WEIR_DATA_DIR"] = str(_data_dir)
# Tests start hundreds of Python processes, and without bytecode each of them compiles the whole project.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["DJANGO_SETTINGS_MODULE"] = "gateway.settings"


def pytest_unconfigure() -> None:
    """Let the servers go; the last run stops them."""
    if _services is not None:
        _services.release()
