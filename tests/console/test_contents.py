"""Who may read what was asked and answered reads it by a button, and each time is in the audit log."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.test import Client
from django_scopes import scopes_disabled

from billing.models import RequestContent
from billing.request_content import Content, Text
from tenants.models import AuditEntry, Membership, Organization
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_member, make_tenant, utc
from tests.console.test_requests import text_of

pytestmark = pytest.mark.django_db
PAGE = "/o/acme/requests/req-1/"
SHOW = f"{PAGE}content/"
PROMPT = "Is <script>alert(1)</script> safe?"
STREAM = (
    'data: {"choices":[{"delta":{"content":"Yes"}}]}\n\ndata: {"choices":[{"delta":{"content":", quite."}}]}'
    "\n\ndata: [DONE]\n\n"
)


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def signed_in(membership: Membership) -> Client:
    client = Client()
    client.force_login(membership.user)
    return client


def person(acme: Tenant, role: Role) -> Client:
    return signed_in(make_member(acme.organization, f"{role.value}@acme.example", role))


def stored(acme: Tenant, answer: str = STREAM) -> None:
    event(acme.backend, "2026-03-10T10:00", "req-1")
    asked = f'{{"messages":[{{"role":"user","content":"{PROMPT}"}}]}}'
    content = Content(Text(asked, 4321, cut=True), Text(answer, len(answer), cut=False))
    with scopes_disabled():
        RequestContent.objects.create(
            organization=acme.organization,
            request_id="req-1",
            started_at=utc("2026-03-10T10:00"),
            content=content.sealed(),
        )


def looks() -> list[tuple[Any, ...]]:
    with scopes_disabled():
        entries = AuditEntry.objects.filter(target_type="requestcontent").order_by("pk")
        return list(entries.values_list("actor__email", "verb", "target_label"))


def test_the_button_shows_it_and_each_time_is_in_the_audit_log(acme: Tenant) -> None:
    stored(acme)
    owner = person(acme, Role.OWNER)
    page = owner.get(PAGE).content.decode()
    assert "Show content" in page
    assert "alert(1)" not in page
    assert looks() == []
    for _ in range(2):
        answer = owner.post(SHOW)
        assert answer.status_code == 200
        assert answer["cache-control"] == "no-store"
    html = answer.content.decode()
    assert "<script>alert" not in html
    shown = text_of(html)
    assert "Is &lt;script&gt;alert(1)&lt;/script&gt; safe?" in shown
    assert "4,321 bytes, cut: this is the beginning" in shown
    assert "Yes, quite." in shown
    assert looks() == [("owner@acme.example", "shown", "req-1")] * 2


def test_a_plain_answer_is_shown_as_it_was(acme: Tenant) -> None:
    stored(acme, "Not JSON, and no stream.")
    assert "Not JSON, and no stream." in text_of(person(acme, Role.ADMIN).post(SHOW).content.decode())


@pytest.mark.parametrize("role", [Role.FINANCE, Role.MEMBER, Role.VIEWER])
def test_others_are_told_that_it_is_there_and_no_more(acme: Tenant, role: Role) -> None:
    stored(acme)
    client = person(acme, role)
    if role is Role.FINANCE:
        page = text_of(client.get(PAGE).content.decode())
        assert "Owners and admins can read it" in page
        assert "Show content" not in page
    assert client.post(SHOW).status_code == 403
    assert looks() == []


def test_what_is_not_stored_is_said_where_it_should_be(acme: Tenant) -> None:
    event(acme.backend, "2026-03-10T10:00", "req-1")
    owner = person(acme, Role.OWNER)
    assert "Request and answer" not in owner.get(PAGE).content.decode()
    assert owner.post(SHOW).status_code == 404
    Organization.objects.filter(slug="acme").update(log_content=True)
    assert "Nothing is stored of this request" in text_of(owner.get(PAGE).content.decode())


def test_without_its_key_it_says_so_and_that_somebody_looked_is_known(acme: Tenant, settings: Any) -> None:
    stored(acme)
    settings.CREDENTIAL_KEYS = [Fernet.generate_key().decode()]
    answer = person(acme, Role.OWNER).post(SHOW)
    assert "It can no longer be read" in text_of(answer.content.decode())
    assert len(looks()) == 1


def test_another_tenants_content_does_not_exist(acme: Tenant) -> None:
    stored(acme)
    other = make_tenant("globex")
    stranger = make_member(other.organization, "owner@globex.example", Role.OWNER)
    assert signed_in(stranger).post(SHOW).status_code == 404
    assert signed_in(stranger).post("/o/globex/requests/req-1/content/").status_code == 404
