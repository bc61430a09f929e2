"""An organization that demands a second factor: whom it keeps out and leads on, and what stays open to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.test import Client
from django.urls import reverse

from tenants.models import AuditEntry, Membership, Organization, User
from tenants.permissions import Role
from tenants.services.members import add_member
from tenants.services.organizations import update_organization
from tenants.services.visits import start_visit
from tests.cast import Cast
from tests.signed_in import signed_in

pytestmark = pytest.mark.django_db
SETTINGS = "/o/acme/settings/"
KEPT = {"name": "Acme Ltd", "time_zone": "Europe/Berlin", "currency": "USD"}
DOOR = "/second-factor/acme/"


def with_codes(user: User) -> None:
    TOTP.activate(user, generate_totp_secret())


def with_passkey(user: User) -> None:
    Authenticator.objects.create(user=user, type=Authenticator.Type.WEBAUTHN, data={"name": "Laptop"})


def demanded() -> bool:
    return Organization.objects.get(slug="acme").require_mfa


@pytest.fixture
def strict(acme: Cast) -> Cast:
    """acme, which demands a second factor; nobody has one."""
    update_organization(acting_user=None, organization=acme.organization, require_mfa=True)
    return acme


def said(response: Any) -> str:
    return " ".join(response.content.decode().split())


@pytest.mark.parametrize("name", ["ann", "adam", "fay", "bob", "vera"])
def test_no_role_gets_in_without_one(strict: Cast, name: str) -> None:
    client = signed_in(getattr(strict, name).user)
    led = urlsplit(client.get("/o/acme/keys/?q=a").headers["Location"])
    assert (led.path, parse_qs(led.query)) == (DOOR, {"next": ["/o/acme/keys/?q=a"]})
    page = said(client.get(f"{led.path}?{led.query}"))
    assert "Acme Ltd asks for a second factor" in page
    for way in ("mfa_add_webauthn", "mfa_activate_totp", "account_logout"):
        assert f'href="{reverse(way)}"' in page


def test_a_form_and_the_api_are_refused_and_change_nothing(strict: Cast) -> None:
    client = signed_in(strict.ann.user)
    before = AuditEntry.objects.count()
    assert client.post(SETTINGS, {**KEPT, "name": "Other"}).status_code == 403
    assert AuditEntry.objects.count() == before
    answer = client.get(reverse("api:keys", args=["acme"]))
    assert (answer.status_code, answer.json()) == (403, {"detail": "Set up a second factor first."})


@pytest.mark.parametrize("factor", [with_codes, with_passkey])
def test_with_codes_or_a_passkey_one_gets_in(strict: Cast, factor: Any) -> None:
    factor(strict.vera.user)
    client = signed_in(strict.vera.user)
    assert client.get("/o/acme/keys/").status_code == 200
    # Whoever waited at the door goes on to where they wanted.
    assert client.get(DOOR, {"next": "/o/acme/keys/"}).headers["Location"] == "/o/acme/keys/"


def test_recovery_codes_alone_are_no_second_factor(strict: Cast) -> None:
    RecoveryCodes.activate(strict.vera.user)
    assert signed_in(strict.vera.user).get("/o/acme/").status_code == 302


def test_who_gives_it_up_is_outside_again(strict: Cast) -> None:
    with_passkey(strict.vera.user)
    client = signed_in(strict.vera.user)
    Authenticator.objects.all().delete()
    assert client.get("/o/acme/").headers["Location"].startswith(DOOR)


def test_all_else_stays_open(strict: Cast, other: Cast) -> None:
    add_member(acting_user=None, organization=other.organization, email="vera@acme.example", role=Role.MEMBER)
    client = signed_in(strict.vera.user)
    for open_ in (
        "/o/other/",
        reverse("mfa_index"),
        reverse("mfa_activate_totp"),
        reverse("account_email"),
        reverse("account_logout"),
        reverse("usersessions_list"),
    ):
        assert client.get(open_).status_code == 200, open_
    assert 'href="/o/other/"' in said(client.get(DOOR))
    assert client.post(reverse("account_logout")).status_code == 302


def test_the_door_is_for_members_and_leads_nowhere_else(strict: Cast, other: Cast) -> None:
    assert signed_in(other.ann.user).get(DOOR).status_code == 404
    assert Client().get(DOOR).headers["Location"].startswith("/accounts/login/")
    with_passkey(strict.vera.user)
    led = signed_in(strict.vera.user).get(DOOR, {"next": "https://evil.example/"})
    assert led.headers["Location"] == "/o/acme/"


def test_where_it_is_not_demanded_nobody_is_asked(acme: Cast) -> None:
    client = signed_in(acme.vera.user)
    assert client.get("/o/acme/").status_code == 200
    assert client.get(DOOR).headers["Location"] == "/o/acme/"


def test_an_operators_visit_reads_on(strict: Cast) -> None:
    olga = User.objects.create_user("olga@platform.example", is_staff=True)
    start_visit(
        acting_user=olga, organization=strict.organization, reason="Ticket 4711", length=timedelta(minutes=15)
    )
    assert signed_in(olga).get("/o/acme/").status_code == 200


# --- The switch -----------------------------------------------------------------------------------


def test_an_owner_who_has_one_switches_it_on_and_off_on_record(acme: Cast) -> None:
    with_codes(acme.ann.user)
    client = signed_in(acme.ann.user)
    client.post(SETTINGS, {**KEPT, "require_mfa": "on"})
    assert demanded()
    entry = AuditEntry.objects.latest("pk")
    assert (str(entry.actor), entry.detail) == (
        "ann@acme.example",
        {"require_mfa": {"from": False, "to": True}},
    )
    client.post(SETTINGS, KEPT)
    assert not demanded()


def test_an_owner_without_one_is_told_to_get_one_first_and_nothing_is_changed(acme: Cast) -> None:
    answer = signed_in(acme.ann.user).post(SETTINGS, {**KEPT, "name": "Other", "require_mfa": "on"})
    assert answer.status_code == 422
    assert "Set up a passkey or one-time codes for yourself first." in said(answer)
    assert Organization.objects.filter(slug="acme", name="Acme Ltd", require_mfa=False).exists()


def test_switching_it_off_is_dangerous(strict: Cast) -> None:
    with_codes(strict.ann.user)
    led = signed_in(strict.ann.user, ago=3600).post(SETTINGS, KEPT)
    assert led.headers["Location"].startswith("/accounts/reauthenticate/")
    assert demanded()


def test_an_admin_cannot_switch_it(acme: Cast) -> None:
    with_codes(acme.adam.user)
    assert signed_in(acme.adam.user).post(SETTINGS, {**KEPT, "require_mfa": "on"}).status_code == 403
    assert not demanded()


# --- Who has none ---------------------------------------------------------------------------------


def marked(client: Client) -> int:
    return said(client.get("/o/acme/members/")).count("No second factor")


def test_members_shows_managers_who_has_none(acme: Cast) -> None:
    people = Membership.objects.count()
    with_codes(acme.ann.user)
    RecoveryCodes.activate(acme.adam.user)
    assert marked(signed_in(acme.adam.user)) == people - 1
    assert marked(signed_in(acme.vera.user)) == 0
