"""A tenant with people in every role, and clients signed in as them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.test import Client
from django_scopes import scope

from routing.models import ModelGroup
from tenants.models import Membership
from tests.cast import Cast, make_cast
from tests.signed_in import signed_in

SignIn = Callable[[Membership], Client]


@pytest.fixture
def acme(db: None) -> Iterator[Cast]:
    """The organization of the test, with its scope entered for the test's own queries."""
    for name in ("fast", "quality"):
        ModelGroup.objects.create(name=name)
    cast = make_cast("acme", time_zone="Europe/Berlin")
    with scope(organization=cast.organization):
        yield cast


@pytest.fixture
def other(acme: Cast) -> Cast:
    """Another tenant."""
    return make_cast("other")


@pytest.fixture
def sign_in() -> SignIn:
    """A client signed in as a member."""

    def client_of(member: Membership) -> Client:
        return signed_in(member.user)

    return client_of
