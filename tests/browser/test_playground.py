"""The playground in a browser, before a real gateway: its calls go to ``/v1`` of the running stack."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from django_scopes import scope

from tenants.models import ApiKey
from tests.browser.conftest import Browse
from tests.browser.test_console import sign_in
from tests.stack import Tenant
from tests.v1.conftest import events, tenant

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

__all__ = ("tenant",)
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def opened(page: Page, tenant: Tenant) -> None:
    """Open the playground; what it asks of /v1 goes to the stack."""

    def forward(route: Route) -> None:
        path = "/v1/" + route.request.url.split("/v1/", 1)[1]
        route.fulfill(response=route.fetch(url=tenant.stack.url + path))

    page.route("**/v1/**", forward)
    sign_in(page, tenant.owner.user.email)
    page.goto(f"/o/{tenant.organization.slug}/playground/")
    page.get_by_label("Model", exact=True).select_option("sim-small")


def test_an_answer_comes_with_what_the_books_charged(tenant: Tenant, browse: Browse) -> None:
    def visit(page: Page) -> tuple[str, str, str, str]:
        opened(page, tenant)
        page.get_by_label("Message").fill("Say hello")
        page.get_by_label("Message").press("Control+Enter")
        page.get_by_text("Answered.", exact=True).wait_for()
        page.locator("#figure-charge", has_text="$").wait_for()
        return (
            page.locator(".turn.assistant .turn-text").inner_text(),
            page.locator("#figure-charge").inner_text(),
            page.locator("#figure-deployment").inner_text(),
            page.content(),
        )

    text, charge, deployment, source = browse(visit)
    (event,) = events(tenant)
    assert text
    assert Decimal(charge.removeprefix("$")) == event.charge > 0
    assert deployment == event.deployment
    with scope(organization=tenant.organization):
        key = ApiKey.objects.get(playground=True)
    assert event.key_id == key.pk
    assert event.streamed
    assert key.prefix not in source


def test_a_refusal_is_shown_as_the_api_says_it(tenant: Tenant, browse: Browse) -> None:
    from billing.services.quotas import set_quota

    set_quota(
        acting_user=None,
        scope="organization",
        target=tenant.organization,
        metric="budget",
        limit=Decimal(0),
        period="month",
    )

    def visit(page: Page) -> str:
        opened(page, tenant)
        page.get_by_label("Message").fill("Say hello")
        page.get_by_role("button", name="Send").click()
        page.locator("#problem").wait_for()
        return page.locator("#problem").inner_text()

    said = browse(visit)
    assert "Status 429" in said
    assert "insufficient_quota" in said


def test_the_code_is_the_request_that_is_sent(tenant: Tenant, browse: Browse) -> None:
    def visit(page: Page) -> tuple[str, str]:
        opened(page, tenant)
        page.get_by_label("System").fill('Be "brief"')
        page.get_by_label("Message").fill("It's me")
        page.get_by_label("Temperature").fill("0.5")
        page.get_by_text("Tools", exact=True).click()
        page.get_by_role("button", name="Put in an example").first.click()
        return page.locator("#code-python").inner_text(), page.locator("#code-curl").text_content() or ""

    python, curl = browse(visit)
    asked: dict[str, object] = {}
    body = python.split("create(\n", 1)[1].split("\n)\n", 1)[0]
    exec(f"asked.update(dict(\n{body}\n))", {"asked": asked})  # code that the page shows
    assert asked["messages"] == [
        {"role": "system", "content": 'Be "brief"'},
        {"role": "user", "content": "It's me"},
    ]
    assert asked["temperature"] == 0.5
    assert asked["stream"] is True
    assert asked["tools"][0]["function"]["name"] == "weather"  # type: ignore[index]  # a list of dicts
    assert "It'\\''s me" in curl


def test_json_that_is_wrong_is_said_beside_its_field_and_nothing_is_sent(
    tenant: Tenant, browse: Browse
) -> None:
    def visit(page: Page) -> str:
        opened(page, tenant)
        page.get_by_text("Answer as JSON").click()
        page.get_by_label("JSON Schema of the answer").fill("[1]")
        page.get_by_label("Message").fill("Hello")
        page.get_by_role("button", name="Send").click()
        return page.locator("#schema-error").inner_text()

    assert browse(visit) == "A schema is an object: { … }."
    assert events(tenant) == []
