"""Signing in and the pages around it, in the console's own clothes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from tenants.models import User
from tests.cast import PASSWORD, Cast
from tests.console.conftest import SignIn

SIGNED_IN_PAGES = ["password/change/", "logout/", "email/", "2fa/", "sessions/"]


def test_signing_in_leads_to_the_organization(acme: Cast) -> None:
    client = Client()
    response = client.post(
        "/accounts/login/", {"login": "BOB@acme.example", "password": PASSWORD}, follow=True
    )
    assert response.redirect_chain[-1] == ("/o/acme/", 302)


@pytest.mark.parametrize("page", ["login/", "password/reset/", "password/reset/done/", "confirm-email/"])
def test_pages_of_strangers_have_the_consoles_look_and_nothing_inline(acme: Cast, page: str) -> None:
    response = Client().get(f"/accounts/{page}")
    html = response.content.decode()
    assert response.status_code == 200
    assert "css/console.css" in html
    assert "<style" not in html
    assert " style=" not in html


@pytest.mark.parametrize("page", SIGNED_IN_PAGES)
def test_pages_of_ones_account_have_the_consoles_look(acme: Cast, sign_in: SignIn, page: str) -> None:
    response = sign_in(acme.bob).get(f"/accounts/{page}")
    html = response.content.decode()
    assert response.status_code == 200
    assert "css/console.css" in html
    assert "Back to the console" in html


def test_a_forgotten_password_is_replaced_by_link(acme: Cast) -> None:
    client = Client()
    client.post("/accounts/password/reset/", {"email": "bob@acme.example"})
    found = re.search(r"http://\S+(/accounts/password/reset/key/\S+)", str(mail.outbox[0].body))
    assert found is not None
    form = client.get(found[1], follow=True)
    assert "css/console.css" in form.content.decode()
    chosen = {"password1": "another fine password", "password2": "another fine password"}
    client.post(form.redirect_chain[-1][0], chosen)
    assert Client().login(email="bob@acme.example", password="another fine password")


@pytest.mark.parametrize("mode", ["invited", "closed"])
def test_strangers_cannot_make_an_account_where_it_is_not_open(acme: Cast, settings: Any, mode: str) -> None:
    settings.SIGN_UP = mode
    html = Client().get("/accounts/login/").content.decode()
    assert "Accounts are made by your organization" in html
    assert "/accounts/signup/" not in html
    page = Client().post("/accounts/signup/", {"email": "eve@x.example", "password1": "a kettle of herons"})
    assert "Accounts come by invitation" in page.content.decode()
    assert not User.objects.filter(email="eve@x.example").exists()


def test_signing_out_everywhere_else_ends_the_other_browsers_and_not_this_one(acme: Cast) -> None:
    here, there = (
        Client(headers={"user-agent": agent})
        for agent in (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
        )
    )
    for browser in (here, there):
        entered = browser.post("/accounts/login/", {"login": acme.ann.user.email, "password": PASSWORD})
        assert entered.status_code == 302
    shown = here.get("/accounts/sessions/").content.decode()
    assert shown.index("Safari on macOS") < shown.index("Firefox on Windows")
    here.post("/accounts/sessions/")
    assert there.get("/o/acme/").status_code == 302
    assert here.get("/o/acme/").status_code == 200
