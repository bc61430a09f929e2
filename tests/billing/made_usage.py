"""Tenants and usage rows made directly, so that tests of reading depend on no writer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django_scopes import scopes_disabled

from billing import partitions
from billing.models import UsageEvent, UsageRollup
from tenants.models import ApiKey, Membership, Organization, Team, TeamMembership, User
from tenants.permissions import Role


def utc(text: str) -> datetime:
    """A moment from ISO text that names no zone."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass
class Tenant:
    """One organization with two teams, a member and three keys."""

    organization: Organization
    search: Team
    ads: Team
    # A member without further rights who owns `backend`.
    ann: Membership
    backend: ApiKey
    batch: ApiKey
    # Of team `ads`; `backend` and `batch` are of `search`.
    banner: ApiKey


def make_key(team: Team, name: str, owner: Membership | None = None) -> ApiKey:
    """A key whose secret nobody knows."""
    with scopes_disabled():
        return ApiKey.objects.create(
            organization=team.organization,
            team=team,
            owner=owner,
            name=name,
            prefix="sk-weir-abcd",
            last_four="wxyz",
            digest=f"{team.organization.slug}/{team.slug}/{name}"[:64],
        )


def make_member(
    organization: Organization, email: str, role: Role = Role.MEMBER, team: Team | None = None
) -> Membership:
    """A person with ``role``; an admin of ``team``, if one is given."""
    with scopes_disabled():
        user = User.objects.create_user(email)
        membership = Membership.objects.create(organization=organization, user=user, role=role.value)
        if team is not None:
            TeamMembership.objects.create(team=team, membership=membership, role=Role.ADMIN.value)
        return membership


def make_tenant(slug: str = "acme", time_zone: str = "Europe/Berlin") -> Tenant:
    """The organization ``slug`` and what belongs to it."""
    with scopes_disabled():
        organization = Organization.objects.create(slug=slug, name=slug.title(), time_zone=time_zone)
        search = Team.objects.create(organization=organization, slug="search", name="Search")
        ads = Team.objects.create(organization=organization, slug="ads", name="Ads")
    ann = make_member(organization, f"ann@{slug}.example")
    return Tenant(
        organization,
        search,
        ads,
        ann,
        make_key(search, "backend", ann),
        make_key(search, "batch"),
        make_key(ads, "banner"),
    )


def rollup(key: ApiKey, hour: str, charge: str, **columns: Any) -> UsageRollup:
    """The sums of one UTC hour of ``key``: one request unless said otherwise, at cost half the charge."""
    values: dict[str, Any] = {
        "requests": 1,
        "errors": 0,
        "input_tokens": 0,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 0,
        "reasoning_tokens": 0,
        "cost": Decimal(charge) / 2,
        "end_user": "",
        "model_group": "fast",
        "deployment": "gpt-small",
    }
    with scopes_disabled():
        return UsageRollup.objects.create(
            organization=key.organization,
            team_id=key.team_id,
            key_id=key.pk,
            member_id=key.owner_id,
            hour=utc(hour),
            charge=Decimal(charge),
            **(values | columns),
        )


def event(key: ApiKey, started_at: str, request_id: str, charge: str = "0", **columns: Any) -> UsageEvent:
    """One completed request of ``key``, at cost half the charge, that took 1.5 seconds."""
    begun = utc(started_at)
    with connection.cursor() as cursor:
        partitions.ensure(cursor, begun)
    values: dict[str, Any] = {
        "ended_at": begun + timedelta(milliseconds=1500),
        "end_user": "",
        "model_group": "fast",
        "deployment": "gpt-small",
        "provider": "openai",
        "provider_model": "gpt-5.4-mini",
        "endpoint": "chat.completions",
        "streamed": False,
        "status": 200,
        "end_reason": "completed",
        "usage_source": "reported",
        "cost": Decimal(charge) / 2,
        "duration_ms": 1500,
    }
    with scopes_disabled():
        return UsageEvent.objects.create(
            request_id=request_id,
            started_at=begun,
            organization=key.organization,
            team_id=key.team_id,
            key_id=key.pk,
            member_id=key.owner_id,
            charge=Decimal(charge),
            **(values | columns),
        )
