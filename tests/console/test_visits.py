"""Operators in a tenant's pages: how a visit begins, what it shows, and that it is over when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.urls import reverse
from django_scopes import scopes_disabled

from gateway.tasks import close_visits
from tenants.models import AuditEntry, Membership, Organization, User, Visit
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, make_member, make_tenant
from tests.signed_in import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def everywhere() -> Iterator[None]:
    """These tests read all tenants' logs."""
    with scopes_disabled():
        yield


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def olga(db: None) -> User:
    return User.objects.create_user("olga@platform.example", is_staff=True)


@pytest.fixture
def operator(olga: User) -> Client:
    return signed_in(olga)


HOME = "/o/acme/"


def start(client: Client, **changes: Any) -> Any:
    data = {"do": "start", "reason": "Ticket 4711", "minutes": "30", **changes}
    return client.post(reverse("operator:tenant_visit", args=["acme"]), data)


def end(client: Client) -> Any:
    return client.post(reverse("operator:tenant_visit", args=["acme"]), {"do": "end"})


def log() -> list[tuple[str, str, str]]:
    entries = AuditEntry.objects.filter(target_type="visit").order_by("pk")
    return [
        (entry.organization.slug, entry.verb, entry.target_label) for entry in entries if entry.organization
    ]


def test_without_a_visit_there_is_no_page(acme: Tenant, operator: Client) -> None:
    assert operator.get(HOME).status_code == 404


def test_a_visit_opens_the_pages_under_a_banner(acme: Tenant, operator: Client) -> None:
    assert start(operator).headers["Location"] == HOME
    page = operator.get(HOME).content.decode()
    assert "olga@platform.example is visiting Acme as an operator" in page
    assert "Reason: Ticket 4711" in page
    visit = Visit.objects.get()
    assert visit.ends_at - visit.started_at == timedelta(minutes=30)
    local = visit.ends_at.astimezone(ZoneInfo("Europe/Berlin"))
    assert f"until {local:%H:%M} (CE" in page


def test_the_beginning_and_the_end_stand_in_the_tenants_log(
    acme: Tenant, operator: Client, olga: User
) -> None:
    start(operator)
    end(operator)
    assert log() == [("acme", "started", str(olga)), ("acme", "ended", str(olga))]
    first = AuditEntry.objects.filter(target_type="visit").earliest("pk")
    assert (first.actor, first.detail["reason"]) == (olga, "Ticket 4711")
    owner = signed_in(make_member(acme.organization, "owner@acme.example", Role.OWNER).user)
    page = owner.get("/o/acme/audit/").content.decode()
    assert "Operator&#x27;s visit" in page
    assert "Ticket 4711" in page


def test_an_ended_visit_shows_nothing_more(acme: Tenant, operator: Client) -> None:
    start(operator)
    end(operator)
    assert operator.get(HOME).status_code == 404
    # A second click ends nothing twice.
    end(operator)
    assert [verb for _, verb, _ in log()] == ["started", "ended"]


def test_a_visit_whose_time_is_over_shows_nothing_and_its_end_is_logged_once(
    acme: Tenant, operator: Client
) -> None:
    start(operator)
    over = datetime.now(UTC) - timedelta(seconds=1)
    Visit.objects.update(ends_at=over)
    assert operator.get(HOME).status_code == 404
    close_visits()
    close_visits()
    assert Visit.objects.get().ended_at == over
    assert [verb for _, verb, _ in log()] == ["started", "ended"]


def test_a_new_visit_ends_the_one_before(acme: Tenant, operator: Client) -> None:
    start(operator)
    start(operator, reason="Ticket 4712")
    assert [verb for _, verb, _ in log()] == ["started", "ended", "started"]
    assert Visit.objects.get(ended_at__isnull=True).reason == "Ticket 4712"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reason": "  "}, "reason: say why"),
        ({"reason": "x" * 201}, "reason: Ensure this value has at most 200 characters"),
        ({"minutes": "61"}, "minutes: between 1 and 60"),
        ({"minutes": "0"}, "minutes: between 1 and 60"),
        ({"minutes": "soon"}, "minutes: between 1 and 60"),
    ],
)
def test_no_visit_without_a_reason_or_for_longer_than_an_hour(
    acme: Tenant, operator: Client, wrong: dict[str, str], said: str
) -> None:
    page = operator.get(start(operator, **wrong).headers["Location"]).content.decode()
    assert said in page
    assert not Visit.objects.exists()
    assert operator.get(HOME).status_code == 404


def test_a_member_needs_no_visit_and_keeps_their_own_rights(
    acme: Tenant, olga: User, operator: Client
) -> None:
    Membership.objects.create(organization=acme.organization, user=olga, role=Role.OWNER.value)
    start(operator)
    assert not Visit.objects.exists()
    assert "is visiting" not in operator.get(HOME).content.decode()


def test_a_suspended_organization_is_not_visited(acme: Tenant, operator: Client) -> None:
    start(operator)
    Organization.objects.filter(slug="acme").update(suspended_at=datetime.now(UTC))
    assert operator.get(HOME).status_code == 404
    start(operator)
    assert [verb for _, verb, _ in log()] == ["started"]


def test_a_visit_is_for_its_organization_and_its_operator_alone(acme: Tenant, operator: Client) -> None:
    make_tenant("globex")
    other = signed_in(User.objects.create_user("oleg@platform.example", is_staff=True))
    start(operator)
    assert operator.get("/o/globex/").status_code == 404
    assert other.get(HOME).status_code == 404


def test_who_is_no_operator_any_more_visits_no_more(acme: Tenant, olga: User, operator: Client) -> None:
    start(operator)
    User.objects.filter(pk=olga.pk).update(is_staff=False)
    assert operator.get(HOME).status_code == 404
