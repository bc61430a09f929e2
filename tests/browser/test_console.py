"""The console as a person meets it: in a browser, with and without JavaScript."""

from __future__ import annotations

from decimal import Decimal
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.utils import timezone
from django_scopes import scope

from billing.models import Quota
from tenants.keys import digest
from tenants.models import ApiKey
from tests.billing.made_usage import event
from tests.browser.conftest import Browse
from tests.cast import PASSWORD, Cast, make_cast

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def cast(committed: None, slug: str) -> Cast:
    return make_cast(slug)


def sign_in(page: Page, email: str) -> None:
    page.goto("/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/o/**")


@pytest.mark.parametrize("javascript", [True, False])
def test_a_key_is_made_and_then_seen_in_the_list(cast: Cast, browse: Browse, javascript: bool) -> None:
    def visit(page: Page) -> tuple[str, str]:
        sign_in(page, cast.ann.user.email)
        page.get_by_role("link", name="Keys").first.click()
        page.get_by_role("link", name="New key").click()
        page.get_by_label("Name").fill("from-the-browser")
        page.get_by_label("Team").select_option(label="Search")
        page.get_by_role("button", name="Make key").click()
        secret = page.locator("#secret").inner_text()
        page.get_by_role("link", name="I have copied it").click()
        assert secret not in page.content()
        page.get_by_role("link", name="Keys").first.click()
        return secret, page.locator("#keys").inner_text()

    secret, listed = browse(visit, javascript=javascript)
    assert "from-the-browser" in listed
    with scope(organization=cast.organization):
        assert ApiKey.objects.get(name="from-the-browser").digest == digest(secret)


def test_the_copy_button_copies_the_secret(cast: Cast, browse: Browse) -> None:
    def visit(page: Page) -> tuple[str, str]:
        sign_in(page, cast.ann.user.email)
        page.goto(f"/o/{cast.organization.slug}/keys/new/")
        page.get_by_label("Name").fill("to-copy")
        page.get_by_role("button", name="Make key").click()
        page.get_by_role("button", name="Copy key").click()
        page.get_by_role("button", name="Copied").wait_for()
        copied: str = page.evaluate("navigator.clipboard.readText()")
        return page.locator("#secret").inner_text(), copied

    shown, copied = browse(visit)
    assert copied == shown


@pytest.mark.parametrize("javascript", [True, False])
def test_limits_are_edited_in_place(cast: Cast, browse: Browse, javascript: bool) -> None:
    def visit(page: Page) -> str:
        sign_in(page, cast.ann.user.email)
        page.goto(f"/o/{cast.organization.slug}/quotas/")
        if javascript:
            page.evaluate("window.samePage = true")
        page.get_by_role("link", name="Edit the limits of Search").click()
        page.get_by_label("Budget a month").fill("12.50")
        page.get_by_label("Requests a minute").fill("60")
        page.get_by_role("button", name="Save limits").click()
        page.get_by_text("Saved the limits of Search").wait_for()
        if javascript:
            assert page.evaluate("window.samePage") is True
        return page.locator(f"#team-{cast.search.pk}").inner_text()

    row = browse(visit, javascript=javascript)
    assert "60" in row
    assert "$12.50 a month" in row
    with scope(organization=cast.organization):
        limits = dict(Quota.objects.filter(team=cast.search).values_list("metric", "limit"))
    assert limits == {"requests_per_minute": Decimal(60), "budget": Decimal("12.5")}


def test_searching_filters_the_list_and_its_address_can_be_shared(cast: Cast, browse: Browse) -> None:
    def visit(page: Page) -> tuple[str, str]:
        sign_in(page, cast.ann.user.email)
        page.goto(f"/o/{cast.organization.slug}/keys/")
        page.get_by_label("Search keys").press_sequentially("support")
        page.get_by_role("link", name="search-backend").wait_for(state="detached")
        page.wait_for_url("**q=support**")
        page.reload()
        return page.get_by_label("Search keys").input_value(), page.locator("#keys").inner_text()

    typed, listed = browse(visit)
    assert typed == "support"
    assert "support-bot" in listed
    assert "search-backend" not in listed


def test_a_chosen_theme_is_kept(cast: Cast, browse: Browse) -> None:
    def visit(page: Page) -> tuple[str, str]:
        sign_in(page, cast.vera.user.email)
        page.get_by_label("Your account").click()
        button = page.get_by_role("button", name="Theme")
        button.click()
        button.click()
        page.reload()
        background: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        chosen: str = page.evaluate("document.documentElement.dataset.theme")
        return chosen, background

    assert browse(visit) == ("dark", "rgb(14, 17, 21)")


def test_the_sign_in_page_says_what_is_wrong(cast: Cast, browse: Browse) -> None:
    def visit(page: Page) -> str:
        page.goto("/accounts/login/")
        page.get_by_label("E-mail address").fill(cast.ann.user.email)
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in", exact=True).click()
        alert = page.get_by_role("alert")
        alert.wait_for()
        return alert.inner_text()

    assert "not correct" in browse(visit)


def test_a_wrong_limit_is_said_in_place_and_what_was_typed_stays(cast: Cast, browse: Browse) -> None:
    def visit(page: Page) -> tuple[str, str]:
        sign_in(page, cast.ann.user.email)
        page.goto(f"/o/{cast.organization.slug}/quotas/")
        page.evaluate("window.samePage = true")
        page.get_by_role("link", name="Edit the limits of Search").click()
        # The browser knows the step; the budgets' six places only the server.
        page.get_by_label("Budget a month").fill("0.1234567")
        page.get_by_role("button", name="Save limits").click()
        error = page.locator(".field.invalid .errorlist")
        error.wait_for()
        assert page.evaluate("window.samePage") is True
        return error.inner_text(), page.get_by_label("Budget a month").input_value()

    said, typed = browse(visit)
    assert "6 decimal places" in said
    assert typed == "0.1234567"


def test_a_live_list_shows_a_request_without_being_asked(cast: Cast, browse: Browse) -> None:
    name = f"req-{cast.organization.slug[-6:]}"

    def arrives() -> None:
        with scope(organization=cast.organization):
            event(cast.search_key, f"{timezone.now():%Y-%m-%dT%H:%M:%S}", name)
        connection.close()

    def visit(page: Page) -> None:
        sign_in(page, cast.ann.user.email)
        page.goto(f"/o/{cast.organization.slug}/requests/")
        page.get_by_role("link", name="Live").click()
        page.get_by_text("No requests").wait_for()
        # A thread of its own, as Django does not ask the database where Playwright runs.
        thread = Thread(target=arrives)
        thread.start()
        page.locator(f"#row-{name}").wait_for()
        thread.join()

    browse(visit)
