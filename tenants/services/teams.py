"""Teams, and who is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django_scopes import scope

from tenants.models import Membership, Organization, Team, TeamMembership, User
from tenants.permissions import TEAM_ROLES, Role
from tenants.services import audit, rows


class TeamError(ValueError):
    """A team that cannot be made or changed so."""


class TeamExists(TeamError):
    """The organization has a team of that slug."""


class WrongOrganization(TeamError):
    """The member is of another organization than the team."""


class NotATeamRole(TeamError):
    """A role that people have in organizations only."""


class UnchangeableField(TeamError):
    """A field that ``update_team`` does not change."""


CHANGEABLE = frozenset({"name", "model_groups"})


@transaction.atomic
def create_team(
    *,
    acting_user: User | None,
    organization: Organization,
    slug: str,
    name: str,
    model_groups: Sequence[str] | None = None,
) -> Team:
    """A new, empty team. ``model_groups`` None: all of the organization's. Raises ``TeamExists``, ``InvalidRow``."""
    team = Team(
        organization=organization,
        slug=slug,
        name=name,
        model_groups=None if model_groups is None else list(model_groups),
    )
    rows.check(team)
    with scope(organization=organization):
        if Team.objects.filter(slug=slug).exists():
            raise TeamExists(f"{organization.slug} has a team {slug!r} already.")
        team.save(force_insert=True)
        audit.record(
            acting_user=acting_user,
            verb="created",
            target=team,
            organization=organization,
            detail={"name": name, "model_groups": team.model_groups},
        )
    return team


@transaction.atomic
def update_team(*, acting_user: User | None, team: Team, **changes: Any) -> Team:
    """Change a team's ``name`` or ``model_groups``; nothing if all are so already.

    Raises ``UnchangeableField``, ``InvalidRow``.
    """
    if unknown := set(changes) - CHANGEABLE:
        raise UnchangeableField(f"Not changed here: {', '.join(sorted(unknown))}.")
    with scope(organization=team.organization):
        locked = Team.objects.select_for_update(no_key=True).get(pk=team.pk)
        if changes := rows.changed(locked, changes):
            detail = rows.assign(locked, changes)
            audit.record(
                acting_user=acting_user,
                verb="changed",
                target=locked,
                organization=team.organization,
                detail=detail,
            )
    return locked


@transaction.atomic
def set_team_member(
    *, acting_user: User | None, team: Team, membership: Membership, role: Role
) -> TeamMembership:
    """Put a member into a team, or change the role there. Raises ``WrongOrganization``, ``NotATeamRole``."""
    if membership.organization_id != team.organization_id:
        raise WrongOrganization("A team's members are members of its organization.")
    if role not in TEAM_ROLES:
        raise NotATeamRole(f"{role.label} is no role in a team; use one of admin, member, viewer.")
    with scope(organization=team.organization):
        Team.objects.select_for_update(no_key=True).get(pk=team.pk)
        row = TeamMembership.objects.filter(team=team, membership=membership).first()
        if row is not None and row.role == role.value:
            return row
        if row is None:
            row = TeamMembership(team=team, membership=membership, role=role.value)
            row.save(force_insert=True)
        else:
            rows.assign(row, {"role": role.value})
        audit.record(
            acting_user=acting_user,
            verb="set member",
            target=team,
            organization=team.organization,
            detail={"member": membership.user.email, "role": role},
        )
    return row


@transaction.atomic
def remove_team_member(*, acting_user: User | None, team: Team, membership: Membership) -> None:
    """Take a member out of a team; nothing if not in it."""
    with scope(organization=team.organization):
        removed, _ = TeamMembership.objects.filter(team=team, membership=membership).delete()
        if removed:
            audit.record(
                acting_user=acting_user,
                verb="removed member",
                target=team,
                organization=team.organization,
                detail={"member": membership.user.email},
            )


@transaction.atomic
def remove_team(*, acting_user: User | None, team: Team) -> None:
    """Delete a team with its keys and quotas. Its usage events stay, naming it by number.

    The caller makes sure that nothing was used: ``billing`` knows, this app does not.
    """
    with scope(organization=team.organization):
        locked = Team.objects.select_for_update(no_key=True).get(pk=team.pk)
        audit.record(acting_user=acting_user, verb="removed", target=locked, organization=team.organization)
        locked.delete()
