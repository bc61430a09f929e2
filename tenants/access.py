"""Reads of tenants. Every getter takes the tenant, or what proves that one belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils import timezone
from django_scopes import scope, scopes_disabled

from tenants.models import Membership, Organization, Team, TeamMembership, User, Visit
from tenants.permissions import ROLE_PERMISSIONS, Permission, Role, allows


@dataclass(frozen=True, slots=True)
class TenantAccess:
    """What one person may do in one organization."""

    organization: Organization
    membership: Membership
    # Role by team id.
    team_roles: dict[int, Role]
    # The visit by which an operator is here, who is no member and may change nothing.
    visit: Visit | None = None

    @property
    def role(self) -> Role:
        """The role in the organization."""
        return Role(self.membership.role)

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the role in the organization grants, everywhere in it."""
        return ROLE_PERMISSIONS[self.role]

    def may(self, permission: Permission, team: Team | int | None = None) -> bool:
        """Whether ``permission`` is granted; in ``team`` (or its id), the role there counts too."""
        team_id = team.pk if isinstance(team, Team) else team
        return allows(self.role, permission, self.team_roles.get(team_id) if team_id is not None else None)

    def teams_with(self, permission: Permission) -> list[int] | None:
        """Ids of the teams in which ``permission`` is granted; None: in all of them."""
        if permission in self.permissions:
            return None
        return [team for team in self.team_roles if self.may(permission, team)]


def tenant_access(user: User, slug: str) -> TenantAccess | None:
    """What ``user`` may do in the organization ``slug``; None if it is not theirs or does not exist.

    To an operator with an open visit it is theirs too, as a viewer's.
    """
    with scopes_disabled():
        membership = (
            Membership.objects.select_related("organization")
            .filter(user=user, organization__slug=slug, organization__suspended_at__isnull=True)
            .first()
        )
    if membership is None:
        return _visitor_access(user, slug)
    with scope(organization=membership.organization):
        roles = {row.team_id: Role(row.role) for row in TeamMembership.objects.filter(membership=membership)}
    return TenantAccess(membership.organization, membership, roles)


def _visitor_access(user: User, slug: str) -> TenantAccess | None:
    if not user.is_staff:
        return None
    with scopes_disabled():
        visit = (
            Visit.objects.select_related("organization", "operator")
            .filter(operator=user, organization__slug=slug, organization__suspended_at__isnull=True)
            .filter(ended_at__isnull=True, ends_at__gt=timezone.now())
            .first()
        )
    if visit is None:
        return None
    # Stands for a member of whom nothing is: no row has this id, and none is empty where it is looked for.
    nobody = Membership(pk=0, organization=visit.organization, user=user, role=Role.VIEWER.value)
    return TenantAccess(visit.organization, nobody, {}, visit)


def organizations_of(user: User) -> list[Organization]:
    """The organizations ``user`` is a member of, by name."""
    return list(
        Organization.objects.filter(memberships__user=user, suspended_at__isnull=True).order_by("name", "pk")
    )
