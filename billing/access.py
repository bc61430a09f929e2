"""Reads of billing that pages, exports and reports share. Every getter takes the tenant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Q, QuerySet
from django_scopes import scope

from billing.calendars import midnight
from billing.models import UsageEvent
from tenants.access import TenantAccess
from tenants.models import ApiKey, Membership, Organization, Team
from tenants.permissions import Permission


@dataclass(frozen=True, slots=True)
class KeyName:
    """An API key as reports name it. Never the secret: ``hint`` is its prefix and last four characters."""

    name: str
    hint: str
    team_id: int


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in usage rows stand for, by id. An event outlives what it names."""

    teams: dict[int, str]
    keys: dict[int, KeyName]
    # E-mail address by id of the membership.
    members: dict[int, str]

    def team(self, team_id: int) -> str:
        """The team's slug; ``removed-12`` for one that is gone."""
        return self.teams.get(team_id) or f"removed-{team_id}"

    def key(self, key_id: int) -> str:
        """The key's name; ``removed-12`` for one that is gone."""
        known = self.keys.get(key_id)
        return known.name if known else f"removed-{key_id}"

    def member(self, member_id: int | None) -> str:
        """The key owner's e-mail address; ``removed-12`` for one who left, empty for a key without owner."""
        if member_id is None:
            return ""
        return self.members.get(member_id) or f"removed-{member_id}"


def names_of(organization: Organization, used: tuple[set[int], set[int]] | None = None) -> Names:
    """Names of every team, key (revoked ones too) and member of ``organization``: three queries.

    With ``used``, only of the keys and the memberships with these ids.
    """
    with scope(organization=organization):
        keys = ApiKey.objects.filter(organization=organization)
        members = Membership.objects.filter(organization=organization)
        if used is not None:
            keys, members = keys.filter(pk__in=used[0]), members.filter(pk__in=used[1])
        return Names(
            teams=dict(Team.objects.filter(organization=organization).values_list("pk", "slug")),
            keys={
                pk: KeyName(name, f"{prefix}…{last_four}", team_id)
                for pk, name, prefix, last_four, team_id in keys.values_list(
                    "pk", "name", "prefix", "last_four", "team_id"
                )
            },
            members=dict(members.values_list("pk", "user__email")),
        )


def names_in(organization: Organization, events: Iterable[UsageEvent]) -> Names:
    """Names of every team, and of the keys and members of ``events``."""
    keys, members = set(), set()
    for event in events:
        keys.add(event.key_id)
        if event.member_id is not None:
            members.add(event.member_id)
    return names_of(organization, (keys, members))


def visible_to(access: TenantAccess, permission: Permission = Permission.VIEW_USAGE) -> Q:
    """The condition on usage rows that ``access`` may see.

    With ``permission`` in the whole organization: all of them. Otherwise those of the teams in which
    a role there grants it, and those of the person's own keys.
    """
    teams = access.teams_with(permission)
    if teams is None:
        return Q()
    return Q(team_id__in=teams) | Q(member_id=access.membership.pk)


def local_range(organization: Organization, first: date, last: date) -> tuple[datetime, datetime]:
    """From the start of ``first`` to the end of ``last`` (included), by the organization's calendar.

    Returns UTC moments, the second one excluded. Raises ``ValueError`` if ``last`` is before ``first``.
    """
    if last < first:
        raise ValueError("The last day is before the first.")
    return (
        midnight(first, organization.time_zone),
        midnight(last + timedelta(days=1), organization.time_zone),
    )


def usage_event(organization: Organization, request_id: str, where: Q | None = None) -> UsageEvent | None:
    """The request ``request_id`` of ``organization``, if ``where`` allows to see it."""
    with scope(organization=organization):
        return (
            UsageEvent.objects.filter(where or Q(), organization=organization, request_id=request_id)
            .order_by("-started_at")
            .first()
        )


def usage_page(
    organization: Organization,
    *,
    start: datetime,
    end: datetime,
    where: Q | None = None,
    after: tuple[datetime, str] | None = None,
    size: int = 50,
    newest_first: bool = True,
) -> list[UsageEvent]:
    """At most ``size`` requests begun in ``[start, end)`` that ``where`` allows, beyond ``after``.

    ``after`` is ``(started_at, request_id)`` of the last row read; the walk follows the index, so a late
    page costs what the first one does.
    """
    with scope(organization=organization):
        return list(
            events_between(
                organization, start=start, end=end, where=where, after=after, newest_first=newest_first
            )[:size]
        )


def events_between(
    organization: Organization,
    *,
    start: datetime,
    end: datetime,
    where: Q | None = None,
    after: tuple[datetime, str] | None = None,
    newest_first: bool = True,
) -> QuerySet[UsageEvent]:
    """The same without an end, for a caller that is in the organization's scope."""
    rows = UsageEvent.objects.filter(
        where or Q(), organization=organization, started_at__gte=start, started_at__lt=end
    )
    if after is not None:
        # The second condition lets PostgreSQL skip whole months.
        if newest_first:
            rows = rows.filter(pk__lt=after, started_at__lte=after[0])
        else:
            rows = rows.filter(pk__gt=after, started_at__gte=after[0])
    order = ("-started_at", "-request_id") if newest_first else ("started_at", "request_id")
    return rows.order_by(*order)
