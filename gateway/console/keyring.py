"""Which API keys a member sees, makes and changes."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q, QuerySet

from tenants.access import TenantAccess
from tenants.models import ApiKey, Membership, Team
from tenants.permissions import Permission


def visible_keys(tenant: TenantAccess) -> QuerySet[ApiKey]:
    """The keys this person may look at: all, those of the teams they look after, and their own."""
    keys = ApiKey.objects.select_related("team", "owner__user")
    managed, watched = tenant.teams_with(Permission.MANAGE_KEYS), tenant.teams_with(Permission.VIEW_USAGE)
    if managed is None or watched is None:
        return keys.all()
    return keys.filter(Q(team__in={*managed, *watched}) | Q(owner=tenant.membership))


def teams_for_new_keys(tenant: TenantAccess) -> QuerySet[Team]:
    """The teams this person may make a key in: those whose keys they manage, and their own."""
    managed = tenant.teams_with(Permission.MANAGE_KEYS)
    if managed is None:
        return Team.objects.all()
    own = [team for team in tenant.team_roles if tenant.may(Permission.MAKE_OWN_KEYS, team)]
    return Team.objects.filter(pk__in={*managed, *own})


def owners_for_new_keys(tenant: TenantAccess) -> QuerySet[Membership]:
    """Whom a new key may belong to: anybody, where this person manages some team's keys; else themselves."""
    members = Membership.objects.select_related("user").order_by("user__email")
    if tenant.teams_with(Permission.MANAGE_KEYS) == []:
        return members.filter(pk=tenant.membership.pk)
    return members


def may_give(tenant: TenantAccess, team: Team, owner: Membership | None) -> bool:
    """Whether this person may make a key of ``owner`` in ``team``."""
    if tenant.may(Permission.MANAGE_KEYS, team):
        return True
    own = owner is not None and owner.pk == tenant.membership.pk
    return own and team.pk in tenant.team_roles and tenant.may(Permission.MAKE_OWN_KEYS, team)


def may_revoke(tenant: TenantAccess, key: ApiKey) -> bool:
    """Whether this person may end ``key``: always, if it is their own."""
    return tenant.may(Permission.MANAGE_KEYS, key.team) or key.owner_id == tenant.membership.pk


def may_pause(tenant: TenantAccess, key: ApiKey) -> bool:
    """Whether this person may have ``key`` refused for a while; nobody uses a playground's but its own page."""
    return not key.playground and may_revoke(tenant, key)


def may_resume(tenant: TenantAccess, key: ApiKey) -> bool:
    """Whether this person may have ``key`` answered again: its owner only if the pause is their own."""
    if tenant.may(Permission.MANAGE_KEYS, key.team):
        return True
    return may_pause(tenant, key) and key.paused_by_id == tenant.membership.user_id


def may_change(tenant: TenantAccess, key: ApiKey) -> bool:
    """Whether this person may rename, restrict or rotate ``key``; a playground's takes care of itself."""
    return not key.playground and may_give(tenant, key.team, key.owner)


def standing(key: ApiKey, at: datetime) -> str:
    """``active``, ``rotated`` (works beside its successor), ``paused``, ``expired`` or ``revoked``, at a moment."""
    if key.revoked_at is not None and key.revoked_at <= at:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= at:
        return "expired"
    if key.paused_at is not None:
        return "paused"
    return "rotated" if key.successor_id is not None else "active"
