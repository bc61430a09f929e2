"""An organization that only its own provider lets in: whom it keeps out, and that nobody is locked out for good."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from gateway.single_sign_on.domains import DomainError, drop_domain
from gateway.single_sign_on.providers import ProviderError, remove_provider, save_provider, set_oidc_only
from gateway.single_sign_on.sessions import LIFE_SECONDS
from tenants.models import AuditEntry, Membership, Organization, User
from tenants.permissions import Role
from tenants.services.members import add_member
from tenants.services.organizations import update_organization
from tests.cast import PASSWORD, Cast
from tests.signed_in import proved, signed_in
from tests.single_sign_on.conftest import come, person, said, set_up
from tests.single_sign_on.provider import CLIENT_ID, LittleProvider

pytestmark = pytest.mark.django_db
GATE = "/sign-in/acme/"


@pytest.fixture
def closed(acme: Cast) -> Cast:
    """acme, OIDC only."""
    # What counts attempts outlives a test.
    cache.clear()
    set_oidc_only(acting_user=None, organization=acme.organization, on=True)
    return acme


def browser(member: Membership) -> Client:
    """A browser that has not come through the provider."""
    return signed_in(member.user)


def by_password(email: str) -> tuple[Client, Any]:
    client = Client()
    return client, client.post("/accounts/login/", {"login": email, "password": PASSWORD})


@pytest.mark.parametrize("name", ["ann", "adam", "fay", "bob", "vera"])
def test_no_role_gets_in_without_the_provider(closed: Cast, name: str) -> None:
    client = browser(getattr(closed, name))
    assert client.get("/o/acme/keys/?q=a")["Location"] == f"{GATE}?next=%2Fo%2Facme%2Fkeys%2F%3Fq%3Da"
    before = AuditEntry.objects.count()
    assert client.post("/o/acme/sign-in/change/", {"do": "any"}).status_code == 403
    assert AuditEntry.objects.count() == before
    closed.organization.refresh_from_db()
    assert closed.organization.oidc_only


def test_the_api_says_so_instead_of_leading_away(closed: Cast) -> None:
    answer = browser(closed.ann).get(reverse("api:keys", args=["acme"]))
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "Sign in through your organization first."},
    )


def test_through_the_provider_one_gets_in(closed: Cast, idp: LittleProvider, client: Client) -> None:
    assert come(client, idp, wanted="/o/acme/keys/")["Location"] == "/o/acme/keys/"
    assert client.get("/o/acme/keys/").status_code == 200


def test_whoever_is_signed_in_by_password_comes_through_it_without_signing_out(
    closed: Cast, idp: LittleProvider
) -> None:
    client = browser(closed.ann)
    come(client, idp)
    assert client.get("/o/acme/").status_code == 200


def test_a_session_of_another_organizations_provider_does_not_count(
    closed: Cast, other: Cast, idp: LittleProvider, client: Client
) -> None:
    set_up(other.organization, idp, "other.example")
    idp.person = {"sub": "o-1", "email": "bob@other.example", "email_verified": True}
    add_member(acting_user=None, organization=closed.organization, email="bob@other.example", role=Role.ADMIN)
    come(client, idp, "other")
    assert client.get("/o/other/").status_code == 200
    assert client.get("/o/acme/")["Location"].startswith(GATE)


def test_a_session_counts_for_the_person_who_came(closed: Cast, idp: LittleProvider, client: Client) -> None:
    come(client, idp)
    marked = client.session["single_sign_on"]
    other = browser(closed.bob)
    session = other.session
    session["single_sign_on"] = marked
    session.save()
    assert other.get("/o/acme/")["Location"].startswith(GATE)


def test_after_half_a_day_the_provider_is_asked_again(
    closed: Cast, idp: LittleProvider, client: Client
) -> None:
    come(client, idp)
    session = client.session
    marked = session["single_sign_on"]
    number = str(closed.organization.pk)
    for age, status in ((LIFE_SECONDS - 60, 200), (LIFE_SECONDS + 60, 302)):
        marked["by"][number][1] = int(time.time()) - age
        session["single_sign_on"] = marked
        session.save()
        assert client.get("/o/acme/").status_code == status


def test_sessions_of_a_former_client_count_no_longer(
    closed: Cast, idp: LittleProvider, client: Client
) -> None:
    come(client, idp)
    set_oidc_only(acting_user=None, organization=closed.organization, on=False)
    save_provider(
        acting_user=None, organization=closed.organization, issuer=idp.issuer, client_id="new", secret=""
    )
    set_oidc_only(acting_user=None, organization=closed.organization, on=True)
    assert client.get("/o/acme/")["Location"].startswith(GATE)


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_a_right_password_leads_to_the_provider(closed: Cast, name: str) -> None:
    client, answer = by_password(f"{name}@acme.example")
    assert answer["Location"] == GATE
    assert person(client) == ""


def test_while_it_is_off_the_password_works(acme: Cast) -> None:
    client, _ = by_password("ann@acme.example")
    assert person(client) == str(acme.ann.user.pk)


def test_people_of_other_domains_keep_their_password_for_elsewhere(closed: Cast, other: Cast) -> None:
    add_member(acting_user=None, organization=closed.organization, email="ann@other.example", role=Role.OWNER)
    client, _ = by_password("ann@other.example")
    assert person(client) == str(other.ann.user.pk)
    assert client.get("/o/other/").status_code == 200
    assert client.get("/o/acme/")["Location"].startswith(GATE)


def test_a_sign_up_with_an_address_of_the_domain_signs_nobody_in(closed: Cast, settings: Any) -> None:
    """Nor does any other way of django-allauth's, which all ask before the end."""
    settings.SIGN_UP, settings.ACCOUNT_EMAIL_VERIFICATION = "open", "none"
    client, form = Client(), {"email": "new@acme.example", "password1": "a kettle of blue herons"}
    assert client.post("/accounts/signup/", form)["Location"] == GATE
    assert person(client) == ""
    elsewhere = Client()
    elsewhere.post("/accounts/signup/", {**form, "email": "new@home.example"})
    assert person(elsewhere) != ""


def test_operators_keep_their_password_and_their_visit(closed: Cast) -> None:
    olga = User.objects.create_user("olga@acme.example", PASSWORD, is_staff=True)
    client, _ = by_password("olga@acme.example")
    assert person(client) == str(olga.pk)
    visit = reverse("operator:tenant_visit", args=["acme"])
    client.post(visit, {"do": "start", "reason": "Ticket 1", "minutes": "15"})
    assert client.get("/o/acme/").status_code == 200


# --- Nobody is locked out for good -------------------------------------------------------------------------


def test_only_who_came_through_the_provider_switches_it_on(acme: Cast, idp: LittleProvider) -> None:
    client = browser(acme.ann)
    change = {"do": "only"}
    assert "Sign in through the provider yourself first" in said(
        client.post("/o/acme/sign-in/change/", change, follow=True)
    )
    on = Organization.objects.filter(slug="acme", oidc_only=True)
    assert not on.exists()
    come(client, idp)
    # The provider did not say when it asked.
    proved(client)
    client.post("/o/acme/sign-in/change/", change)
    assert on.exists()
    entry = AuditEntry.objects.order_by("pk").last()
    assert entry is not None
    assert (str(entry.actor), entry.detail) == (
        "ann@acme.example",
        {"oidc_only": {"from": False, "to": True}},
    )


def test_it_needs_a_provider_and_a_confirmed_domain(acme: Cast, other: Cast, idp: LittleProvider) -> None:
    with pytest.raises(ProviderError, match="Set the provider"):
        set_oidc_only(acting_user=None, organization=other.organization, on=True)
    set_up(other.organization, idp)
    with pytest.raises(ProviderError, match="Claim a domain"):
        set_oidc_only(acting_user=None, organization=other.organization, on=True)


def test_what_it_needs_stays_while_it_is_on(closed: Cast) -> None:
    provider, claim = closed.organization.sign_in_provider, closed.organization.email_domains.get()
    with pytest.raises(ProviderError, match="off first"):
        remove_provider(acting_user=None, provider=provider)
    with pytest.raises(ProviderError, match="off before"):
        save_provider(
            acting_user=None,
            organization=closed.organization,
            issuer="https://elsewhere.example",
            client_id=CLIENT_ID,
            secret="x",
        )
    with pytest.raises(DomainError, match="off first"):
        drop_domain(acting_user=None, claim=claim)


def test_a_new_client_secret_can_be_set_while_it_is_on(closed: Cast, idp: LittleProvider) -> None:
    before = bytes(closed.organization.sign_in_provider.ciphertext)
    saved = save_provider(
        acting_user=None,
        organization=closed.organization,
        issuer=idp.issuer,
        client_id=CLIENT_ID,
        secret="new",
    )
    assert bytes(saved.ciphertext) != before


def test_an_operator_lets_passwords_in_again(closed: Cast) -> None:
    olga = User.objects.create_user("olga@platform.example", is_staff=True)
    client = signed_in(olga)
    assert "Let passwords in again" in said(client.get("/operator/tenants/acme/"))
    client.post(reverse("operator:tenant_sign_in", args=["acme"]), {"do": "any"})
    assert browser(closed.ann).get("/o/acme/").status_code == 200
    entry = AuditEntry.objects.order_by("pk").last()
    assert entry is not None
    assert (str(entry.actor), entry.organization) == ("olga@platform.example", closed.organization)


def test_whoever_came_through_the_provider_needs_no_second_factor_here(
    acme: Cast, idp: LittleProvider
) -> None:
    update_organization(acting_user=None, organization=acme.organization, require_mfa=True)
    client = browser(acme.ann)
    led = client.get("/o/acme/")["Location"]
    assert led.startswith("/second-factor/acme/")
    assert "/sign-in/acme/?next=" in said(client.get(led))
    come(client, idp)
    assert client.get("/o/acme/").status_code == 200
    # Another organization's provider proves nothing to this one.
    session = client.session
    session["single_sign_on"]["by"] = {"0": session["single_sign_on"]["by"].popitem()[1]}
    session.save()
    assert client.get("/o/acme/")["Location"].startswith("/second-factor/acme/")
