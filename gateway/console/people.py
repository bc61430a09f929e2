"""The lists of members, teams and open invitations: searched, a page at a time, and as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpResponse
from django.urls import path, reverse
from django.utils import timezone

from billing.exports.sheets import Row
from billing.usage_export import CURRENCY, moment
from gateway.console.access import TenantRequest, requires
from gateway.console.forms import roles_to_give
from gateway.console.lists import CHUNK, list_file, place, words
from gateway.console.spending import Spendings
from gateway.second_factor import secured
from tenants.access import TenantAccess
from tenants.models import ApiKey, Invitation, Membership, Team, TeamMembership
from tenants.permissions import Permission, Role

# Lines that the page has at a time, of each of the three.
PAGE = 100
MEMBER_COLUMNS = ("email", "name", "role", "teams", "since", "spent_this_month", "currency")
TEAM_COLUMNS = ("team", "name", "members", "keys", "model_groups", "spent_this_month", "currency")
INVITATION_COLUMNS = ("email", "role", "teams", "team_role", "invited_by", "invited_at", "expires_at")


def may_change(tenant: TenantAccess, member: Membership) -> bool:
    """Whether this person may change or end ``member``'s membership: an owner's only as an owner."""
    if Role(member.role) is Role.OWNER:
        return tenant.may(Permission.MANAGE_ORGANIZATION)
    return tenant.may(Permission.MANAGE_MEMBERS)


def may_decide(tenant: TenantAccess, invitation: Invitation) -> bool:
    """Whether this person may send again or revoke ``invitation``: an owner's only as an owner."""
    return Role(invitation.role) in roles_to_give(tenant)


def members_found(search: str, team: Team | None = None) -> QuerySet[Membership]:
    """The members, by e-mail address, with their teams and whether each is ``secured``; of ``team`` alone if given."""
    places = TeamMembership.objects.select_related("team").order_by("team__name")
    members = Membership.objects.select_related("user").prefetch_related(Prefetch("teams", queryset=places))
    if search:
        members = members.filter(
            Q(user__email__icontains=search)
            | Q(user__first_name__icontains=search)
            | Q(user__last_name__icontains=search)
        )
    if team is not None:
        members = members.filter(teams__team=team)
    return members.annotate(secured=secured()).order_by("user__email")


def teams_found(search: str) -> QuerySet[Team]:
    """The teams, by name, with how many people and working keys each has."""
    # Each counted by itself: joined together, every member of a team would meet every key of it.
    in_team = TeamMembership.objects.filter(team=OuterRef("pk"))
    working = ApiKey.objects.filter(team=OuterRef("pk"), revoked_at__isnull=True, successor__isnull=True)
    teams = Team.objects.annotate(people=_number(in_team), working_keys=_number(working))
    if search:
        teams = teams.filter(Q(name__icontains=search) | Q(slug__icontains=search))
    return teams.order_by("name", "pk")


def _number(rows: QuerySet[Any]) -> Coalesce:
    """How many of ``rows``, which belong to a team, there are."""
    counted = rows.order_by().values("team").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted), 0)


def invitations_found(search: str) -> QuerySet[Invitation]:
    """The open invitations, the newest first."""
    found = Invitation.objects.filter(accepted_at__isnull=True).select_related("invited_by")
    if search:
        found = found.filter(email__icontains=search)
    return found.prefetch_related("teams").order_by("-pk")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for: words, and the places behind which the three lists begin."""

    search: str
    # The e-mail address of a member; numbers of a team and of an invitation.
    after: str
    team: int | None
    invitation: int | None

    @classmethod
    def of(cls, request: TenantRequest) -> Asked:
        """From ``q``, ``after``, ``team`` and ``invited``."""
        return cls(words(request), words(request, "after"), place(request, "team"), place(request, "invited"))

    def parameters(self, **more: str) -> str:
        """The words, and a place, as a query string."""
        values = {"q": self.search, **more}
        return urlencode({name: value for name, value in values.items() if value})

    @property
    def paged(self) -> bool:
        """Whether not all of a list is asked for."""
        return bool(self.search or self.after or self.team or self.invitation)


def shown(request: TenantRequest, now: datetime) -> dict[str, Any]:
    """What the page of people lists."""
    tenant, asked = request.tenant, Asked.of(request)
    members, teams = members_found(asked.search), teams_found(asked.search)
    if asked.after:
        members = members.filter(user__email__gt=asked.after)
    last = Team.objects.filter(pk=asked.team).first() if asked.team is not None else None
    if last is not None:
        teams = teams.filter(Q(name__gt=last.name) | Q(name=last.name, pk__gt=last.pk))
    some_members, some_teams = list(members[: PAGE + 1]), list(teams[: PAGE + 1])
    invited = _invitations(tenant, asked, now)
    more_members, more_teams = len(some_members) > PAGE, len(some_teams) > PAGE
    of_members = Spendings(tenant, "member", [each.pk for each in some_members[:PAGE]], now)
    of_teams = Spendings(tenant, "team", [each.pk for each in some_teams[:PAGE]], now)
    slug = tenant.organization.slug
    return {
        "members": [
            (member, may_change(tenant, member), of_members.of(member.pk)) for member in some_members[:PAGE]
        ],
        "teams": [(team, of_teams.of(team.pk)) for team in some_teams[:PAGE]],
        "search": asked.search,
        "searchable": asked.paged or more_members or more_teams or bool(invited["invitations_next"]),
        "members_csv": f"{reverse('console:members_csv', args=[slug])}?{asked.parameters()}",
        "members_first": f"?{asked.parameters()}" if asked.after else "",
        "members_next": f"?{asked.parameters(after=some_members[PAGE - 1].user.email)}"
        if more_members
        else "",
        "teams_csv": f"{reverse('console:teams_csv', args=[slug])}?{asked.parameters()}",
        "teams_first": f"?{asked.parameters()}#teams" if last else "",
        "teams_next": f"?{asked.parameters(team=str(some_teams[PAGE - 1].pk))}#teams" if more_teams else "",
        **invited,
    }


def of_team(request: TenantRequest, team: Team) -> dict[str, Any]:
    """What the page of ``team`` lists: the people in it, by e-mail address."""
    search, after = words(request), words(request, "after")
    found = TeamMembership.objects.filter(team=team).select_related("membership__user")
    if search:
        user = "membership__user__"
        found = found.filter(
            Q(**{f"{user}email__icontains": search})
            | Q(**{f"{user}first_name__icontains": search})
            | Q(**{f"{user}last_name__icontains": search})
        )
    if after:
        found = found.filter(membership__user__email__gt=after)
    some = list(found.order_by("membership__user__email")[: PAGE + 1])
    more, q = len(some) > PAGE, {"q": search} if search else {}
    address = reverse("console:members_csv", args=[request.tenant.organization.slug])
    return {
        "people": some[:PAGE],
        "search": search,
        "searchable": more or bool(search or after),
        "csv": f"{address}?{urlencode({**q, 'of': team.slug})}",
        "first": f"?{urlencode(q)}" if after else "",
        "next": f"?{urlencode({**q, 'after': some[PAGE - 1].membership.user.email})}" if more else "",
    }


def _invitations(tenant: TenantAccess, asked: Asked, now: datetime) -> dict[str, Any]:
    """The open invitations, for who may decide on them."""
    if not tenant.may(Permission.MANAGE_MEMBERS):
        return {"invitations": [], "invitations_next": ""}
    found = invitations_found(asked.search)
    if asked.invitation is not None:
        found = found.filter(pk__lt=asked.invitation)
    some = list(found[: PAGE + 1])
    address = reverse("console:invitations_csv", args=[tenant.organization.slug])
    return {
        "invitations": [
            {
                "invitation": each,
                "teams": [team.slug for team in each.teams.all()],
                "team_role": each.team_role,
                "expired": each.expires_at <= now,
                "changeable": may_decide(tenant, each),
            }
            for each in some[:PAGE]
        ],
        "invitations_csv": f"{address}?{asked.parameters()}",
        "invitations_first": f"?{asked.parameters()}#invitations" if asked.invitation is not None else "",
        "invitations_next": f"?{asked.parameters(invited=str(some[PAGE - 1].pk))}#invitations"
        if len(some) > PAGE
        else "",
    }


@requires(Permission.VIEW)
def member_file(request: TenantRequest) -> HttpResponse:
    """``members/members.csv``: every member that the search finds; ``?of=`` takes the short name of a team."""
    tenant, slug = request.tenant, words(request, "of")
    team = Team.objects.filter(slug=slug).first() if slug else None
    members = members_found(words(request), team) if team or not slug else Membership.objects.none()
    every = list(members)
    spendings = Spendings(tenant, "member", [member.pk for member in every], timezone.now())

    def rows() -> Iterator[Row]:
        for member in every:
            spent = spendings.of(member.pk).spent
            yield {
                "email": member.user.email,
                "name": member.user.get_full_name(),
                "role": member.role,
                "teams": {each.team.slug: each.role for each in member.teams.all()},
                "since": moment(member.created_at),
                "spent_this_month": "" if spent is None else spent,
                "currency": CURRENCY,
            }

    name = "-".join(filter(None, ("members", tenant.organization.slug, slug if team else "")))
    return list_file(name, MEMBER_COLUMNS, rows())


@requires(Permission.VIEW)
def team_file(request: TenantRequest) -> HttpResponse:
    """``members/teams.csv``: every team that the search finds."""
    every = list(teams_found(words(request)))
    spendings = Spendings(request.tenant, "team", [team.pk for team in every], timezone.now())

    def rows() -> Iterator[Row]:
        for team in every:
            spent = spendings.of(team.pk).spent
            yield {
                "team": team.slug,
                "name": team.name,
                "members": team.people,  # type: ignore[attr-defined]  # annotated
                "keys": team.working_keys,  # type: ignore[attr-defined]  # likewise
                "model_groups": team.model_groups or "",
                "spent_this_month": "" if spent is None else spent,
                "currency": CURRENCY,
            }

    return list_file(f"teams-{request.tenant.organization.slug}", TEAM_COLUMNS, rows())


@requires(Permission.MANAGE_MEMBERS)
def invitation_file(request: TenantRequest) -> HttpResponse:
    """``members/invitations.csv``: every open invitation that the search finds; never a link."""

    def rows() -> Iterator[Row]:
        for each in invitations_found(words(request)).iterator(chunk_size=CHUNK):
            yield {
                "email": each.email,
                "role": each.role,
                "teams": [team.slug for team in each.teams.all()],
                "team_role": each.team_role,
                "invited_by": each.invited_by.email if each.invited_by else "",
                "invited_at": moment(each.created_at),
                "expires_at": moment(each.expires_at),
            }

    return list_file(f"invitations-{request.tenant.organization.slug}", INVITATION_COLUMNS, rows())


# Below /members/.
urlpatterns = [
    path("members.csv", member_file, name="members_csv"),
    path("teams.csv", team_file, name="teams_csv"),
    path("invitations.csv", invitation_file, name="invitations_csv"),
]
