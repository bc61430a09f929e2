"""The lists of the console: each can be searched, read page by page, and taken whole as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django_scopes import scopes_disabled

from billing.services.quotas import raise_quota, set_quota
from gateway.models import Delivery, NotificationChannel
from tenants.models import (
    ApiKey,
    AuditEntry,
    Invitation,
    Membership,
    Organization,
    Team,
    TeamMembership,
    User,
)
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, make_key, make_member, make_tenant, rollup

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),
]
ACME = "/o/acme/"


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme", "UTC")


def signed_in(membership: Membership) -> Client:
    client = Client()
    client.force_login(membership.user)
    return client


@pytest.fixture
def owner(acme: Tenant) -> Client:
    return signed_in(make_member(acme.organization, "owner@acme.example", Role.OWNER))


def lines(client: Client, address: str) -> list[dict[str, str]]:
    response: Any = client.get(ACME + address)
    assert response.status_code == 200
    return list(csv.DictReader(io.StringIO(b"".join(response).decode())))


def pages(client: Client, address: str, following: str) -> Iterator[Any]:
    """The context of each page, from the first on."""
    page, _, query = address.partition("?")
    while True:
        context = client.get(f"{ACME}{page}?{query.removeprefix('?').partition('#')[0]}").context
        yield context
        query = context[following]
        if not query:
            return


def now_text(**ago: int) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:00")


# --- Keys -----------------------------------------------------------------------------------------


def test_keys_of_any_number_are_read_page_by_page(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        # A page ends within a team, and within keys of one name, of which all but one are revoked.
        made = ApiKey.objects.bulk_create(
            ApiKey(
                organization=acme.organization,
                team=acme.ads if number % 2 else acme.search,
                name=f"app-{number // 10:02}",
                prefix="sk-weir-abcd",
                last_four="wxyz",
                digest=f"many-{number}",
                revoked_at=datetime.now(UTC) if number % 10 > 1 else None,
            )
            for number in range(220)
        )
        team = {acme.ads.pk: "Ads", acme.search.pk: "Search"}
        expected = sorted(
            [*made, acme.backend, acme.batch, acme.banner],
            key=lambda key: (team[key.team_id], key.name, -key.pk),
        )
    found = [[row.key.pk for row in page["rows"]] for page in pages(owner, "keys/?state=all", "next")]
    assert [len(page) for page in found] == [100, 100, 23]
    assert [number for page in found for number in page] == [key.pk for key in expected]
    listed = [int(line["id"]) for line in lines(owner, "keys/keys.csv?state=all")]
    assert listed == [number for page in found for number in page]


def test_the_file_of_keys_has_what_the_filters_find_and_nothing_secret(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, now_text(), "1.25")
    with scopes_disabled():
        ApiKey.objects.filter(pk=acme.batch.pk).update(revoked_at=datetime.now(UTC))
        ApiKey.objects.filter(pk=acme.banner.pk).update(name="=1+1")
    assert [line["name"] for line in lines(owner, "keys/keys.csv")] == ["'=1+1", "backend"]
    every = lines(owner, "keys/keys.csv?state=all&team=search")
    assert [(line["name"], line["status"], line["owner"], line["spent_this_month"]) for line in every] == [
        ("backend", "active", "ann@acme.example", "1.25"),
        ("batch", "revoked", "", "0.00"),
    ]
    assert [line["name"] for line in lines(owner, "keys/keys.csv?q=ann%40")] == ["backend"]
    assert every[0]["key"] == "sk-weir-abcd…wxyz"
    text = b"".join(owner.get(f"{ACME}keys/keys.csv?state=all")).decode()
    assert acme.backend.digest not in text


def test_a_member_takes_the_keys_they_see(acme: Tenant) -> None:
    assert [line["name"] for line in lines(signed_in(acme.ann), "keys/keys.csv")] == ["backend"]


# --- People ---------------------------------------------------------------------------------------


def test_the_file_of_members_has_their_teams_and_what_one_may_know_of_their_spending(
    acme: Tenant, owner: Client
) -> None:
    bob = make_member(acme.organization, "bob@acme.example", Role.MEMBER, acme.ads)
    make_key(acme.ads, "of bob", bob)
    rollup(acme.backend, now_text(), "2")
    found = {line["email"]: line for line in lines(owner, "members/members.csv")}
    assert list(found) == ["ann@acme.example", "bob@acme.example", "owner@acme.example"]
    assert (found["bob@acme.example"]["role"], found["bob@acme.example"]["teams"]) == (
        "member",
        '{"ads":"admin"}',
    )
    assert found["ann@acme.example"]["spent_this_month"] == "2.00"
    assert [line["email"] for line in lines(owner, "members/members.csv?of=ads")] == ["bob@acme.example"]
    assert lines(owner, "members/members.csv?of=nothing") == []
    assert [line["email"] for line in lines(owner, "members/members.csv?q=ANN")] == ["ann@acme.example"]
    own = {
        line["email"]: line["spent_this_month"] for line in lines(signed_in(acme.ann), "members/members.csv")
    }
    assert own == {"ann@acme.example": "2.00", "bob@acme.example": "", "owner@acme.example": ""}


def test_teams_are_read_page_by_page_searched_and_taken_whole(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        Team.objects.bulk_create(
            Team(organization=acme.organization, slug=f"t{number:03}", name=f"Team {number // 2:03}")
            for number in range(105)
        )
    found = [[team.slug for team, _ in page["teams"]] for page in pages(owner, "members/", "teams_next")]
    assert [len(page) for page in found] == [100, 7]
    listed = [slug for page in found for slug in page]
    assert listed == ["ads", "search", *(f"t{number:03}" for number in range(105))]
    every = lines(owner, "members/teams.csv")
    assert [line["team"] for line in every] == listed
    assert (every[1]["keys"], every[1]["members"]) == ("2", "0")
    assert [team.slug for team, _ in owner.get(f"{ACME}members/?q=SEAR").context["teams"]] == ["search"]
    assert [line["team"] for line in lines(owner, "members/teams.csv?q=SEAR")] == ["search"]


def invited(organization: Organization, count: int) -> None:
    with scopes_disabled():
        Invitation.objects.bulk_create(
            Invitation(
                organization=organization,
                email=f"guest-{number:03}@x.example",
                role="member",
                digest=f"{organization.slug}-{number}",
                expires_at=datetime.now(UTC) + timedelta(days=7),
            )
            for number in range(count)
        )


def test_invitations_are_read_page_by_page_searched_and_taken_whole(acme: Tenant, owner: Client) -> None:
    invited(acme.organization, 205)
    invited(make_tenant("other").organization, 1)
    found = [
        [each["invitation"].email for each in page["invitations"]]
        for page in pages(owner, "members/", "invitations_next")
    ]
    assert [len(page) for page in found] == [100, 100, 5]
    expected = [f"guest-{number:03}@x.example" for number in reversed(range(205))]
    assert [email for page in found for email in page] == expected
    assert [line["email"] for line in lines(owner, "members/invitations.csv")] == expected
    searched = owner.get(f"{ACME}members/?q=GUEST-07")
    assert len(searched.context["invitations"]) == 10
    assert len(lines(owner, "members/invitations.csv?q=GUEST-07")) == 10
    assert "Search members, invitations and teams" in searched.content.decode()


def test_who_manages_no_members_gets_no_invitations(acme: Tenant) -> None:
    invited(acme.organization, 1)
    ann = signed_in(acme.ann)
    assert ann.get(f"{ACME}members/").context["invitations"] == []
    assert ann.get(f"{ACME}members/invitations.csv").status_code == 403


def test_the_people_of_a_team_are_read_page_by_page_and_searched(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        users = User.objects.bulk_create(User(email=f"p{number:03}@x.example") for number in range(103))
        members = Membership.objects.bulk_create(
            Membership(organization=acme.organization, user=user, role="member") for user in users
        )
        TeamMembership.objects.bulk_create(
            TeamMembership(team=acme.ads, membership=member, role="member") for member in members
        )
    address = f"members/teams/{acme.ads.pk}/"
    found = [
        [place.membership.user.email for place in page["people"]] for page in pages(owner, address, "next")
    ]
    assert [len(page) for page in found] == [100, 3]
    assert [email for page in found for email in page] == [user.email for user in users]
    searched = owner.get(f"{ACME}{address}?q=p07")
    assert len(searched.context["people"]) == 10
    assert len(lines(owner, "members/members.csv?of=ads")) == 103


# --- The audit log, limits, notifications ---------------------------------------------------------


def test_the_file_of_the_audit_log_has_the_entries_that_the_search_finds(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        for number in range(60):
            AuditEntry.objects.create(
                organization=acme.organization,
                actor=acme.ann.user if number % 2 else None,
                verb="created",
                target_type="team" if number < 55 else "apikey",
                target_id=str(number),
                target_label=f"thing {number}",
                detail={"limit": {"from": "1", "to": "2"}},
            )
    every = lines(owner, "audit/audit.csv")
    assert [line["target_id"] for line in every] == [str(number) for number in reversed(range(60))]
    assert (every[0]["actor"], every[1]["actor"]) == ("ann@acme.example", "")
    assert json.loads(every[0]["detail"]) == {"limit": {"from": "1", "to": "2"}}
    assert len(lines(owner, "audit/audit.csv?kind=apikey")) == 5
    found = [
        [entry.target_id for entry, _, _ in page["entries"]]
        for page in pages(owner, "audit/?q=ann&kind=team", "next")
    ]
    assert found == [[line["target_id"] for line in lines(owner, "audit/audit.csv?q=ann&kind=team")]]


def test_the_pages_of_the_audit_log_keep_its_search(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        AuditEntry.objects.bulk_create(
            AuditEntry(
                organization=acme.organization,
                verb="created",
                target_type="team",
                target_id=str(number),
                target_label="odd" if number % 2 else "even",
            )
            for number in range(110)
        )
    first = owner.get(f"{ACME}audit/?q=odd").context
    assert "q=odd" in first["next"]
    second = owner.get(f"{ACME}audit/{first['next']}").context
    assert [entry.target_id for entry, _, _ in second["entries"]] == ["9", "7", "5", "3", "1"]


def test_the_file_of_limits_has_a_line_for_each(acme: Tenant, owner: Client) -> None:
    ann = acme.ann.user
    # The counter of a budget begins with what was spent before it.
    rollup(acme.backend, now_text(), "0.25")
    limits: tuple[tuple[str, Any, str, str, Decimal], ...] = (
        ("organization", acme.organization, "requests_per_minute", "", Decimal(600)),
        ("team", acme.search, "budget", "day", Decimal(5)),
        ("key", acme.backend, "budget", "month", Decimal("1.5")),
        ("member", acme.ann, "concurrency", "", Decimal(3)),
    )
    made = {}
    for scope, target, metric, period, limit in limits:
        made[scope] = set_quota(
            acting_user=ann, scope=scope, target=target, metric=metric, limit=limit, period=period
        )
    until = datetime.now(UTC) + timedelta(days=1)
    raise_quota(acting_user=ann, quota=made["team"], to=Decimal(7), until=until)
    found = [
        (line["layer"], line["name"], line["team"], line["limits"], line["period"], line["limit"])
        for line in lines(owner, "quotas/quotas.csv")
    ]
    assert found == [
        ("organization", "Acme", "", "requests_per_minute", "", "600"),
        ("team", "Search", "search", "budget", "day", "7.00"),
        ("key", "backend", "search", "budget", "month", "1.50"),
        ("member", "ann@acme.example", "", "concurrency", "", "3"),
    ]
    only = lines(owner, "quotas/quotas.csv?q=backend")
    of_key = next(line for line in only if line["layer"] == "key")
    assert (of_key["used"], of_key["held"], of_key["only_alerts"]) == ("0.25", "0.00", "false")
    assert all(line["layer"] != "member" for line in only)


def test_messages_are_read_page_by_page_searched_and_taken_whole(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        channel = NotificationChannel.objects.create(
            organization=acme.organization, kind="email", name="On call", topics=["budget"], roles=[]
        )
        Delivery.objects.bulk_create(
            Delivery(
                channel=channel,
                topic="budget",
                about=str(number),
                subject=f"Budget {number:02}",
                text="",
                state="failed" if number == 7 else "sent",
                problem="status 502" if number == 7 else "",
            )
            for number in range(30)
        )
    found = [[each.subject for each in page["deliveries"]] for page in pages(owner, "notifications/", "next")]
    assert [len(page) for page in found] == [25, 5]
    expected = [f"Budget {number:02}" for number in reversed(range(30))]
    assert [subject for page in found for subject in page] == expected
    assert [line["message"] for line in lines(owner, "notifications/deliveries.csv")] == expected
    (failed,) = lines(owner, "notifications/deliveries.csv?q=502")
    assert (failed["message"], failed["state"], failed["channel"]) == ("Budget 07", "failed", "On call")
    assert len(owner.get(f"{ACME}notifications/?q=502").context["deliveries"]) == 1


@pytest.mark.parametrize("address", ["keys/", "members/", "quotas/", "audit/", "notifications/"])
def test_words_that_no_database_takes_find_nothing_and_break_nothing(owner: Client, address: str) -> None:
    response = owner.get(f"{ACME}{address}?q=%00nothing%00&after=%00&before=9e9&team=x")
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("keys/", "keys/keys.csv"),
        ("members/", "members/members.csv"),
        ("quotas/", "quotas/quotas.csv"),
        ("audit/", "audit/audit.csv"),
    ],
)
def test_the_link_to_the_file_keeps_the_search(acme: Tenant, owner: Client, address: str, file: str) -> None:
    with scopes_disabled():
        AuditEntry.objects.create(
            organization=acme.organization, verb="made", target_type="t", target_id="1", target_label="ann&co"
        )
    page = owner.get(f"{ACME}{address}?q=ann").content.decode()
    assert re.search(rf'href="{ACME}{re.escape(file)}\?q=ann(&amp;[^"]*)?"', page)
