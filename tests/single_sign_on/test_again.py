"""People whom a provider signs in prove there once more who they are, before they do what is dangerous."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.test import Client

from gateway.confirmation import FIELD
from tenants.models import Membership, User
from tests.cast import Cast
from tests.signed_in import signed_in
from tests.single_sign_on.conftest import come, person, said
from tests.single_sign_on.provider import CLIENT_ID, SECRET, LittleProvider

pytestmark = pytest.mark.django_db
NINA = {"sub": "u-9", "email": "nina@acme.example", "email_verified": True, "name": "Nina Novak"}
ADD = "/o/acme/members/add/"
OWNER = {"email": "new@acme.example", "role": "owner"}
# Older than CONFIRMATION_MINUTES and what clocks may be apart.
OLD = 15 * 60 + 120


@pytest.fixture
def nina(acme: Cast, idp: LittleProvider) -> Client:
    """The browser of an owner who has no password and came through the provider, which did not say when."""
    idp.person = dict(NINA)
    client = Client()
    come(client, idp)
    Membership.objects.filter(user__email="nina@acme.example").update(role="owner")
    return client


def asked(client: Client) -> str:
    """Ask for a dangerous act; the address where it waits until one has proved who one is."""
    there = urlsplit(client.post(ADD, OWNER).headers["Location"])
    assert there.path == "/confirm/"
    return parse_qs(there.query)["next"][0]


def again(client: Client, idp: LittleProvider, there: str) -> Any:
    """Follow the page's link to the provider and come back from it."""
    page = said(client.get("/confirm/", {"next": there}))
    (link,) = [part.split('"')[0] for part in page.split('href="') if part.startswith("/sign-in/acme/start/")]
    start = client.get(link.replace("&amp;", "&"))
    sent = parse_qs(urlsplit(start.headers["Location"]).query)
    assert (sent["prompt"], sent["max_age"]) == (["login"], ["900"])
    back = urlsplit(idp.authorize(start.headers["Location"]))
    return client.get(f"{back.path}?{back.query}")


def is_made() -> bool:
    return Membership.objects.filter(user__email="new@acme.example", role="owner").exists()


def test_the_provider_is_told_to_ask_and_then_it_goes_on(nina: Client, idp: LittleProvider) -> None:
    there = asked(nina)
    assert again(nina, idp, there).headers["Location"] == there
    name = parse_qs(urlsplit(there).query)[FIELD][0]
    assert not is_made()
    nina.post(ADD, {FIELD: name})
    assert is_made()


def test_a_provider_that_did_not_ask_proves_nothing(nina: Client, idp: LittleProvider) -> None:
    there = asked(nina)
    idp.claims = {"auth_time": int(time.time()) - OLD}
    answer = again(nina, idp, there)
    assert (answer.status_code, "did not ask you to sign in anew" in said(answer)) == (403, True)
    assert nina.get(there).headers["Location"].startswith("/confirm/")


def test_a_sign_in_that_the_provider_says_was_now_counts(nina: Client, idp: LittleProvider) -> None:
    idp.claims = {"auth_time": int(time.time())}
    come(nina, idp)
    nina.post(ADD, OWNER)
    assert is_made()


@pytest.mark.parametrize("at", [None, True, "now"])
def test_a_sign_in_without_a_time_may_have_asked_nothing(nina: Client, idp: LittleProvider, at: Any) -> None:
    idp.claims = {"auth_time": at}
    come(nina, idp)
    asked(nina)


def test_an_old_session_at_the_provider_does_not_count(nina: Client, idp: LittleProvider) -> None:
    idp.claims = {"auth_time": int(time.time()) - OLD}
    come(nina, idp)
    asked(nina)


def test_somebody_else_proves_nothing_and_is_not_let_in(nina: Client, idp: LittleProvider) -> None:
    there, who, people = asked(nina), person(nina), User.objects.count()
    idp.person = {"sub": "u-10", "email": "nora@acme.example", "email_verified": True}
    answer = again(nina, idp, there)
    assert (answer.status_code, "somebody else" in said(answer)) == (403, True)
    assert (person(nina), User.objects.count()) == (who, people)
    assert nina.get(there).headers["Location"].startswith("/confirm/")


def test_who_has_a_password_too_may_choose(acme: Cast, idp: LittleProvider) -> None:
    # Else nobody knows whose password it is, and the first arrival drops it.
    EmailAddress.objects.create(user=acme.ann.user, email=acme.ann.user.email, verified=True, primary=True)
    client = signed_in(acme.ann.user, OLD)
    come(client, idp)
    there = urlsplit(client.post(ADD, OWNER).headers["Location"])
    assert there.path == "/accounts/reauthenticate/"
    assert "/confirm/?next=" in said(client.get(f"{there.path}?{there.query}"))


def test_a_stranger_cannot_use_it_to_come_in(acme: Cast, idp: LittleProvider, client: Client) -> None:
    start = client.get("/sign-in/acme/start/", {"again": "1"})
    # For nobody there is nothing to prove again: an ordinary sign-in.
    assert "prompt" not in parse_qs(urlsplit(start.headers["Location"]).query)
    assert client.get("/confirm/").headers["Location"].startswith("/accounts/login/")


def test_at_a_provider_of_the_whole_gateway_too(acme: Cast, idp: LittleProvider, settings: Any) -> None:
    app = {
        "provider_id": "staff",
        "name": "Staff",
        "client_id": CLIENT_ID,
        "secret": SECRET,
        "settings": {"server_url": idp.issuer, "oauth_pkce_enabled": True},
    }
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [app]}}
    user = acme.ann.user
    user.set_unusable_password()
    user.save(update_fields=["password"])
    SocialAccount.objects.create(user=user, provider="staff", uid="u-1")
    client = signed_in(user, OLD)
    there = asked(client)
    page = said(client.get("/confirm/", {"next": there}))
    (link,) = [part.split('"')[0] for part in page.split('href="') if part.startswith("/accounts/oidc/")]
    start = client.post(f"{link.replace('&amp;', '&')}%26nonce%3Dn")
    sent = parse_qs(urlsplit(start.headers["Location"]).query)
    assert sent["prompt"] == ["login"]
    back = urlsplit(idp.authorize(start.headers["Location"]))
    assert client.get(f"{back.path}?{back.query}").headers["Location"] == there
    assert client.get(there).status_code == 200
