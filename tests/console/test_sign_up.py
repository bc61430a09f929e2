"""Making an account and an organization of one's own."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail
from django.core.cache import cache
from django.core.checks import run_checks
from django.test import Client
from django_scopes import scope, scopes_disabled

from billing.services.wallet import wallet
from tenants.models import AuditEntry, Membership, Organization, Plan, Team, User
from tests.cast import Cast
from tests.console.conftest import SignIn

pytestmark = pytest.mark.django_db
PASSWORD = "a kettle of blue herons"
NEW = "/organizations/new/"
WISH = {"name": "Söhne & Co", "slug": "", "time_zone": "Europe/Berlin"}


@pytest.fixture(autouse=True)
def everybody_may(settings: Any) -> None:
    # What counts attempts outlives a test.
    cache.clear()
    settings.SIGN_UP = "open"
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"


def signed_up(client: Client, email: str = "eve@new.example") -> Any:
    return client.post("/accounts/signup/", {"email": email, "password1": PASSWORD})


def link() -> str:
    """The address in the newest mail."""
    found = re.search(r"http://\S+(/accounts/confirm-email/\S+/)", str(mail.outbox[-1].body))
    assert found is not None
    return found[1]


def test_a_stranger_signs_up_proves_the_address_and_makes_an_organization(client: Client) -> None:
    assert signed_up(client)["Location"] == "/accounts/confirm-email/"
    assert mail.outbox[0].to == ["eve@new.example"]
    answer = client.post(link(), follow=True)
    assert answer.redirect_chain[-1] == (NEW, 302)
    assert client.post(NEW, WISH)["Location"] == "/o/sohne-co/"
    assert client.get("/o/sohne-co/").status_code == 200
    organization = Organization.objects.get(slug="sohne-co")
    assert (organization.name, organization.time_zone) == ("Söhne & Co", "Europe/Berlin")
    with scope(organization=organization):
        owner = Membership.objects.get()
        assert (owner.user.email, owner.role) == ("eve@new.example", "owner")
        assert [team.slug for team in Team.objects.all()] == ["main"]
        assert {str(entry.actor) for entry in AuditEntry.objects.all()} == {"eve@new.example"}


def test_nobody_comes_in_before_the_address_is_proven(client: Client) -> None:
    signed_up(client)
    assert client.get(NEW)["Location"].startswith("/accounts/login/")
    again = client.post("/accounts/login/", {"login": "eve@new.example", "password": PASSWORD})
    assert again["Location"] == "/accounts/confirm-email/"
    assert client.get("/").status_code == 302


def test_the_link_in_another_browser_confirms_and_signs_nobody_in(client: Client) -> None:
    signed_up(client)
    elsewhere = Client()
    elsewhere.post(link())
    assert elsewhere.get(NEW)["Location"].startswith("/accounts/login/")
    assert (
        client.post("/accounts/login/", {"login": "eve@new.example", "password": PASSWORD})["Location"] == "/"
    )


def test_who_has_an_account_is_not_told_to_others(acme: Cast, client: Client) -> None:
    fresh, taken = signed_up(client), signed_up(Client(), "bob@acme.example")
    assert (fresh.status_code, fresh["Location"]) == (taken.status_code, taken["Location"])
    assert not acme.bob.user.check_password(PASSWORD)
    assert User.objects.filter(email="bob@acme.example").count() == 1


@pytest.mark.parametrize("password", ["short", "password12", "1234567890"])
def test_a_weak_password_makes_no_account(client: Client, password: str) -> None:
    client.post("/accounts/signup/", {"email": "eve@new.example", "password1": password})
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("credit", "billing", "limit"), [("0", "prepaid", Decimal(0)), ("5", "postpaid", Decimal(5))]
)
def test_a_new_organization_gets_the_terms_of_the_settings_and_the_page_says_so(
    acme: Cast, sign_in: SignIn, settings: Any, credit: str, billing: str, limit: Decimal
) -> None:
    Plan.objects.create(name="start")
    settings.SIGN_UP_CREDIT, settings.SIGN_UP_PLAN = Decimal(credit), "start"
    client = sign_in(acme.bob)
    said = "Paid in advance" if billing == "prepaid" else "up to $5.00"
    assert said in client.get(NEW).content.decode()
    client.post(NEW, {**WISH, "slug": "mine"})
    made = Organization.objects.get(slug="mine")
    assert (made.billing, str(made.plan)) == (billing, "start")
    with scope(organization=made):
        assert wallet(made).limit == limit


def test_a_plan_that_is_missing_is_said_on_the_page_and_makes_nothing(
    acme: Cast, sign_in: SignIn, settings: Any
) -> None:
    settings.SIGN_UP_PLAN = "absent-plan"
    answer = sign_in(acme.bob).post(NEW, {**WISH, "slug": "mine"})
    html = answer.content.decode()
    assert answer.status_code == 422
    assert "the plan for new organizations is missing" in html
    assert "absent-plan" not in html
    assert 'value="mine"' in html
    assert Organization.objects.count() == 1


def test_the_check_refuses_a_plan_that_is_missing_where_people_make_organizations(
    db: None, settings: Any
) -> None:
    def found() -> list[str]:
        return [message.msg for message in run_checks(tags=["database"], databases=["default"])]

    settings.SIGN_UP, settings.SIGN_UP_PLAN = "open", "start"
    assert found() == ["SIGN_UP_PLAN names the plan 'start', which does not exist."]
    Plan.objects.create(name="start")
    assert found() == []
    settings.SIGN_UP, settings.SIGN_UP_PLAN = "invited", "gone"
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slug": "acme"}, "Another organization has this short name"),
        ({"slug": "No Spaces"}, "lower-case letters"),
        ({"name": "東京"}, "lower-case letters"),
        ({"time_zone": "Nowhere/City"}, "Select a valid choice"),
        ({"name": ""}, "required"),
    ],
)
def test_a_wrong_form_says_why_and_keeps_what_was_typed(
    acme: Cast, sign_in: SignIn, changes: dict[str, str], said: str
) -> None:
    answer = sign_in(acme.bob).post(NEW, {**WISH, **changes})
    html = answer.content.decode()
    assert answer.status_code == 422
    assert said in html
    assert all(f'value="{value}"' in html for word, value in changes.items() if value and word != "time_zone")
    assert Organization.objects.count() == 1


def test_one_person_makes_three_and_no_more(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.bob)
    for number in range(3):
        assert client.post(NEW, {**WISH, "slug": f"mine-{number}"}).status_code == 302
    refused = client.post(NEW, {**WISH, "slug": "mine-3"})
    assert refused.status_code == 422
    assert "You own 3 organizations" in refused.content.decode()
    with scopes_disabled():
        assert Membership.objects.filter(user=acme.bob.user, role="owner").count() == 3


@pytest.mark.parametrize("mode", ["invited", "closed"])
def test_where_sign_up_is_not_open_people_make_no_organizations(
    acme: Cast, sign_in: SignIn, settings: Any, mode: str
) -> None:
    settings.SIGN_UP = mode
    client = sign_in(acme.ann)
    assert client.get(NEW).status_code == 403
    assert client.post(NEW, {**WISH, "slug": "mine"}).status_code == 403
    assert "New organization" not in client.get("/o/acme/").content.decode()
    assert Organization.objects.count() == 1
