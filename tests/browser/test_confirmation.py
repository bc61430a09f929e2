"""Long after the sign-in: a dangerous act asks for the password, and is done after it without filling in anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.conf import settings
from django_scopes import scopes_disabled

from tenants.models import Membership
from tests.browser.conftest import Browse
from tests.cast import PASSWORD, make_cast
from tests.signed_in import signed_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser]


@pytest.mark.parametrize("javascript", [True, False])
def test_an_owner_is_made_after_the_password(
    browse: Browse, base_url: str, slug: str, javascript: bool
) -> None:
    cast = make_cast(slug)
    session = signed_in(cast.ann.user, ago=3600).cookies[settings.SESSION_COOKIE_NAME].value

    def visit(page: Page) -> str:
        page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": base_url}])
        page.goto(f"/o/{slug}/members/")
        page.select_option(f"#role-{cast.bob.pk}", "owner")
        if not javascript:
            page.click(f"form[action$='/members/{cast.bob.pk}/role/'] button")
        page.fill("[name=password]", PASSWORD)
        page.click("main button:has-text('Confirm')")
        assert f"make {cast.bob.user.email} an owner" in page.inner_text("main")
        page.click("button:has-text('Go on')")
        page.wait_for_url(f"**/o/{slug}/members/")
        return page.inner_text("#toasts")

    assert "is owner now" in browse(visit, javascript=javascript)
    with scopes_disabled():
        assert Membership.objects.get(pk=cast.bob.pk).role == "owner"
