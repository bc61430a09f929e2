"""Fixtures for all tests. The services are started by ``tests/services.py``, loaded before this."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from pytest_django.plugin import DjangoDbBlocker

if TYPE_CHECKING:
    from tests.stack import Stack


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database, made whether or not a test is marked: whole-stack tests use it without a mark."""
    from django.test.utils import setup_databases, teardown_databases

    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, aliases={"default"}, serialized_aliases=set())
    yield
    with django_db_blocker.unblock():
        teardown_databases(made, verbosity=0)


@pytest.fixture
def slug(request: pytest.FixtureRequest) -> str:
    """A name for an organization of this test alone."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:40].strip("-")
    return f"{name}-{uuid4().hex[:6]}"


@pytest.fixture
def committed(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The database without a transaction around the test: what is written is seen by other processes.

    Nothing is undone, so such a test works in an organization of its own (``slug``).
    """
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="session")
def stack(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The whole of Weir as processes: simulator, two server workers, shipper."""
    # Imports models, so it waits for Django.
    from tests.stack import running_stack

    with django_db_blocker.unblock(), running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
