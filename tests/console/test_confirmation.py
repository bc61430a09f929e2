"""Dangerous acts: who signed in long ago is asked again, nothing happens before, and nothing typed is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client
from django_scopes import scopes_disabled

from billing.models import LedgerTransaction
from gateway.confirmation import FIELD, PATIENCE, SESSION_KEY
from gateway.models import EmailDomain, SignInProvider
from gateway.single_sign_on.domains import claim_domain
from routing.credentials import decrypt
from routing.models import Provider
from routing.services.providers import create_provider, stored_secrets
from tenants.models import AuditEntry, Invitation, Membership, Organization, User
from tenants.permissions import Role
from tenants.services.members import add_member
from tests.cast import PASSWORD, Cast
from tests.signed_in import proved, signed_in

pytestmark = pytest.mark.django_db
LONG_AGO = 15 * 60 + 1
ASKED = "/accounts/reauthenticate/"
SECRET = "client-secret-4711"


@dataclass(frozen=True)
class Act:
    """A dangerous POST: by whom, where to, what with, how one sees that it happened, and what it is called."""

    person: str
    address: str
    data: dict[str, str]
    happened: Callable[[], bool]
    called: str
    kwargs: dict[str, Any] = field(default_factory=dict)


def role_of(name: str) -> str:
    return str(Membership.objects.get(user__email=f"{name}@acme.example").role)


def secret_is(name: str, secret: str) -> bool:
    return stored_secrets(Provider.objects.get(name=name)) == [secret]


ACTS = {
    "owner made": Act(
        "ann",
        "/o/acme/members/{bob}/role/",
        {"role": "owner"},
        lambda: role_of("bob") == "owner",
        "make bob@acme.example an owner",
    ),
    "owner unmade": Act(
        "ann",
        "/o/acme/members/{oona}/role/",
        {"role": "viewer"},
        lambda: role_of("oona") == "viewer",
        "take the role of owner from oona@acme.example",
    ),
    "owner removed": Act(
        "ann",
        "/o/acme/members/{oona}/remove/",
        {},
        lambda: not Membership.objects.filter(user__email="oona@acme.example").exists(),
        "remove the owner oona@acme.example",
    ),
    "owner added": Act(
        "ann",
        "/o/acme/members/add/",
        {"email": "new@acme.example", "role": "owner"},
        lambda: Membership.objects.filter(user__email="new@acme.example", role="owner").exists(),
        "make new@acme.example an owner",
    ),
    "owner invited": Act(
        "ann",
        "/o/acme/members/invitations/new/",
        {"email": "new@acme.example", "role": "owner", "days": "7"},
        lambda: Invitation.objects.filter(email="new@acme.example", role="owner").exists(),
        "invite new@acme.example as an owner",
    ),
    "provider set": Act(
        "ann",
        "/o/acme/sign-in/",
        {"issuer": "https://login.acme.example", "client_id": "weir", "secret": SECRET},
        lambda: [decrypt(each.ciphertext) for each in SignInProvider.objects.all()] == [SECRET],
        "change the provider",
    ),
    "domain given up": Act(
        "ann",
        "/o/acme/sign-in/domains/{domain}/remove/",
        {},
        lambda: not EmailDomain.objects.exists(),
        "give a domain up",
    ),
    "tenant suspended": Act(
        "olga",
        "/operator/tenants/acme/standing/",
        {"do": "suspend", "sure": "acme"},
        lambda: Organization.objects.get(slug="acme").suspended_at is not None,
        "suspend acme",
    ),
    "visit begun": Act(
        "olga",
        "/operator/tenants/acme/visit/",
        {"do": "start", "reason": "Ticket 4711", "minutes": "15"},
        lambda: AuditEntry.objects.filter(target_type="visit", verb="started").exists(),
        "begin a visit to acme",
    ),
    "credential replaced": Act(
        "olga",
        "/operator/providers/upstream/",
        {"do": "replace", "secret": SECRET},
        lambda: secret_is("upstream", SECRET),
        "change the credentials of upstream",
    ),
    "domain confirmed": Act(
        "olga",
        "/operator/tenants/acme/domains/{domain}/",
        {"do": "confirm"},
        lambda: EmailDomain.objects.filter(confirmed_at__isnull=False).exists(),
        "decide whose a domain is",
    ),
    "money moved": Act(
        "olga",
        "/admin/tenants/organization/{acme}/change/",
        {
            "name": "Acme Ltd",
            "time_zone": "Europe/Berlin",
            "billing": "postpaid",
            "markup": "0",
            "top_up": "25",
            "reference": "wire-1",
        },
        lambda: LedgerTransaction.objects.filter(reference="wire-1").exists(),
        "move money",
    ),
    "credentials written in the admin": Act(
        "olga",
        "/admin/routing/provider/{upstream}/delete/",
        {"post": "yes"},
        lambda: not Provider.objects.exists(),
        "delete a provider",
    ),
}


@dataclass
class Stage:
    """acme with a second owner, a claimed domain and a provider; who acts, and the words in addresses."""

    people: dict[str, User]
    words: dict[str, int]

    def browser(self, act: Act, ago: float = LONG_AGO) -> Client:
        return signed_in(self.people[act.person], ago)

    def address(self, act: Act) -> str:
        return act.address.format(**self.words)


@pytest.fixture
def stage(acme: Cast) -> Stage:
    oona = add_member(
        acting_user=None, organization=acme.organization, email="oona@acme.example", role=Role.OWNER
    )
    claim = claim_domain(acting_user=None, organization=acme.organization, domain="acme.example")
    upstream = create_provider(
        acting_user=None,
        name="upstream",
        kind="openai",
        base_url="https://upstream.example/v1",
        credentials=["old"],
    )
    olga = User.objects.create_superuser("olga@platform.example", PASSWORD)
    words = {
        "bob": acme.bob.pk,
        "oona": oona.pk,
        "domain": claim.pk,
        "acme": acme.organization.pk,
        "upstream": upstream.pk,
    }
    # What counts attempts outlives a test.
    cache.clear()
    return Stage({"ann": acme.ann.user, "olga": olga}, words)


@pytest.fixture
def everywhere() -> Any:
    with scopes_disabled():
        yield


def led(response: Any) -> tuple[str, str]:
    """Where a redirect leads, and where that leads on to."""
    there = urlsplit(response.headers["Location"])
    return there.path, parse_qs(there.query).get("next", [""])[0]


def said(response: Any) -> str:
    return " ".join(response.content.decode().split())


def waits(there: str) -> str:
    """The name of what waits at the address ``there``."""
    return parse_qs(urlsplit(there).query)[FIELD][0]


@pytest.mark.parametrize("name", ACTS)
def test_who_signed_in_long_ago_is_asked_and_goes_on_where_they_were(
    stage: Stage, everywhere: None, name: str
) -> None:
    act = ACTS[name]
    client, address = stage.browser(act), stage.address(act)
    before = AuditEntry.objects.count()
    asked, there = led(client.post(address, act.data))
    assert (asked, urlsplit(there).path) == (ASKED, address)
    assert (AuditEntry.objects.count(), act.happened()) == (before, False)

    wrong = client.post(ASKED, {"password": "a wrong password", "next": there})
    assert wrong.status_code == 200
    assert led(client.get(there)) == (ASKED, there)
    assert client.post(address, {FIELD: waits(there)}).headers["Location"].startswith(ASKED)
    assert act.happened() is False

    right = client.post(ASKED, {"password": PASSWORD, "next": there})
    assert right.headers["Location"] == there
    question = client.get(there)
    assert act.called in said(question)
    assert act.happened() is False
    client.post(address, {FIELD: waits(there)})
    assert act.happened() is True


@pytest.mark.parametrize("name", ACTS)
def test_who_just_signed_in_is_not_asked(stage: Stage, everywhere: None, name: str) -> None:
    act = ACTS[name]
    answer = stage.browser(act, ago=60).post(stage.address(act), act.data)
    assert not answer.headers.get("Location", "").startswith(ASKED)
    assert act.happened() is True


def test_a_secret_that_waits_is_in_no_row_and_no_page(stage: Stage) -> None:
    act = ACTS["provider set"]
    client = stage.browser(act)
    _, there = led(client.post(stage.address(act), act.data))
    kept = Session.objects.get(pk=client.session.session_key).get_decoded()
    assert SESSION_KEY in kept
    assert SECRET not in str(kept)
    assert SECRET not in said(client.get(ASKED, {"next": there}))
    proved(client)
    assert SECRET not in said(client.get(there))


def test_the_page_that_removes_an_owner_asks_before_it_is_shown(stage: Stage, acme: Cast) -> None:
    client = signed_in(acme.ann.user, LONG_AGO)
    page = f"/o/acme/members/{stage.words['oona']}/remove/"
    assert led(client.get(page)) == (ASKED, page)
    assert client.get(f"/o/acme/members/{acme.bob.pk}/remove/").status_code == 200


HARMLESS = [
    ("/o/acme/members/{bob}/role/", {"role": "viewer"}),
    ("/o/acme/members/add/", {"email": "new@acme.example", "role": "member"}),
    ("/o/acme/members/{bob}/remove/", {}),
    ("/o/acme/sign-in/domains/", {"domain": "new.example"}),
    ("/o/acme/sign-in/change/", {"do": "test"}),
    # In an emergency this must be quick.
    ("/o/acme/keys/{key}/pause/", {"do": "pause"}),
    ("/o/acme/keys/{key}/revoke/", {}),
]


@pytest.mark.parametrize(("address", "data"), HARMLESS, ids=[address for address, _ in HARMLESS])
def test_what_is_not_dangerous_or_must_be_quick_does_not_ask(
    stage: Stage, acme: Cast, address: str, data: dict[str, str]
) -> None:
    before = AuditEntry.objects.count()
    answer = signed_in(acme.ann.user, LONG_AGO).post(
        address.format(**stage.words, key=acme.search_key.pk), data
    )
    assert led(answer)[0].startswith("/o/acme/")
    if data != {"do": "test"}:
        assert AuditEntry.objects.count() > before


def test_whoever_may_not_do_it_is_not_asked_but_refused(stage: Stage, acme: Cast) -> None:
    client = signed_in(acme.bob.user, LONG_AGO)
    assert client.post(stage.address(ACTS["owner made"]), {"role": "owner"}).status_code == 403
    assert (
        client.post("/operator/tenants/acme/standing/", {"do": "suspend", "sure": "acme"}).status_code == 404
    )


def test_the_time_is_a_setting(stage: Stage, settings: Any) -> None:
    act = ACTS["owner made"]
    settings.ACCOUNT_REAUTHENTICATION_TIMEOUT = 3600
    stage.browser(act, ago=3500).post(stage.address(act), act.data)
    assert act.happened()


# --- What waits -----------------------------------------------------------------------------------


@pytest.fixture
def waiting(stage: Stage, acme: Cast) -> tuple[Client, str]:
    """Ann's browser, proved, in which Bob waits to be made an owner; and the address where he does."""
    act = ACTS["owner made"]
    client = stage.browser(act)
    _, there = led(client.post(stage.address(act), act.data))
    return proved(client), there


def test_it_happens_once(waiting: tuple[Client, str]) -> None:
    client, there = waiting
    form = {FIELD: waits(there)}
    client.post(there, form)
    Membership.objects.filter(user__email="bob@acme.example").update(role="member")
    assert client.post(there, form).status_code == 410
    assert client.get(there).status_code == 410
    assert role_of("bob") == "member"


def test_it_waits_at_its_own_address_alone(waiting: tuple[Client, str], acme: Cast) -> None:
    client, there = waiting
    elsewhere = f"/o/acme/members/{acme.cleo.pk}/role/"
    assert client.post(elsewhere, {FIELD: waits(there)}).status_code == 410
    assert role_of("cleo") == "member"


def test_it_waits_for_its_person_alone(waiting: tuple[Client, str], stage: Stage, acme: Cast) -> None:
    client, there = waiting
    oona = signed_in(Membership.objects.get(pk=stage.words["oona"]).user)
    session = oona.session
    session[SESSION_KEY] = client.session[SESSION_KEY]
    session.save()
    assert oona.post(there, {FIELD: waits(there)}).status_code == 410
    assert role_of("bob") == "member"


def test_it_waits_for_an_hour(waiting: tuple[Client, str]) -> None:
    client, there = waiting
    session = client.session
    session[SESSION_KEY]["at"] -= PATIENCE + 1
    session.save()
    assert client.get(there).status_code == 410
    assert client.post(there, {FIELD: waits(there)}).status_code == 410
    assert role_of("bob") == "member"


def test_another_site_cannot_make_it_go_on(waiting: tuple[Client, str]) -> None:
    client, there = waiting
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies
    assert strict.post(there, {FIELD: waits(there)}).status_code == 403
    assert role_of("bob") == "member"


def test_one_can_leave_it_and_is_back_where_one_was(stage: Stage) -> None:
    act = ACTS["owner made"]
    client = stage.browser(act)
    headers = {"referer": "http://testserver/o/acme/members/"}
    _, there = led(client.post(stage.address(act), act.data, headers=headers))
    assert 'href="/o/acme/members/"' in said(proved(client).get(there))


# --- The ways of proving --------------------------------------------------------------------------


def stale(user: User) -> tuple[Client, str, str]:
    """Ann's browser after a dangerous act long after the sign-in: where it is asked, and what for."""
    client = signed_in(user, LONG_AGO)
    asked, there = led(client.post("/o/acme/members/add/", {"email": "new@acme.example", "role": "owner"}))
    return client, asked, there


def goes_on(client: Client, there: str) -> bool:
    return client.get(there).status_code == 200


def passwordless(user: User) -> None:
    user.set_unusable_password()
    user.save(update_fields=["password"])


def test_signing_in_counts(stage: Stage) -> None:
    act = ACTS["owner made"]
    client = Client()
    client.post("/accounts/login/", {"login": "ann@acme.example", "password": PASSWORD})
    client.post(stage.address(act), act.data)
    assert act.happened()


def test_a_code_of_an_app_proves_it(stage: Stage, acme: Cast, settings: Any) -> None:
    # The code of the test's time is right for a quarter of an hour.
    settings.MFA_TOTP_TOLERANCE = 30
    passwordless(acme.ann.user)
    secret = generate_totp_secret()
    TOTP.activate(acme.ann.user, secret)
    client, asked, there = stale(acme.ann.user)
    assert asked == "/accounts/2fa/reauthenticate/"
    client.post(asked, {"code": "000000x", "next": there})
    assert not goes_on(client, there)
    (counter, *_) = [*yield_hotp_counters_from_time()][30:]
    client.post(asked, {"code": format_hotp_value(hotp_value(secret, counter)), "next": there})
    assert goes_on(client, there)


def test_a_recovery_code_proves_it(stage: Stage, acme: Cast) -> None:
    passwordless(acme.ann.user)
    TOTP.activate(acme.ann.user, generate_totp_secret())
    code = RecoveryCodes.activate(acme.ann.user).get_unused_codes()[0]
    client, asked, there = stale(acme.ann.user)
    assert client.post(asked, {"code": code, "next": there}).headers["Location"] == there
    assert goes_on(client, there)


def test_with_a_second_factor_the_password_is_one_of_two_ways(stage: Stage, acme: Cast) -> None:
    TOTP.activate(acme.ann.user, generate_totp_secret())
    client, asked, there = stale(acme.ann.user)
    assert asked == ASKED
    page = said(client.get(asked, {"next": there}))
    assert "/accounts/2fa/reauthenticate/?next=" in page


def test_whoever_has_no_way_at_all_is_told_how_to_get_one(stage: Stage, acme: Cast) -> None:
    passwordless(acme.ann.user)
    client, asked, there = stale(acme.ann.user)
    assert asked == "/confirm/"
    page = said(client.get(asked, {"next": there}))
    assert 'href="/accounts/password/reset/"' in page


def test_the_page_of_other_ways_leads_nowhere_else(acme: Cast) -> None:
    page = said(signed_in(acme.ann.user).get("/confirm/", {"next": "https://evil.example/"}))
    assert "evil.example" not in page


# --- One's own account, whose pages are django-allauth's -------------------------------------------


def test_a_passkey_is_added_right_after_signing_in_without_the_password_again(acme: Cast) -> None:
    client = Client()
    client.post("/accounts/login/", {"login": "ann@acme.example", "password": PASSWORD})
    assert client.get("/accounts/2fa/webauthn/add/").status_code == 200


def test_long_after_it_the_password_is_asked(acme: Cast) -> None:
    page = "/accounts/2fa/webauthn/add/"
    assert led(signed_in(acme.ann.user, LONG_AGO).get(page)) == (ASKED, page)


def test_without_any_way_of_proving_it_a_passkey_is_not_just_added(acme: Cast) -> None:
    passwordless(acme.ann.user)
    page = "/accounts/2fa/webauthn/add/"
    assert led(signed_in(acme.ann.user, LONG_AGO).get(page)) == ("/confirm/", page)


def test_another_address_of_ones_own_is_added_only_after_it(acme: Cast) -> None:
    form = {"email": "second@acme.example", "action_add": ""}
    client = signed_in(acme.ann.user, LONG_AGO)
    assert led(client.post("/accounts/email/", form)) == (ASKED, "/accounts/email/")
    assert not EmailAddress.objects.filter(user=acme.ann.user, email="second@acme.example").exists()
    client.post(ASKED, {"password": PASSWORD, "next": "/accounts/email/"})
    assert EmailAddress.objects.filter(user=acme.ann.user, email="second@acme.example").exists()
