"""How many queries each page of the console makes for an owner: as committed here, however many rows there are.

A page is found by its row in ``READS`` of ``test_url_matrix``; a new one needs a number in ``QUERIES`` here.
What ``more`` does not make yet, a new page's rows for instance, belongs there.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing.models import (
    Budget,
    Checkout,
    Export,
    Quota,
    Schedule,
    ScheduleRecipient,
    ScheduleRun,
    TagValue,
)
from billing.reports import DIMENSIONS as REPORTS
from billing.services.end_users import block_end_user
from billing.services.prices import set_price
from billing.services.quotas import set_quota
from billing.services.wallet import top_up
from gateway.models import NotificationChannel
from gateway.single_sign_on.domains import claim_domain
from routing.models import Provider
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider
from tenants.models import Team, TeamMembership
from tenants.permissions import Role
from tenants.services.invitations import invite
from tests.billing.made_usage import event, make_key, make_member, rollup
from tests.console import test_url_matrix as matrix

pytestmark = pytest.mark.django_db

# The world of the matrix: a tenant in which every address has its object.
made, files, names, world = matrix.made, matrix.files, matrix.names, matrix.world

# Two of each are the session and the person, two more the membership and its teams.
QUERIES = {
    "console:audit": 7,
    "console:audit_csv": 5,
    "console:checkout": 6,
    "console:confirm": 3,
    "console:costs": 21,
    "console:costs_focus_csv": 33,
    "console:costs_focus_jsonl": 33,
    "console:costs_focus_xlsx": 33,
    "console:costs_report_csv": 11,
    "console:costs_report_jsonl": 11,
    "console:costs_report_xlsx": 11,
    "console:costs_usage_csv": 9,
    "console:costs_usage_jsonl": 9,
    "console:costs_usage_xlsx": 13,
    "console:deliveries_csv": 5,
    "console:end_user": 17,
    "console:end_users": 16,
    "console:end_users_csv": 10,
    "console:end_users_jsonl": 10,
    "console:end_users_xlsx": 10,
    "console:export_checksum": 5,
    "console:export_file": 5,
    "console:exports": 13,
    "console:funds": 5,
    "console:health": 6,
    "console:invitation_new": 7,
    "console:invitations_csv": 6,
    "console:key": 14,
    "console:key_edit": 7,
    "console:key_new": 10,
    "console:key_revoke": 7,
    "console:key_rotate": 6,
    "console:keys": 12,
    "console:keys_csv": 7,
    "console:ledger": 11,
    "console:ledger_csv": 5,
    "console:member_remove": 9,
    "console:members": 22,
    "console:members_csv": 12,
    "console:model": 8,
    "console:model_prices": 6,
    "console:model_why": 8,
    "console:models": 5,
    "console:notifications": 7,
    "console:organization_new": 2,
    "console:overview": 50,
    "console:playground": 11,
    "console:playground_usage": 5,
    "console:price_history": 6,
    "console:quotas": 28,
    "console:quotas_csv": 24,
    "console:request": 9,
    "console:requests": 14,
    "console:roles": 5,
    "console:settings": 9,
    "console:sign_in_email": 0,
    "console:sign_in_organization": 2,
    "console:single_sign_on": 8,
    "console:statement": 7,
    "console:statement_csv": 6,
    "console:statement_pdf": 6,
    "console:statements": 6,
    "console:statements_csv": 5,
    "console:team": 9,
    "console:teams_csv": 11,
    "console:trial": 9,
}
# Pages that are not for a member of this organization alone, and what answers with a redirection.
NOT_COUNTED = {name for name, statuses in matrix.READS.items() if statuses[0] != 200} | matrix.OPERATORS
NOT_COUNTED |= {name for name in matrix.READS if name.startswith("api:")}


def more(world: matrix.World, number: int) -> None:
    """One more of everything that a page lists, and one more part of what it shows one of."""
    organization, now = world.acme.organization, datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    with scopes_disabled():
        team = Team.objects.create(organization=organization, slug=f"team-{number}", name=f"Team {number}")
        member = make_member(organization, f"person-{number}@acme.example", Role.MEMBER)
        for place in (team, world.acme.search):
            TeamMembership.objects.create(team=place, membership=member, role=Role.MEMBER.value)
    keys = [
        make_key(team, f"key-{number}", member),
        make_key(world.acme.search, f"search-{number}", world.people["member"]),
        make_key(world.acme.search, f"service-{number}"),
    ]
    keys[2].model_groups = [f"models-of-{organization.slug}"]
    keys[2].expires_at = now + timedelta(days=3)
    with scopes_disabled():
        keys[2].save(update_fields=["model_groups", "expires_at"])
    # The first ones are the dearest, so that the lists of the dearest always have a member, an end user and
    # a key without owner to name.
    charge = "2" if number else "20"
    for index, key in enumerate(keys):
        end_user, at = f"customer-{number}" if index == 1 else "", hour.strftime("%Y-%m-%dT%H:00")
        rollup(key, at, charge, end_user=end_user, model_group=f"model-{number}")
        event(key, at, f"req-{number}-{index}", charge, end_user=end_user)
    targets: tuple[tuple[str, Any], ...] = (
        ("team", team),
        ("member", member),
        *(("key", key) for key in keys),
    )
    for scope, target in targets:
        for metric, period in (("budget", "month"), ("budget", "day"), ("requests_per_minute", "")):
            set_quota(
                acting_user=None, scope=scope, target=target, metric=metric, limit=Decimal(2), period=period
            )
    set_quota(
        acting_user=None,
        scope="end_user",
        target=organization,
        metric="budget",
        limit=Decimal(2),
        period="month",
        end_user=f"customer-{number}",
    )
    set_quota(
        acting_user=None,
        scope="team",
        target=world.acme.search,
        metric="budget",
        limit=Decimal(2),
        period="month",
        model_group=_route(number),
    )
    with scopes_disabled():
        counted = Quota.objects.filter(team=team, metric="budget", period="month").get()
        Budget.objects.create(
            organization=organization, quota=counted, period_start=hour.replace(day=1, hour=0), limit=2
        )
        Export.objects.create(
            reference=f"more-{number}",
            organization=organization,
            what="usage",
            format="csv",
            first=now.date(),
            last=now.date(),
            filters={"key_id": keys[0].pk},
            requested_by=member.user,
        )
        Checkout.objects.create(
            organization=organization, reference=f"more-{number}", provider="dummy", amount=5
        )
        TagValue.objects.create(organization=organization, name=f"tag-{number}", value="a")
        schedule = Schedule.objects.create(
            organization=organization, what="report", by=REPORTS[number], format="csv"
        )
        ScheduleRun.objects.create(schedule=schedule, month=now.date().replace(day=1))
        ScheduleRecipient.objects.create(schedule=schedule, membership=world.people["finance"])
        NotificationChannel.objects.create(
            organization=organization,
            kind="email",
            name=f"Mail {number}",
            topics=["budget"],
            recipients=["a@acme.example"],
            roles=[],
        )
    claim_domain(acting_user=member.user, organization=organization, domain=f"more-{number}.example")
    top_up(acting_user=member.user, organization=organization, amount=Decimal(5), reference=f"pay-{number}")
    block_end_user(
        acting_user=member.user, organization=organization, end_user=f"customer-{number}", reason=""
    )
    invite(
        acting_user=member.user,
        organization=organization,
        email=f"guest-{number}@x.example",
        role=Role.MEMBER,
        teams=[team],
    )


def _route(number: int) -> str:
    """A model group that the tenant may use, over a deployment with a price; returns its name."""
    provider = Provider.objects.filter(name="first").first() or create_provider(
        acting_user=None,
        name="first",
        kind="openai",
        base_url="http://127.0.0.1:9/v1",
        credentials=["sk-0123456789abcdef"],
    )
    deployment = create_deployment(
        acting_user=None, name=f"deployment-{number}", provider=provider, model="gpt-4o-mini"
    )
    set_price(acting_user=None, deployment=deployment, input=Decimal(1), output=Decimal(2))
    return create_model_group(acting_user=None, name=f"model-{number}", places=[Place(deployment)]).name


def where_it_is_noon() -> str:
    """A time zone in which the present is no first hour of a day, of which only single requests are summed."""
    offset = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-offset:+d}"


def counted(world: matrix.World) -> dict[str, int]:
    """The queries of each page."""
    client: Client = world.client("owner")
    found = {}
    for name in sorted(set(matrix.READS) - NOT_COUNTED):
        address = world.address(name)
        with CaptureQueriesContext(connection) as queries:
            assert matrix.read_whole(client.get(address)).status_code == 200, name
        found[name] = len(queries)
    return found


def test_every_page_has_a_number() -> None:
    assert QUERIES.keys() == set(matrix.READS) - NOT_COUNTED


def test_each_page_makes_the_committed_queries_however_many_rows_there_are(world: matrix.World) -> None:
    organization = world.acme.organization
    organization.model_groups = None
    organization.time_zone = where_it_is_noon()
    organization.save(update_fields=["model_groups", "time_zone"])
    for number in range(2):
        more(world, number)
    assert counted(world) == QUERIES
    for number in range(2, 9):
        more(world, number)
    assert counted(world) == QUERIES
