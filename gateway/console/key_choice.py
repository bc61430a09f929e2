"""What the toolbars of costs and requests offer to choose from: teams and keys whose usage a person may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Q

from billing.access import Names, names_of
from gateway.usage_query import UsageQuery
from tenants.access import TenantAccess
from tenants.models import ApiKey, Organization, Team
from tenants.permissions import Permission

# Of keys in one list; where there are more, a team is to be chosen first.
MOST = 250


@dataclass(frozen=True, slots=True)
class Choice:
    """Slugs of teams; keys as id, name and slug of the team, those of the team asked for if there is one.

    With ``more`` there are too many keys for a list, and only the one asked for is in it.
    """

    teams: list[str]
    keys: list[tuple[str, str, str]]
    more: bool


def names_asked(organization: Organization, parameters: Mapping[str, str]) -> Names:
    """The names of every team, and of the key and the member that ``parameters`` ask for."""
    asked = [
        {int(text)} if text.isascii() and text.isdigit() and len(text) < 19 else set()
        for text in (parameters.get(name, "").strip() for name in ("key", "member"))
    ]
    return names_of(organization, (asked[0], asked[1]))


def choice(access: TenantAccess, query: UsageQuery) -> Choice:
    """What there is to choose from beside ``query``; keys that are revoked are among them."""
    teams, keys = Team.objects.order_by("slug"), ApiKey.objects.order_by("team__slug", "name", "pk")
    of_teams = access.teams_with(Permission.VIEW_USAGE)
    if of_teams is not None:
        own = keys.filter(Q(team__in=of_teams) | Q(owner=access.membership))
        teams = teams.filter(Q(pk__in=of_teams) | Q(pk__in=own.order_by().values("team")))
        keys = own
    if "team" in query.filters:
        keys = keys.filter(Q(team_id=query.columns["team_id"]))
    rows = keys.values_list("pk", "name", "team__slug")
    found = list(rows[: MOST + 1])
    more = len(found) > MOST
    if more:
        found = list(rows.filter(Q(pk=query.columns.get("key_id"))))
    return Choice(
        list(teams.values_list("slug", flat=True)), [(str(pk), name, team) for pk, name, team in found], more
    )
