"""Fixtures for all tests. The services are started by ``tests/services.py``, loaded before this."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

if TYPE_CHECKING:
    from tests.stack import Stack


# Tests with one of these fixtures write for other processes to see, in a copy of the database that
# the others never see: one for the whole stack, whose books must balance, one for all else.
COPIES = {"stack": "stack", "own_stack": "stack", "committed": "committed"}
# Those that start programs, one way or another.
PROGRAMS = {*COPIES, "simulator", "chromium"}


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, since a third of the time tests wait for programs."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first, then those that start programs, so that no process ends long after the
    others."""
    slow, started = set(), set()
    for item in items:
        if item.get_closest_marker("slow"):
            slow.add(item.path)
        if PROGRAMS.intersection(getattr(item, "fixturenames", ())):
            started.add(item.path)
    items.sort(key=lambda item: (item.path not in slow, item.path not in started))


@pytest.fixture(scope="session", autouse=True)
def _quick_passwords() -> None:
    settings.PASSWORD_HASHERS = ["tests.hashers.QuickPBKDF2"]


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database, which every test leaves empty, and copies of it for what is committed."""
    from django.test.utils import setup_databases, teardown_databases

    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, aliases=["default"], serialized_aliases=[])  # type: ignore[arg-type]  # the stub wants a mapping
        name = connection.settings_dict["NAME"]
        connection.close()
        for copy in set(COPIES.values()):
            _maintain(f'DROP DATABASE IF EXISTS "{name}_{copy}" WITH (FORCE)')
            _maintain(f'CREATE DATABASE "{name}_{copy}" TEMPLATE "{name}"')
    yield
    with django_db_blocker.unblock():
        connection.close()
        for copy in set(COPIES.values()):
            _maintain(f'DROP DATABASE "{name}_{copy}" WITH (FORCE)')
        teardown_databases(made, verbosity=0)


def _maintain(statement: str) -> None:
    with connection._nodb_cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def committing(blocker: DjangoDbBlocker, copy: str) -> Iterator[None]:
    """Work on a copy of the database, in which changes stay."""
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = f"{name}_{copy}"
    try:
        with blocker.unblock():
            yield
            connection.close()
    finally:
        connection.settings_dict["NAME"] = name


@pytest.fixture(autouse=True)
def _committing(request: pytest.FixtureRequest) -> Iterator[None]:
    copy = next((copy for name, copy in COPIES.items() if name in request.fixturenames), None)
    if copy is None or request.node.get_closest_marker("django_db"):
        yield
    else:
        # Only now: a test without a database sets none up.
        request.getfixturevalue("django_db_setup")
        with committing(request.getfixturevalue("django_db_blocker"), copy):
            yield


@pytest.fixture
def slug(request: pytest.FixtureRequest) -> str:
    """A name for an organization of this test alone."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:40].strip("-")
    return f"{name}-{uuid4().hex[:6]}"


@pytest.fixture
def committed(_committing: None) -> None:
    """The database without a transaction around the test: what is written is seen by other processes.

    Nothing is undone, so such a test works in an organization of its own (``slug``).
    """


@pytest.fixture(scope="session")
def stack(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The whole of Weir as processes: simulator, two server workers, shipper."""
    # Imports models, so it waits for Django.
    from tests.stack import running_stack

    processes = running_stack(tmp_path_factory.mktemp("stack"))
    with committing(django_db_blocker, COPIES["stack"]):
        running = processes.__enter__()
    yield running
    with committing(django_db_blocker, COPIES["stack"]):
        processes.__exit__(None, None, None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is. Without one the tests are skipped, or fail if WEIR_REQUIRE_BROWSER is 1."""
    # A command of Django's, so it waits for Django.
    from gateway.management.commands.shots import CHROMIUM

    if Path(CHROMIUM).exists():
        return CHROMIUM
    words = f"There is no Chromium at {CHROMIUM}."
    if os.environ.get("WEIR_REQUIRE_BROWSER") == "1":
        pytest.fail(words)
    pytest.skip(words)
