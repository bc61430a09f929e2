"""The embedded PostgreSQL and Redis: started, shared, stopped by the last user, recovered after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import environ
import psycopg
import pytest
from django.db.backends.postgresql.base import DatabaseWrapper
from redis import Redis

from gateway import embedded
from gateway.embedded import Services, place

ROOT = Path(__file__).resolve().parent.parent
USER_PROGRAM = """
import sys
from pathlib import Path
from gateway import embedded
services = embedded.start(Path(sys.argv[1]), durable=False)
print("ready", flush=True)
sys.stdin.read()
services.release()
"""


class Servers:
    """Starts servers under one directory and leaves none behind."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.holds: list[Services] = []

    def start(self, *, durable: bool = False) -> Services:
        services = embedded.start(self.data_dir, durable=durable)
        self.holds.append(services)
        return services

    def other_user(self) -> subprocess.Popen[str]:
        """Another process that uses the same servers until its standard input closes."""
        return subprocess.Popen(
            [sys.executable, "-c", USER_PROGRAM, str(self.data_dir)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def postgres_pid(self) -> int:
        return int((self.data_dir / "postgres" / "postmaster.pid").read_text().split("\n")[0])

    def redis_pid(self) -> int:
        return int(redis_of(self.holds[-1]).info("server")["process_id"])

    def close(self) -> None:
        for services in self.holds:
            services.release()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path / "var")
    yield made
    made.close()


def redis_of(services: Services) -> Redis:
    return Redis.from_url(services.redis_url)


def gone(pid: int) -> bool:
    """Whether a process ended; one that waits for its parent to notice has ended."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return not state or state.startswith("Z")


def wait_gone(*pids: int) -> None:
    deadline = time.monotonic() + 60
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process is still there"
        time.sleep(0.02)


def test_both_servers_answer_and_the_database_exists(servers: Servers) -> None:
    services = servers.start()
    with psycopg.connect(services.database_url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("weir",)
    assert redis_of(services).set("word", "weir") is True


def test_the_address_is_one_django_can_use(servers: Servers) -> None:
    services = servers.start()
    config = environ.Env.db_url_config(services.database_url)
    wrapper = DatabaseWrapper(
        {
            "ENGINE": "django.db.backends.postgresql",
            "TIME_ZONE": None,
            "CONN_MAX_AGE": 0,
            "CONN_HEALTH_CHECKS": False,
            "AUTOCOMMIT": True,
            "OPTIONS": {},
            **config,
        }
    )
    with psycopg.connect(**wrapper.get_connection_params() | {"cursor_factory": None, "context": None}) as db:
        assert db.info.dbname == "weir"


def test_a_second_user_attaches_and_the_last_one_stops_the_servers(servers: Servers) -> None:
    first = servers.start()
    pids = servers.postgres_pid(), servers.redis_pid()
    second = servers.start()
    assert (servers.postgres_pid(), servers.redis_pid()) == pids
    assert first.release() is False
    assert redis_of(second).ping() is True
    assert second.release() is True
    wait_gone(*pids)


def test_servers_without_a_user_can_be_stopped(servers: Servers) -> None:
    servers.start()
    pid = servers.postgres_pid()
    assert embedded.stop_unused(servers.data_dir) is False
    servers.holds[-1]._users.close()  # as a kill would leave it
    assert embedded.stop_unused(servers.data_dir) is True
    wait_gone(pid)


def test_releasing_twice_is_harmless(servers: Servers) -> None:
    first, second = servers.start(), servers.start()
    assert first.release() is False
    assert first.release() is False
    assert redis_of(second).ping() is True


def test_processes_that_start_together_share_one_server(servers: Servers) -> None:
    users = [servers.other_user() for _ in range(3)]
    for user in users:
        assert user.stdout is not None
        assert user.stdout.readline() == "ready\n"
    pid = servers.postgres_pid()
    for user in users:
        user.communicate(timeout=60)
        assert user.returncode == 0
    wait_gone(pid)


def test_a_killed_user_is_not_counted(servers: Servers) -> None:
    services = servers.start()
    pid = servers.postgres_pid()
    user = servers.other_user()
    assert user.stdout is not None
    assert user.stdout.readline() == "ready\n"
    user.kill()
    user.communicate()
    assert services.release() is True
    wait_gone(pid)


def test_after_everything_was_killed_the_data_is_still_there(servers: Servers) -> None:
    services = servers.start(durable=True)
    with psycopg.connect(services.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    redis_of(services).set("kept", "42")
    pids = servers.postgres_pid(), servers.redis_pid()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_gone(*pids)
    assert (servers.data_dir / "postgres" / "postmaster.pid").exists()

    again = servers.start(durable=True)
    with psycopg.connect(again.database_url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert redis_of(again).get("kept") == b"42"


def test_a_process_id_left_behind_may_belong_to_somebody_else(servers: Servers) -> None:
    servers.start()
    pid = servers.postgres_pid()
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    # A process of the user PostgreSQL runs as: PostgreSQL itself would take it for a server.
    owner = (servers.data_dir / "postgres").stat().st_uid
    other = subprocess.Popen(["sleep", "600"], user=owner if os.geteuid() == 0 else None)
    try:
        # The socket is elsewhere where the path of the data is too long for one.
        sockets = embedded.socket_directory(servers.data_dir, "postgres")
        for path in (servers.data_dir / "postgres" / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
            path.write_text(path.read_text().replace(str(pid), str(other.pid), 1))
        with psycopg.connect(servers.start().database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        other.kill()
        other.wait()


def test_a_setup_cut_short_is_done_again(servers: Servers) -> None:
    half = servers.data_dir / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with psycopg.connect(servers.start().database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not half.exists()


def test_two_data_directories_never_meet(tmp_path: Path) -> None:
    # The second path is too long for a socket, and has what URLs and shells trip over.
    one, two = Servers(tmp_path / "one"), Servers(tmp_path / ("Two, it's long & 50% " + "x" * 100))
    try:
        first, second = one.start(), two.start()
        with psycopg.connect(first.database_url) as a, psycopg.connect(second.database_url) as b:
            a.execute("CREATE TABLE mine (x int)")
            a.commit()
            assert a.execute("SELECT to_regclass('mine') IS NULL").fetchone() == (False,)
            assert b.execute("SELECT to_regclass('mine') IS NULL").fetchone() == (True,)
        redis_of(first).set("mine", "1")
        assert redis_of(second).get("mine") is None
        assert first.release() is True
        assert redis_of(second).ping() is True
    finally:
        one.close()
        two.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user run PostgreSQL")
def test_for_root_a_closed_directory_stays_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    servers = Servers(closed / "var")
    try:
        with psycopg.connect(servers.start().database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert closed.stat().st_mode & 0o777 == 0o700
        assert (servers.data_dir / "postgres").stat().st_uid != 0
    finally:
        servers.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_refused_in_words(tmp_path: Path) -> None:
    theirs = tmp_path / "var" / "redis"
    theirs.mkdir(parents=True)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(embedded.ServiceError, match="belongs to user"):
        embedded.start(tmp_path / "var", durable=False, wanted=frozenset({"redis"}))


def test_what_the_environment_names_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/weir")
    monkeypatch.delenv("REDIS_URL", raising=False)
    services = embedded.ensure_environment(tmp_path / "var", durable=False)
    assert services is not None
    try:
        assert os.environ["DATABASE_URL"] == "postgresql://elsewhere/weir"
        assert Redis.from_url(os.environ["REDIS_URL"]).ping() is True
        assert not (tmp_path / "var" / "postgres").exists()
    finally:
        services.release()


def test_with_both_services_named_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/weir")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/0")
    assert embedded.ensure_environment(tmp_path / "var") is None
    assert not (tmp_path / "var").exists()


def test_a_socket_path_fits_every_system(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200)
    assert len(os.fsencode(place.socket_directory(deep, "postgres") / ".s.PGSQL.5432.lock")) <= 100
    assert place.socket_directory(deep, "redis") != place.socket_directory(tmp_path / "e", "redis")
