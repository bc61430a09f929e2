"""What each role may do: one enum of permissions, one table of roles."""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """A person's role in an organization (all of them) or in a team (admin, member, viewer)."""

    OWNER = "owner"
    ADMIN = "admin"
    FINANCE = "finance"
    MEMBER = "member"
    VIEWER = "viewer"

    @property
    def label(self) -> str:
        """The name as people read it."""
        return self.value.capitalize()


class Permission(Enum):
    """Something a person may do in an organization."""

    VIEW = "view"  # the overview, model groups, teams and members
    VIEW_OWN_USAGE = "view own usage"  # what one's own keys spent
    VIEW_USAGE = "view usage"  # what everybody spent
    VIEW_MONEY = "view money"  # ledger, wallet, statements
    ADD_FUNDS = "add funds"  # payments, codes
    VIEW_REQUESTS = "view requests"  # the request list; never prompts
    VIEW_CONTENT = "view content"  # what was asked and answered, where it is stored
    EXPORT_USAGE = "export usage"
    MAKE_OWN_KEYS = "make own keys"  # keys of one's own, in one's own teams
    MANAGE_KEYS = "manage keys"
    MANAGE_QUOTAS = "manage quotas"
    MANAGE_MEMBERS = "manage members"
    MANAGE_TEAMS = "manage teams"
    MANAGE_ORGANIZATION = "manage organization"  # settings, and who is an owner
    MANAGE_NOTIFICATIONS = "manage notifications"  # who is told of budgets, outages and keys
    VIEW_AUDIT = "view audit"


P = Permission
_VIEWER = frozenset({P.VIEW, P.VIEW_OWN_USAGE})
_MEMBER = _VIEWER | {P.MAKE_OWN_KEYS}
_READER = _VIEWER | {P.VIEW_USAGE, P.VIEW_MONEY, P.VIEW_REQUESTS, P.EXPORT_USAGE}
_FINANCE = _READER | {P.ADD_FUNDS}
_ADMIN = (
    _MEMBER
    | _READER
    | {P.MANAGE_KEYS, P.MANAGE_QUOTAS, P.MANAGE_MEMBERS, P.MANAGE_TEAMS, P.MANAGE_NOTIFICATIONS}
    | {P.VIEW_AUDIT, P.VIEW_CONTENT}
)

ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: _ADMIN,
    Role.FINANCE: _FINANCE,
    Role.MEMBER: _MEMBER,
    Role.VIEWER: _VIEWER,
}

# What a role in a team adds, for that team alone.
TEAM_ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset({P.VIEW_USAGE, P.VIEW_REQUESTS, P.MAKE_OWN_KEYS, P.MANAGE_KEYS, P.MANAGE_QUOTAS}),
    Role.MEMBER: frozenset({P.MAKE_OWN_KEYS}),
    Role.VIEWER: frozenset(),
}

ORGANIZATION_ROLES = tuple(ROLE_PERMISSIONS)
TEAM_ROLES = tuple(TEAM_ROLE_PERMISSIONS)


def allows(role: Role, permission: Permission, team_role: Role | None = None) -> bool:
    """Whether ``role`` in the organization, or ``team_role`` in the team concerned, grants ``permission``."""
    if permission in ROLE_PERMISSIONS[role]:
        return True
    return team_role is not None and permission in TEAM_ROLE_PERMISSIONS[team_role]
