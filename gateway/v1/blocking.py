"""End users that their organizations have blocked: none of their requests reaches a provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psycopg import AsyncConnection, Connection

from gateway.v1.errors import NO_RETRY, EndUserBlocked
from gateway.v1.facts import Facts
from gateway.v1.principals import Principal

# End users by organization id.
Blocked = Mapping[int, frozenset[str]]
NOBODY: Blocked = {}

_BLOCKED = "SELECT organization_id, end_user FROM billing_blockedenduser"


async def load_blocked(connection: AsyncConnection[Any]) -> Blocked:
    """Read all of them from PostgreSQL."""
    return _by_organization(await (await connection.execute(_BLOCKED)).fetchall())


def read_blocked(connection: Connection[Any], organization_id: int) -> Blocked:
    """Those of one organization, as ``connection``, such as Django's, sees them at this moment."""
    found = connection.execute(f"{_BLOCKED} WHERE organization_id = %s", [organization_id])
    return _by_organization(found.fetchall())


def demand_not_blocked(blocked: Blocked, principal: Principal, facts: Facts) -> None:
    """Raise EndUserBlocked if the request is for an end user whom the caller's organization has blocked."""
    if facts.end_user in blocked.get(principal.organization_id, ()):
        raise EndUserBlocked(
            f"This end user is blocked by organization {principal.organization} (in this gateway), "
            "so the request was not sent to a provider. Whoever looks after the organization can unblock it.",
            headers=NO_RETRY,
        )


def _by_organization(found: Iterable[tuple[int, str]]) -> Blocked:
    blocked: dict[int, set[str]] = {}
    for organization_id, end_user in found:
        blocked.setdefault(organization_id, set()).add(end_user)
    return {organization_id: frozenset(users) for organization_id, users in blocked.items()}
