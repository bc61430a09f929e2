"""Guessing passwords: attempts are counted for an account and an address, over all processes."""

from __future__ import annotations

import httpx
import pytest
from django.test import Client

from tests.cast import PASSWORD, Cast
from tests.stack import Stack

TRIED_TOO_OFTEN = "Too many failed login attempts"


def attempt(url: str, email: str, password: str) -> str:
    """What the page says, asked over a connection of its own: either worker may answer."""
    with httpx.Client(base_url=url, headers={"Referer": url}, follow_redirects=True) as browser:
        browser.get("/accounts/login/").raise_for_status()
        form = {
            "login": email,
            "password": password,
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        return browser.post("/accounts/login/", data=form).text


def test_five_failures_lock_an_account_for_every_process(stack: Stack, slug: str) -> None:
    email = stack.tenant(slug).owner.user.email
    said = [attempt(stack.url, email, f"guess {number}") for number in range(6)]
    assert [TRIED_TOO_OFTEN in page for page in said] == [False] * 5 + [True]


@pytest.mark.django_db
def test_the_right_password_does_not_help_either_until_the_time_is_over(acme: Cast) -> None:
    def sign_in(email: str, password: str) -> bool:
        client = Client()
        client.post("/accounts/login/", {"login": email, "password": password})
        return "_auth_user_id" in client.session

    assert not any(sign_in("bob@acme.example", f"guess {number}") for number in range(5))
    assert not sign_in("bob@acme.example", PASSWORD)
    assert sign_in("cleo@acme.example", PASSWORD)


@pytest.mark.django_db
def test_whoever_asks_for_too_many_reset_mails_is_told_to_wait(acme: Cast) -> None:
    client = Client()
    for _ in range(30):
        answer = client.post("/accounts/password/reset/", {"email": "nobody@acme.example"})
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert "wait for five minutes" in answer.content.decode()
