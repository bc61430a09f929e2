"""Who comes in through an organization's provider, and above all who does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.account.models import EmailAddress
from cryptography.hazmat.primitives.asymmetric import rsa
from django.test import Client
from django.utils import timezone

from gateway.models import SignInIdentity, SignInProvider
from gateway.single_sign_on.domains import claim_domain, confirm_domain, drop_domain
from gateway.single_sign_on.providers import save_provider
from tenants.models import AuditEntry, Invitation, Membership, User
from tenants.permissions import Role
from tenants.services.invitations import invite
from tenants.services.members import add_member, remove_member
from tests.cast import PASSWORD, Cast
from tests.single_sign_on.conftest import come, person, said, set_up
from tests.single_sign_on.provider import SECRET, LittleProvider

pytestmark = pytest.mark.django_db
NEW = {"sub": "u-9", "email": "Nina@Acme.example", "email_verified": True, "name": "Nina Novak"}


def refused(client: Client, response: Any, words: str) -> None:
    """That nobody was signed in, and why."""
    assert response.status_code == 403
    assert words in said(response)
    assert person(client) == ""


def people() -> set[str]:
    return set(User.objects.values_list("email", flat=True))


def test_a_new_person_becomes_a_member_with_the_role_member(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    idp.person = NEW
    assert come(client, idp)["Location"] == "/o/acme/"
    nina = User.objects.get(email="nina@acme.example")
    assert (person(client), nina.get_full_name()) == (str(nina.pk), "Nina Novak")
    assert not nina.has_usable_password()
    assert EmailAddress.objects.get(user=nina).verified
    membership = Membership.objects.get(user=nina)
    assert (membership.organization, membership.role) == (acme.organization, "member")
    entries = AuditEntry.objects.filter(actor=nina, target_type="membership").order_by("pk")
    assert [(entry.verb, entry.detail) for entry in entries] == [
        ("added", {"role": "member"}),
        ("first signed in", {"through": idp.issuer, "role": "member"}),
    ]
    assert client.get("/o/acme/").status_code == 200


def test_the_second_time_nothing_is_made(acme: Cast, idp: LittleProvider) -> None:
    idp.person = NEW
    come(Client(), idp)
    before = (people(), Membership.objects.count(), AuditEntry.objects.count())
    again = Client()
    come(again, idp)
    assert person(again) == str(User.objects.get(email="nina@acme.example").pk)
    assert (people(), Membership.objects.count(), AuditEntry.objects.count()) == before


def test_a_member_is_who_they_are_and_keeps_their_role(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    come(client, idp)
    assert person(client) == str(acme.ann.user.pk)
    acme.ann.refresh_from_db()
    assert acme.ann.role == "owner"


def test_who_is_invited_gets_the_invitations_role_and_teams(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    invite(
        acting_user=None,
        organization=acme.organization,
        email="nina@acme.example",
        role=Role.FINANCE,
        teams=[acme.search],
    )
    idp.person = NEW
    come(client, idp)
    membership = Membership.objects.get(user__email="nina@acme.example")
    assert membership.role == "finance"
    assert [str(team.team) for team in membership.teams.all()] == ["search"]
    assert Invitation.objects.get().accepted_at is not None


def test_an_invitation_that_is_over_gives_nothing(acme: Cast, idp: LittleProvider, client: Client) -> None:
    invite(
        acting_user=None,
        organization=acme.organization,
        email="nina@acme.example",
        role=Role.OWNER,
        life=timedelta(seconds=-1),
    )
    idp.person = NEW
    come(client, idp)
    assert Membership.objects.get(user__email="nina@acme.example").role == "member"


def test_the_account_follows_the_subject_not_the_address(acme: Cast, idp: LittleProvider) -> None:
    idp.person = NEW
    come(Client(), idp)
    idp.person = {**NEW, "email": "nina.novak@acme.example"}
    renamed = Client()
    come(renamed, idp)
    assert person(renamed) == str(User.objects.get(email="nina@acme.example").pk)
    assert "nina.novak@acme.example" not in people()


def test_an_address_given_to_somebody_else_does_not_open_the_former_account(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    idp.person = NEW
    come(Client(), idp)
    idp.person = {**NEW, "sub": "u-10"}
    refused(client, come(client, idp), "Another person of your provider has this address")
    remove_member(acting_user=None, membership=Membership.objects.get(user__email="nina@acme.example"))
    come(client, idp)
    assert person(client) != ""


# --- Whom the provider is not believed about ---------------------------------------------------------


@pytest.mark.parametrize(
    "email",
    [
        "ann@other.example",  # of another tenant
        "vera@gmail.example",  # of nobody
        "ann@sub.acme.example",  # a subdomain is a domain of its own
        "ann@acme.example.evil.example",
        "ann@notacme.example",
        "ann@acme.example@other.example",
        '"ann@acme.example"@other.example',
        "ann@other.example\n@acme.example",
        "acme.example",
        "@acme.example",
        "",
        None,
        ["ann@acme.example"],
    ],
)
def test_an_address_outside_its_domains_is_nobody(
    acme: Cast, other: Cast, idp: LittleProvider, client: Client, email: Any
) -> None:
    before = (people(), Membership.objects.count())
    idp.person = {"sub": "u-1", "email": email, "email_verified": True}
    response = come(client, idp)
    assert response.status_code == 403
    assert person(client) == ""
    assert (people(), Membership.objects.count()) == before


@pytest.mark.parametrize("verified", [False, None, "false", "yes", 1.5, "True "])
def test_an_address_the_provider_has_not_verified_is_nobodys(
    acme: Cast, idp: LittleProvider, client: Client, verified: Any
) -> None:
    idp.person["email_verified"] = verified
    refused(client, come(client, idp), "has verified your e-mail address")


def test_a_claim_that_nobody_confirmed_is_worth_nothing(
    acme: Cast, other: Cast, idp: LittleProvider, client: Client
) -> None:
    claim_domain(acting_user=None, organization=acme.organization, domain="other.example")
    idp.person = {"sub": "u-1", "email": "ann@other.example", "email_verified": True}
    refused(client, come(client, idp), "signs nobody in with an address of other.example")


def test_another_tenants_confirmed_domain_stays_theirs(
    acme: Cast, other: Cast, idp: LittleProvider, client: Client
) -> None:
    """Whoever of another tenant's people is a member here too is not signed in by this tenant's provider."""
    set_up(other.organization, idp, "other.example")
    add_member(acting_user=None, organization=acme.organization, email="bob@other.example", role=Role.ADMIN)
    idp.person = {"sub": "u-1", "email": "bob@other.example", "email_verified": True}
    refused(client, come(client, idp), "signs nobody in with an address of other.example")


def test_a_known_subject_with_an_address_outside_is_refused(acme: Cast, idp: LittleProvider) -> None:
    come(Client(), idp)
    idp.person["email"] = "ann@other.example"
    client = Client()
    refused(client, come(client, idp), "signs nobody in")


def test_an_account_that_left_the_domain_is_no_longer_the_providers(acme: Cast, idp: LittleProvider) -> None:
    come(Client(), idp)
    User.objects.filter(pk=acme.ann.user.pk).update(email="ann@home.example")
    client = Client()
    refused(client, come(client, idp), "signs nobody in with an address of home.example")


def test_with_its_domain_the_provider_loses_its_people(acme: Cast, idp: LittleProvider) -> None:
    come(Client(), idp)
    drop_domain(acting_user=None, claim=acme.organization.email_domains.get())
    client = Client()
    refused(client, come(client, idp), "signs nobody in")


def test_operators_are_never_signed_in_by_a_tenants_provider(acme: Cast, idp: LittleProvider) -> None:
    User.objects.create_user("olga@acme.example", is_staff=True)
    idp.person = {"sub": "u-2", "email": "olga@acme.example", "email_verified": True}
    client = Client()
    refused(client, come(client, idp), "Operators of this gateway")
    # Nor somebody who became one.
    idp.person = {"sub": "u-1", "email": "ann@acme.example", "email_verified": True}
    come(Client(), idp)
    User.objects.filter(pk=acme.ann.user.pk).update(is_staff=True)
    refused(client, come(client, idp), "Operators of this gateway")


def test_an_account_that_is_off_stays_off(acme: Cast, idp: LittleProvider, client: Client) -> None:
    User.objects.filter(pk=acme.ann.user.pk).update(is_active=False)
    refused(client, come(client, idp), "switched off")


def test_a_suspended_organization_signs_nobody_in(acme: Cast, idp: LittleProvider, client: Client) -> None:
    acme.organization.suspended_at = timezone.now()
    acme.organization.save(update_fields=["suspended_at"])
    assert come(client, idp).status_code == 404


def test_where_operators_make_accounts_the_provider_makes_none(
    acme: Cast, idp: LittleProvider, client: Client, settings: Any
) -> None:
    settings.SIGN_UP = "closed"
    idp.person = NEW
    refused(client, come(client, idp), "Accounts are made by operators")
    assert "nina@acme.example" not in people()


def test_whoever_made_the_account_in_advance_keeps_no_way_into_it(acme: Cast, idp: LittleProvider) -> None:
    """Somebody signs up with the address of another, and waits for its owner."""
    waiting = Client()
    planted = User.objects.create_user("nina@acme.example", PASSWORD)
    EmailAddress.objects.create(user=planted, email=planted.email, verified=False, primary=True)
    EmailAddress.objects.create(user=planted, email="mallory@evil.example", verified=True)
    assert waiting.login(username=planted.email, password=PASSWORD)
    idp.person = NEW
    owner = Client()
    come(owner, idp)
    assert person(owner) == str(planted.pk)
    assert not Client().login(username=planted.email, password=PASSWORD)
    assert waiting.get("/o/acme/").status_code == 302
    assert [row.email for row in EmailAddress.objects.filter(user=planted)] == ["nina@acme.example"]


def test_whoever_proved_the_address_keeps_their_password(acme: Cast, idp: LittleProvider) -> None:
    EmailAddress.objects.create(user=acme.ann.user, email="ann@acme.example", verified=True, primary=True)
    come(Client(), idp)
    assert Client().login(username="ann@acme.example", password=PASSWORD)


def test_a_second_factor_is_asked_for_after_the_provider(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    EmailAddress.objects.create(user=acme.ann.user, email="ann@acme.example", verified=True, primary=True)
    TOTP.activate(acme.ann.user, generate_totp_secret())
    assert come(client, idp)["Location"].startswith("/accounts/2fa/authenticate/")
    assert person(client) == ""


# --- Tokens that must not be believed -----------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://login.other.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": ["weir:console", "another-client"]},
        {"aud": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"iat": None},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(
    acme: Cast, idp: LittleProvider, client: Client, claims: dict[str, Any]
) -> None:
    idp.claims = claims
    refused(client, come(client, idp), "token")


def test_a_token_signed_by_somebody_else_is_refused(acme: Cast, idp: LittleProvider, client: Client) -> None:
    idp.signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(client, come(client, idp), "token is not valid")


@pytest.mark.parametrize(("algorithm", "signer"), [("HS256", SECRET * 2), ("none", None)])
def test_a_token_signed_by_a_shared_secret_or_by_nobody_is_refused(
    acme: Cast, idp: LittleProvider, client: Client, algorithm: str, signer: Any
) -> None:
    idp.algorithm, idp.signer = algorithm, signer
    refused(client, come(client, idp), "signed by a method that is not taken")


def test_userinfo_fills_in_an_address_that_the_token_lacks(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    idp.claims = {"email": None, "email_verified": None}
    come(client, idp)
    assert person(client) == str(acme.ann.user.pk)


def test_userinfo_of_somebody_else_is_refused(acme: Cast, idp: LittleProvider, client: Client) -> None:
    idp.claims = {"email": None, "email_verified": None}
    idp.told = {**idp.person, "sub": "u-2"}
    refused(client, come(client, idp), "userinfo is of somebody else")


def test_the_secret_goes_into_the_form_where_the_provider_wants_it_there(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    idp.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    come(client, idp)
    assert person(client) == str(acme.ann.user.pk)


def test_a_wrong_secret_says_what_the_provider_answered(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    save_provider(
        acting_user=None,
        organization=acme.organization,
        issuer=idp.issuer,
        client_id="weir:console",
        secret="wrong",
    )
    refused(client, come(client, idp), "answered with status 400")


# --- The way there and back -----------------------------------------------------------------------------


def started(client: Client, idp: LittleProvider, slug: str = "acme") -> str:
    """Begin to sign in; the address to which the provider sends the browser back."""
    location = client.get(f"/sign-in/{slug}/start/").headers["Location"]
    back = urlsplit(idp.authorize(location))
    return f"{back.path}?{back.query}"


def test_an_answer_works_once(acme: Cast, idp: LittleProvider, client: Client) -> None:
    back = started(client, idp)
    assert client.get(back).status_code == 302
    # In the same session, which signing out would empty.
    again = client.get(back)
    assert again.status_code == 403
    assert "begun elsewhere" in said(again)


def test_an_answer_in_another_browser_signs_nobody_in(acme: Cast, idp: LittleProvider) -> None:
    back, stranger = started(Client(), idp), Client()
    refused(stranger, stranger.get(back), "begun elsewhere")
    started(stranger, idp)
    refused(stranger, stranger.get(back), "begun elsewhere")


def test_an_answer_that_comes_late_signs_nobody_in(acme: Cast, idp: LittleProvider, client: Client) -> None:
    back = started(client, idp)
    session = client.session
    session["single_sign_on_pending"] = {
        **session["single_sign_on_pending"],
        "at": session["single_sign_on_pending"]["at"] - 901,
    }
    session.save()
    refused(client, client.get(back), "too long ago")


def test_an_answer_to_another_organizations_address_signs_nobody_in(
    acme: Cast, other: Cast, idp: LittleProvider, client: Client
) -> None:
    """Else a provider of one organization could answer what was asked of another's."""
    set_up(other.organization, idp, "other.example")
    back = started(client, idp)
    refused(client, client.get(back.replace("/acme/", "/other/")), "begun elsewhere")


def test_what_the_provider_refuses_is_said_without_its_words(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    back = started(client, idp)
    state = parse_qs(urlsplit(back).query)["state"][0]
    answer = client.get("/sign-in/acme/callback/", {"state": state, "error": "access_denied"})
    refused(client, answer, "answered: access_denied.")
    started(client, idp)
    state = client.session["single_sign_on_pending"]["state"]
    answer = client.get("/sign-in/acme/callback/", {"state": state, "error": "<b>Call 0900</b>"})
    refused(client, answer, "answered: no code.")


@pytest.mark.parametrize(
    ("wanted", "led"),
    [
        ("/o/acme/keys/?q=a", "/o/acme/keys/?q=a"),
        ("https://evil.example/", "/o/acme/"),
        ("//evil.example/", "/o/acme/"),
        ("javascript:alert(1)", "/o/acme/"),
    ],
)
def test_the_way_ends_within_the_console(
    acme: Cast, idp: LittleProvider, client: Client, wanted: str, led: str
) -> None:
    assert come(client, idp, wanted=wanted)["Location"] == led


def test_nothing_of_whoever_was_signed_in_is_left_to_the_next(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    client.force_login(acme.bob.user, backend="django.contrib.auth.backends.ModelBackend")
    session = client.session
    session["kept"] = "of bob"
    session.save()
    come(client, idp)
    assert person(client) == str(acme.ann.user.pk)
    assert "kept" not in client.session


def test_the_form_finds_the_organization_by_the_domain(acme: Cast, other: Cast, client: Client) -> None:
    found = client.post("/sign-in/", {"email": "Somebody@ACME.example"})
    assert found["Location"] == "/sign-in/acme/"
    assert client.post("/sign-in/", {"email": "ann@other.example"}).status_code == 422
    page = said(client.get("/sign-in/acme/"))
    assert "127.0.0.1" in page
    assert "somebody@acme.example" in page


# --- What the provider may make the gateway do ------------------------------------------------------------


def test_the_discovery_document_must_be_of_the_issuer(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    idp.document = {"issuer": "https://login.other.example"}
    refused(client, come(client, idp), "of another issuer")


@pytest.mark.parametrize("name", ["token_endpoint", "jwks_uri", "authorization_endpoint"])
def test_a_document_without_an_endpoint_says_so(
    acme: Cast, idp: LittleProvider, client: Client, name: str
) -> None:
    idp.document = {name: None}
    refused(client, come(client, idp), f"names no {name}")


def test_an_authorization_endpoint_that_is_a_script_is_refused(
    acme: Cast, idp: LittleProvider, client: Client
) -> None:
    idp.document = {"authorization_endpoint": "javascript:alert(1)"}
    refused(client, come(client, idp), "must begin with https://")


def test_the_gateway_is_not_made_to_call_into_its_own_network(
    acme: Cast, idp: LittleProvider, client: Client, settings: Any
) -> None:
    settings.WEBHOOK_PRIVATE_ADDRESSES = False
    refused(client, come(client, idp), "must begin with https://")
    provider = SignInProvider.objects.get()
    save_provider(
        acting_user=None,
        organization=acme.organization,
        issuer="https://127.0.0.1:9/realm",
        client_id=provider.client_id,
        secret="x",
    )
    refused(client, come(client, idp), "leads into a private network")
    assert idp.paths == []


def test_another_issuer_starts_without_the_identities_of_the_former(acme: Cast, idp: LittleProvider) -> None:
    come(Client(), idp)
    assert SignInIdentity.objects.count() == 1
    save_provider(
        acting_user=None,
        organization=acme.organization,
        issuer="https://login.acme.example",
        client_id="weir",
        secret="x",
    )
    assert SignInIdentity.objects.count() == 0


def test_a_domain_is_of_one_organization(acme: Cast, other: Cast) -> None:
    claim = claim_domain(acting_user=None, organization=other.organization, domain=" ACME.example ")
    with pytest.raises(ValueError, match="belongs to another organization"):
        confirm_domain(acting_user=None, claim=claim)
    claim.refresh_from_db()
    assert claim.confirmed_at is None


@pytest.mark.parametrize(
    "domain", ["", "example", "a b.example", "ann@acme.example", "10.0.0.1", "-a.example", "."]
)
def test_what_is_no_domain_cannot_be_claimed(acme: Cast, domain: str) -> None:
    with pytest.raises(ValueError, match="not a domain"):
        claim_domain(acting_user=None, organization=acme.organization, domain=domain)
