"""Who may open which page: every role against every page, strangers, other tenants."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from gateway.middleware import CONTENT_SECURITY_POLICY
from tenants.models import Membership
from tests.cast import Cast
from tests.console.conftest import SignIn

EVERYBODY = frozenset({"ann", "adam", "fay", "bob", "cleo", "vera"})
MANAGERS = frozenset({"ann", "adam"})
# Pages by who may open them. Bob is admin of the team search, Cleo a member of support.
PAGES = {
    "overview": EVERYBODY,
    "keys": EVERYBODY,
    "key_new": MANAGERS | {"bob", "cleo"},
    "quotas": EVERYBODY,
    "members": EVERYBODY,
    "roles": EVERYBODY,
    "audit": MANAGERS,
    "settings": MANAGERS,
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("person", sorted(EVERYBODY))
def test_a_page_opens_to_those_with_its_permission(
    acme: Cast, sign_in: SignIn, page: str, person: str
) -> None:
    member: Membership = getattr(acme, person)
    response = sign_in(member).get(reverse(f"console:{page}", args=["acme"]))
    assert response.status_code == (200 if person in PAGES[page] else 403)


# A page of one key of the team search, owned by Bob, by who may open it.
KEY_PAGES = {
    "key": MANAGERS | {"fay", "bob"},
    "key_edit": MANAGERS | {"bob"},
    "key_rotate": MANAGERS | {"bob"},
    "key_revoke": MANAGERS | {"bob"},
}


@pytest.mark.parametrize("page", KEY_PAGES)
@pytest.mark.parametrize("person", sorted(EVERYBODY))
def test_a_keys_pages_open_to_its_owner_and_those_who_manage_its_team(
    acme: Cast, sign_in: SignIn, page: str, person: str
) -> None:
    response = sign_in(getattr(acme, person)).get(
        reverse(f"console:{page}", args=["acme", acme.search_key.pk])
    )
    if person in KEY_PAGES[page]:
        expected = 200
    elif person == "fay" or (person == "vera" and page in {"key_edit", "key_rotate"}):
        # Finance sees the key but changes none; a viewer changes none, whichever it is.
        expected = 403
    else:
        # What one may not see does not exist.
        expected = 404
    assert response.status_code == expected


@pytest.mark.parametrize("page", [*PAGES, "member_add", "team_new"])
def test_another_organizations_pages_do_not_exist(
    acme: Cast, other: Cast, sign_in: SignIn, page: str
) -> None:
    response = sign_in(acme.ann).get(reverse(f"console:{page}", args=["other"]))
    assert response.status_code == 404


def test_a_stranger_is_led_to_the_sign_in_page_and_back(acme: Cast) -> None:
    response = Client().get("/o/acme/keys/")
    assert response.status_code == 302
    assert response["Location"] == "/accounts/login/?next=/o/acme/keys/"


def test_the_front_door_of_a_stranger_is_the_sign_in_page(acme: Cast) -> None:
    assert Client().get("/")["Location"].startswith("/accounts/login/")


def test_the_front_door_leads_into_the_only_organization(acme: Cast, sign_in: SignIn) -> None:
    assert sign_in(acme.vera).get("/")["Location"] == "/o/acme/"


def test_a_person_without_an_organization_is_told_what_to_do(
    acme: Cast, sign_in: SignIn, settings: Any
) -> None:
    settings.SIGN_UP = "invited"
    client = sign_in(acme.vera)
    acme.vera.delete()
    response = client.get("/")
    assert response.status_code == 200
    assert b"Ask your administrator to add this address" in response.content


def test_a_forbidden_page_says_which_role_one_has(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.vera).get(reverse("console:audit", args=["acme"]))
    assert response.status_code == 403
    assert b"Your role in Acme Ltd is viewer" in response.content


def test_the_navigation_shows_only_what_can_be_opened(acme: Cast, sign_in: SignIn) -> None:
    seen_by_viewer = sign_in(acme.vera).get("/o/acme/").content
    assert b'href="/o/acme/keys/"' in seen_by_viewer
    assert b'href="/o/acme/audit/"' not in seen_by_viewer
    assert b'href="/o/acme/audit/"' in sign_in(acme.adam).get("/o/acme/").content


def test_every_page_forbids_inline_script_and_style_and_has_none(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.ann)
    for page in PAGES:
        response = client.get(reverse(f"console:{page}", args=["acme"]))
        assert response["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        html = response.content.decode()
        assert " style=" not in html
        assert "<style" not in html
        assert " onclick=" not in html
        assert all("src=" in tag.split(">")[0] for tag in html.split("<script")[1:])


def test_a_page_is_kept_by_no_shared_cache(acme: Cast, sign_in: SignIn) -> None:
    assert sign_in(acme.ann).get("/o/acme/")["Cache-Control"] == "private, no-cache"
