"""Two organizations, the first with a provider and a confirmed domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.cache import cache
from django.test import Client
from django_scopes import scopes_disabled

from gateway.models import SignInProvider
from gateway.single_sign_on.domains import claim_domain, confirm_domain
from gateway.single_sign_on.providers import save_provider
from tenants.models import Organization
from tests.cast import Cast, make_cast
from tests.single_sign_on.provider import CLIENT_ID, SECRET, LittleProvider


@pytest.fixture
def idp() -> Iterator[LittleProvider]:
    """A provider on a port of its own."""
    running = LittleProvider()
    yield running
    running.close()


@pytest.fixture
def everywhere() -> Iterator[None]:
    """Reads of all tenants' rows."""
    with scopes_disabled():
        yield


@pytest.fixture
def acme(db: None, everywhere: None, settings: Any, idp: LittleProvider) -> Cast:
    """acme, whose provider is ``idp`` and whose domain is acme.example."""
    settings.PUBLIC_URL = "http://testserver"
    settings.SIGN_UP = "invited"
    # The little provider is on this machine, without a certificate.
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    # What counts attempts outlives a test.
    cache.clear()
    cast = make_cast("acme")
    set_up(cast.organization, idp, "acme.example")
    return cast


@pytest.fixture
def other(acme: Cast) -> Cast:
    """Another tenant, without a provider."""
    return make_cast("other")


def set_up(organization: Organization, idp: LittleProvider, *domains: str) -> SignInProvider:
    """Give ``organization`` the provider ``idp`` and ``domains``, confirmed."""
    provider = save_provider(
        acting_user=None, organization=organization, issuer=idp.issuer, client_id=CLIENT_ID, secret=SECRET
    )
    for domain in domains:
        claim = claim_domain(acting_user=None, organization=organization, domain=domain)
        confirm_domain(acting_user=None, claim=claim)
    return provider


def come(client: Client, idp: LittleProvider, slug: str = "acme", wanted: str = "") -> Any:
    """The whole way of a browser through ``idp``; the answer to its return."""
    start = client.get(f"/sign-in/{slug}/start/", {"next": wanted} if wanted else {})
    if start.status_code != 302:
        return start
    back = urlsplit(idp.authorize(start.headers["Location"]))
    return client.get(f"{back.path}?{back.query}")


def person(client: Client) -> str:
    """The id of who is signed in; empty for nobody."""
    return str(client.session.get("_auth_user_id", ""))


def said(response: Any) -> str:
    """What a page says."""
    return " ".join(response.content.decode().split())
