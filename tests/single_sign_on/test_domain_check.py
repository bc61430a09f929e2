"""An owner has a domain's TXT record looked up: what confirms the domain, and what is said when nothing does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from gateway.models import EmailDomain
from gateway.single_sign_on.domains import claim_domain, confirm_domain, record_of
from gateway.single_sign_on.records import server_address
from tenants.models import AuditEntry
from tests.cast import Cast
from tests.name_server import NameServer
from tests.signed_in import signed_in
from tests.single_sign_on.conftest import said

pytestmark = pytest.mark.django_db


@pytest.fixture
def names(settings: Any) -> Iterator[NameServer]:
    """The one name server that is asked."""
    running = NameServer()
    settings.DNS_RESOLVER = [running.address]
    # However slow the machine is.
    settings.DNS_SECONDS = 60.0
    # What counts attempts outlives a test.
    cache.clear()
    yield running
    running.close()


@pytest.fixture
def claim(other: Cast, names: NameServer) -> EmailDomain:
    return claim_domain(acting_user=None, organization=other.organization, domain="Other.example")


@pytest.fixture
def owner(other: Cast) -> Client:
    return signed_in(other.ann.user)


def check(owner: Client, claim: EmailDomain) -> str:
    """What the page says after “Check now”."""
    return said(owner.post(f"/o/other/sign-in/domains/{claim.pk}/check/", follow=True))


def confirmed(claim: EmailDomain) -> bool:
    claim.refresh_from_db()
    return claim.confirmed_at is not None


def test_the_record_confirms_the_domain_and_the_log_says_by_whom(
    owner: Client, claim: EmailDomain, names: NameServer
) -> None:
    names.records["other.example"] = [["v=spf1 -all"], [record_of(claim)]]
    assert "Check now" in said(owner.get("/o/other/sign-in/"))
    page = check(owner, claim)
    assert "other.example is yours" in page
    assert "Check now" not in page
    assert confirmed(claim)
    entry = AuditEntry.objects.latest("pk")
    assert (str(entry.actor), entry.verb, entry.detail) == (
        "ann@other.example",
        "confirmed",
        {"by": "TXT record"},
    )


def test_a_record_that_is_cut_in_parts_is_one_text(
    owner: Client, claim: EmailDomain, names: NameServer
) -> None:
    text = record_of(claim)
    names.records["other.example"] = [[text[:10], text[10:]]]
    check(owner, claim)
    assert confirmed(claim)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (None, "there is no other.example"),
        ([], "no other TXT records found"),
        ([["v=spf1 -all"], ["google=1"]], "2 other TXT records found"),
        ([["weir-domain-verification=0123"]], "another claim&#x27;s record found"),
    ],
)
def test_without_it_nothing_is_confirmed_and_what_was_found_is_said(
    owner: Client, claim: EmailDomain, names: NameServer, records: list[list[str]] | None, words: str
) -> None:
    if records is not None:
        names.records["other.example"] = records
    before = AuditEntry.objects.count()
    assert words in check(owner, claim)
    assert (confirmed(claim), AuditEntry.objects.count()) == (False, before)


def test_a_record_at_a_subdomain_is_not_enough(owner: Client, claim: EmailDomain, names: NameServer) -> None:
    names.records |= {"other.example": [], "_weir.other.example": [[record_of(claim)]]}
    check(owner, claim)
    assert (confirmed(claim), names.asked) == (False, ["other.example"])


def test_a_longer_text_with_the_record_in_it_is_not_enough(
    owner: Client, claim: EmailDomain, names: NameServer
) -> None:
    names.records["other.example"] = [[f"see {record_of(claim)}"], [f"{record_of(claim)}0"]]
    check(owner, claim)
    assert not confirmed(claim)


def test_name_servers_that_fail_are_told_from_a_missing_record(
    owner: Client, claim: EmailDomain, names: NameServer, settings: Any
) -> None:
    names.broken = True
    assert "answer with an error" in check(owner, claim)
    names.broken, names.silent, settings.DNS_SECONDS = False, True, 0.5
    assert "No name server answered within 0.5 seconds" in check(owner, claim)
    assert not confirmed(claim)


def test_addresses_that_are_none_are_the_operators_to_mend(
    owner: Client, claim: EmailDomain, settings: Any
) -> None:
    settings.DNS_RESOLVER = ["dns.example"]
    assert "DNS_RESOLVER" in check(owner, claim)
    assert not confirmed(claim)


def test_a_domain_of_another_organization_stays_theirs(
    owner: Client, acme: Cast, claim: EmailDomain, names: NameServer
) -> None:
    theirs = claim_domain(acting_user=None, organization=acme.organization, domain="other.example")
    confirm_domain(acting_user=None, claim=theirs)
    names.records["other.example"] = [[record_of(claim)]]
    assert "belongs to another organization" in check(owner, claim)
    assert not confirmed(claim)


def test_another_organizations_claim_is_not_there(owner: Client, acme: Cast, names: NameServer) -> None:
    theirs = claim_domain(acting_user=None, organization=acme.organization, domain="else.example")
    names.records["else.example"] = [[record_of(theirs)]]
    assert owner.post(f"/o/other/sign-in/domains/{theirs.pk}/check/").status_code == 404
    assert names.asked == []


def test_it_is_not_asked_without_end(owner: Client, claim: EmailDomain, settings: Any) -> None:
    # Ten a minute by default; a minute may be short for this machine.
    settings.ACCOUNT_RATE_LIMITS = {"domain_check": "2/d/user"}
    address = f"/o/other/sign-in/domains/{claim.pk}/check/"
    assert [owner.post(address).status_code for _ in range(3)] == [302, 302, 429]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9.9.9.9", ("9.9.9.9", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("2620:fe::fe", ("2620:fe::fe", 53)),
        ("[2620:fe::fe]:5353", ("2620:fe::fe", 5353)),
    ],
)
def test_addresses_of_name_servers(text: str, expected: tuple[str, int]) -> None:
    assert server_address(text) == expected


def test_sign_ins_begun_again_and_again_wait(acme: Cast, client: Client, settings: Any) -> None:
    assert settings.ACCOUNT_RATE_LIMITS["single_sign_on"] == "60/m/ip"
    settings.ACCOUNT_RATE_LIMITS = {"single_sign_on": "2/d/ip"}
    start = "/sign-in/acme/start/"
    assert [client.get(start).status_code for _ in range(3)] == [302, 302, 429]
    assert "Too many attempts" in said(client.get(start))
    assert client.post("/sign-in/", {"email": "ann@acme.example"}).status_code == 429
    assert client.get("/sign-in/acme/").status_code == 200
