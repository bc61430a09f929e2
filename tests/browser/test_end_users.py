"""End users and the trial of a request, as a person meets them in a browser, with and without JavaScript."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from django_scopes import scope

from billing.models import BlockedEndUser, Quota
from routing.models import ModelGroup
from tests.billing.made_usage import rollup
from tests.browser.conftest import Browse
from tests.browser.test_console import sign_in
from tests.cast import Cast, make_cast

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def cast(committed: None, slug: str) -> Cast:
    """A cast, of whose end users two asked in this hour."""
    made = make_cast(slug)
    hour = f"{datetime.now(UTC):%Y-%m-%dT%H:00}"
    rollup(made.search_key, hour, "1.25", end_user="customer/42 & co")
    rollup(made.search_key, hour, "2.50", end_user="customer-7")
    return made


@pytest.mark.parametrize("javascript", [True, False])
def test_an_end_user_is_found_limited_and_blocked(cast: Cast, browse: Browse, javascript: bool) -> None:
    name = "customer/42 & co"

    def visit(page: Page) -> tuple[str, str, str]:
        sign_in(page, cast.ann.user.email)
        page.get_by_role("link", name="End users").click()
        page.get_by_label("Search end users").fill("42 & c")
        if not javascript:
            page.get_by_role("button", name="Apply").click()
        page.get_by_role("link", name="customer-7").wait_for(state="detached")
        # What was typed holds in another period, too.
        page.get_by_role("link", name="30 days").click()
        page.wait_for_url("**q=42*")
        page.get_by_role("link", name=name).click()
        page.get_by_role("link", name="Set limits of their own").click()
        page.get_by_label("Budget a day").fill("0.75")
        page.get_by_role("button", name="Save limits").click()
        page.get_by_text(f"Saved the limits of {name}").wait_for()
        limits = page.locator("#limits").inner_text()
        page.get_by_label("Reason").fill("Script")
        page.get_by_role("button", name="Block this end user").click()
        page.get_by_text("Every request for this end user is refused").wait_for()
        blocked = page.locator(".note.bad").inner_text()
        page.get_by_role("button", name="Unblock").click()
        page.get_by_role("button", name="Block this end user").wait_for()
        page.get_by_role("button", name="Back to the default").click()
        page.get_by_text(f"The default limits bind {name} again").wait_for()
        return limits, blocked, page.locator("h1").inner_text()

    limits, blocked, heading = browse(visit, javascript=javascript)
    assert "$0.75 a day" in " ".join(limits.split())
    assert f"by {cast.ann.user.email}: Script" in blocked
    assert heading == name
    with scope(organization=cast.organization):
        assert not BlockedEndUser.objects.exists()
        assert not Quota.objects.exists()


@pytest.mark.parametrize("javascript", [True, False])
def test_a_request_is_tried_without_its_text_in_the_address(
    cast: Cast, browse: Browse, javascript: bool, slug: str
) -> None:
    # Without a deployment: nobody would be asked.
    ModelGroup.objects.get_or_create(name=f"none-{slug[-6:]}")

    def visit(page: Page) -> tuple[str, str]:
        sign_in(page, cast.ann.user.email)
        page.goto(f"/o/{cast.organization.slug}/quotas/")
        page.get_by_role("link", name="Would this request pass?").click()
        page.get_by_label("Model").select_option(label=f"none-{slug[-6:]}")
        page.get_by_label("A text in place").fill("one two three")
        if not javascript:
            page.get_by_role("button", name="Try it").click()
        page.get_by_text("no_deployment").wait_for()
        return page.url, page.locator("#answer").inner_text()

    address, answer = browse(visit, javascript=javascript)
    assert "It would be refused." in answer
    # Without JavaScript the form leads to the answer below it.
    assert address.removesuffix("#answer").endswith("/quotas/trial/")
