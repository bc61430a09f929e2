"""A passkey of Chromium's virtual authenticator: added, signed in with, and asked for before danger."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import Browse
from tests.cast import PASSWORD, make_cast

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser]


def test_a_passkey_signs_in_without_the_password(
    browse: Browse, base_url: str, slug: str, settings: object
) -> None:
    cast = make_cast(slug)
    # Browsers know no passkeys of an address that is a number.
    base = f"http://localhost:{urlsplit(base_url).port}"

    def visit(page: Page) -> str:
        session = page.context.new_cdp_session(page)
        session.send("WebAuthn.enable")
        session.send(
            "WebAuthn.addVirtualAuthenticator",
            {
                "options": {
                    "protocol": "ctap2",
                    "transport": "internal",
                    "hasResidentKey": True,
                    "hasUserVerification": True,
                    "isUserVerified": True,
                    "automaticPresenceSimulation": True,
                }
            },
        )
        page.goto(f"{base}/accounts/login/")
        page.fill("[name=login]", cast.ann.user.email)
        page.fill("[name=password]", PASSWORD)
        page.click("main button[type=submit]:has-text('Sign in')")
        page.wait_for_url(f"{base}/o/{slug}/")
        # Whoever just signed in is not asked once more.
        page.goto(f"{base}/accounts/2fa/webauthn/add/")
        page.fill("[name=name]", "Laptop")
        page.check("[name=passwordless]")
        page.click("text=Add passkey")
        page.wait_for_url(lambda url: "/add/" not in url)
        page.goto(f"{base}/accounts/2fa/webauthn/")
        assert "Laptop" in page.inner_text("main")
        assert "Signs you in alone" in page.inner_text("main")
        page.context.clear_cookies()
        page.goto(f"{base}/accounts/login/")
        page.click("text=Sign in with a passkey")
        page.wait_for_url(f"{base}/o/{slug}/")
        # It also proves who one is before something dangerous.
        page.goto(f"{base}/accounts/2fa/webauthn/reauthenticate/?next=/o/{slug}/members/")
        page.click("text=Use a passkey")
        page.wait_for_url(f"{base}/o/{slug}/members/")
        return page.inner_text("h1")

    assert browse(visit)
