"""The whole way of an organization's own sign-in provider, in a browser: set, confirmed, used, made the only one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django_scopes import scope

from tenants.models import AuditEntry, Membership, User
from tests.browser.conftest import Browse
from tests.cast import PASSWORD, Cast, make_cast
from tests.single_sign_on.provider import CLIENT_ID, SECRET, LittleProvider

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def cast(committed: None, slug: str, settings: Any) -> Cast:
    # The little provider is on this machine, without a certificate.
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    User.objects.create_user(f"olga@{slug}.platform.example", PASSWORD, is_staff=True)
    return make_cast(slug)


@pytest.fixture
def idp() -> Iterator[LittleProvider]:
    running = LittleProvider()
    running.asks = True
    yield running
    running.close()


def by_password(page: Page, email: str) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def by_provider(page: Page, email: str) -> None:
    """From the sign-in page through the provider, where a person says who they are."""
    page.goto("/accounts/login/")
    page.get_by_role("link", name="Sign in through your organization").click()
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("link", name="Continue at 127.0.0.1").click()
    page.get_by_role("link", name=f"I am {email}").click()
    page.wait_for_url("**/o/**")


def sign_out(page: Page) -> None:
    page.context.clear_cookies()


@pytest.mark.parametrize("javascript", [True, False])
def test_an_owner_opens_the_way_a_newcomer_takes_it_and_it_becomes_the_only_one(
    cast: Cast, idp: LittleProvider, browse: Browse, javascript: bool
) -> None:
    slug = cast.organization.slug
    newcomer, owner, plain = f"nina@{slug}.example", f"ann@{slug}.example", f"bob@{slug}.example"

    def visit(page: Page) -> tuple[str, str, str]:
        by_password(page, owner)
        page.wait_for_url("**/o/**")
        page.get_by_role("link", name="Sign-in", exact=True).click()
        redirect_uri = page.locator("#callback").inner_text()
        page.get_by_label("Issuer").fill(idp.issuer)
        page.get_by_label("Client ID").fill(CLIENT_ID)
        page.get_by_label("Client secret").fill(SECRET)
        page.get_by_role("button", name="Save provider").click()
        page.get_by_role("button", name="Test connection").click()
        page.get_by_text("The provider answers").wait_for()
        page.get_by_label("Claim a domain").fill(f"{slug}.example")
        page.get_by_role("button", name="Claim domain").click()
        page.get_by_text("Waiting", exact=True).wait_for()
        sign_out(page)

        by_password(page, f"olga@{slug}.platform.example")
        page.wait_for_url("**/")
        page.goto(f"/operator/tenants/{slug}/")
        page.get_by_role("button", name=f"Confirm {slug}.example").click()
        page.get_by_text("Confirmed", exact=True).wait_for()
        sign_out(page)

        idp.person = {"sub": "u-2", "email": newcomer, "email_verified": True}
        by_provider(page, newcomer)
        overview = page.url
        sign_out(page)

        idp.person = {"sub": "u-1", "email": owner, "email_verified": True}
        by_provider(page, owner)
        page.get_by_role("link", name="Sign-in", exact=True).click()
        page.get_by_role("button", name="Switch on").click()
        # It is dangerous, and the provider did not say whether it asked: so it is asked to.
        page.get_by_role("link", name="Sign in again at 127.0.0.1").click()
        page.get_by_role("link", name=f"I am {owner}").click()
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("Only the provider lets people in").wait_for()
        sign_out(page)

        by_password(page, plain)
        page.get_by_text("signs you in through its own provider only").wait_for()
        return redirect_uri, overview, page.url

    redirect_uri, overview, refused = browse(visit, javascript=javascript)
    assert redirect_uri.endswith(f"/sign-in/{slug}/callback/")
    assert overview.endswith(f"/o/{slug}/")
    assert refused.endswith(f"/sign-in/{slug}/")
    with scope(organization=cast.organization):
        assert Membership.objects.get(user__email=newcomer).role == "member"
        assert AuditEntry.objects.filter(verb="first signed in", actor__email=newcomer).count() == 1


def test_a_provider_of_the_whole_gateway_is_one_click_from_the_sign_in_page(
    committed: None, slug: str, idp: LittleProvider, browse: Browse, settings: Any
) -> None:
    app = {
        "provider_id": slug,
        "name": "Staff",
        "client_id": CLIENT_ID,
        "secret": SECRET,
        "settings": {"server_url": idp.issuer, "oauth_pkce_enabled": True},
    }
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [app]}}

    def visit(page: Page) -> str:
        page.goto("/accounts/login/")
        page.get_by_role("link", name="Staff").click()
        page.get_by_role("link", name="I am").wait_for()
        return page.url

    # Not by a form: the content security policy lets none lead to another site.
    assert browse(visit, javascript=True).startswith(idp.issuer)
