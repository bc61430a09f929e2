"""The owner's page: the provider, its secret, the domains; and the operator who confirms them."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django_scopes import scopes_disabled

from gateway.models import EmailDomain, SignInProvider
from routing.credentials import decrypt
from tenants.models import AuditEntry, User
from tests.cast import Cast
from tests.signed_in import signed_in
from tests.single_sign_on.conftest import said
from tests.single_sign_on.provider import CLIENT_ID, SECRET, LittleProvider

pytestmark = pytest.mark.django_db
PAGE = "/o/other/sign-in/"


@pytest.fixture
def owner(other: Cast) -> Client:
    """The browser of an owner of an organization without a provider."""
    return signed_in(other.ann.user)


@pytest.fixture
def operator(db: None) -> Client:
    olga = User.objects.create_user("olga@platform.example", is_staff=True)
    return signed_in(olga)


def save(client: Client, idp: LittleProvider, **changes: Any) -> Any:
    data = {"issuer": idp.issuer, "client_id": CLIENT_ID, "secret": SECRET, **changes}
    return client.post(PAGE, data, follow=True)


def test_an_owner_sets_the_provider_and_tests_it(owner: Client, other: Cast, idp: LittleProvider) -> None:
    assert "http://testserver/sign-in/other/callback/" in said(owner.get(PAGE))
    assert "Saved the provider" in said(save(owner, idp))
    assert idp.paths == []
    tested = owner.post(f"{PAGE}change/", {"do": "test"}, follow=True)
    assert "The provider answers, and signs people in at 127.0.0.1" in said(tested)
    assert idp.paths == ["/realm/.well-known/openid-configuration"]


def test_a_test_says_what_is_wrong(owner: Client, idp: LittleProvider) -> None:
    save(owner, idp)
    idp.status = 503
    tested = owner.post(f"{PAGE}change/", {"do": "test"}, follow=True)
    assert "127.0.0.1 answered with status 503" in said(tested)
    idp.status, idp.document = 200, {"issuer": "https://else.example"}
    tested = owner.post(f"{PAGE}change/", {"do": "test"}, follow=True)
    assert "of another issuer: https://else.example" in said(tested)


def test_the_secret_is_encrypted_and_never_shown(owner: Client, other: Cast, idp: LittleProvider) -> None:
    pages = [save(owner, idp), owner.get(PAGE), save(owner, idp, issuer="no address")]
    assert all(SECRET not in page.content.decode() for page in pages)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT ciphertext FROM gateway_signinprovider WHERE organization_id = %s",
            [other.organization.pk],
        )
        ciphertext = bytes(cursor.fetchone()[0])
    assert SECRET.encode() not in ciphertext
    assert decrypt(ciphertext) == SECRET
    assert not AuditEntry.objects.filter(detail__icontains=SECRET).exists()


def test_an_empty_secret_keeps_the_one_there_is(owner: Client, other: Cast, idp: LittleProvider) -> None:
    assert "Enter the client secret" in said(save(owner, idp, secret=""))
    save(owner, idp)
    save(owner, idp, client_id="other", secret="")
    provider = SignInProvider.objects.get(organization=other.organization)
    assert (provider.client_id, decrypt(provider.ciphertext)) == ("other", SECRET)


def test_the_secret_of_one_issuer_is_not_sent_to_another(
    owner: Client, other: Cast, idp: LittleProvider
) -> None:
    save(owner, idp)
    answer = save(owner, idp, issuer="https://else.example", secret="")
    assert "Another issuer has another client secret" in said(answer)
    assert SignInProvider.objects.get(organization=other.organization).issuer == idp.issuer


@pytest.mark.parametrize(
    "issuer",
    [
        "login.example.com",
        "ftp://login.example.com",
        "https://user@login.example.com",
        "https://login.example.com/?a=b",
        "https://[",
        "https://login.example.com/.well-known/openid-configuration",
    ],
)
def test_what_is_no_issuer_is_refused(owner: Client, idp: LittleProvider, issuer: str) -> None:
    assert save(owner, idp, issuer=issuer).status_code == 422
    assert not SignInProvider.objects.filter(organization__slug="other").exists()


def test_a_domain_is_claimed_by_the_owner_and_confirmed_by_an_operator(
    owner: Client, other: Cast, operator: Client
) -> None:
    owner.post(f"{PAGE}domains/", {"domain": "Other.Example"})
    claim = EmailDomain.objects.get(domain="other.example")
    record = f"weir-domain-verification={claim.token}"
    assert record in said(owner.get(PAGE))
    assert "Waiting" in said(owner.get(PAGE))
    assert record in said(operator.get("/operator/tenants/other/"))
    operator.post(reverse("operator:tenant_domain", args=["other", claim.pk]), {"do": "confirm"})
    assert "Confirmed" in said(owner.get(PAGE))
    verbs = AuditEntry.objects.filter(target_type="emaildomain", organization=other.organization)
    assert [(entry.verb, str(entry.actor)) for entry in verbs.order_by("pk")] == [
        ("claimed", "ann@other.example"),
        ("confirmed", "olga@platform.example"),
    ]


def test_an_operator_is_told_that_a_domain_is_anothers(owner: Client, operator: Client) -> None:
    owner.post(f"{PAGE}domains/", {"domain": "acme.example"})
    claim = EmailDomain.objects.get(organization__slug="other")
    address = reverse("operator:tenant_domain", args=["other", claim.pk])
    assert "belongs to another organization" in said(operator.post(address, {"do": "confirm"}, follow=True))
    operator.post(address, {"do": "refuse"})
    assert not EmailDomain.objects.filter(organization__slug="other").exists()


def test_a_claim_is_decided_on_its_own_tenants_page_only(owner: Client, operator: Client) -> None:
    claim = EmailDomain.objects.get(organization__slug="acme")
    address = reverse("operator:tenant_domain", args=["other", claim.pk])
    assert operator.post(address, {"do": "refuse"}).status_code == 404
    assert EmailDomain.objects.filter(pk=claim.pk).exists()


def test_a_claim_twice_is_said_in_place(owner: Client) -> None:
    owner.post(f"{PAGE}domains/", {"domain": "other.example"})
    again = owner.post(f"{PAGE}domains/", {"domain": "other.example"})
    assert again.status_code == 422
    assert "other.example is claimed already" in said(again)


def test_the_provider_goes_and_members_stay(owner: Client, other: Cast, idp: LittleProvider) -> None:
    save(owner, idp)
    owner.post(f"{PAGE}change/", {"do": "remove"})
    with scopes_disabled():
        assert not SignInProvider.objects.filter(organization=other.organization).exists()
    assert owner.get(PAGE).status_code == 200
    assert Client().get("/sign-in/other/").status_code == 404
