"""Pages for people: members, their roles, teams."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path
from django.utils import timezone
from django.views.decorators.http import require_POST

from gateway.console import people
from gateway.console.access import TenantRequest, confirmed, demand, requires
from gateway.console.forms import NewMember, NewTeam, RoleChange, TeamMember, roles_to_give
from tenants.models import ApiKey, Membership, Team
from tenants.permissions import (
    ORGANIZATION_ROLES,
    ROLE_PERMISSIONS,
    TEAM_ROLE_PERMISSIONS,
    TEAM_ROLES,
    Permission,
    Role,
)
from tenants.services import members as services
from tenants.services import teams as team_services

# What each permission means, for the page of roles.
EXPLAINED = {
    Permission.VIEW: "See the overview, quotas, teams and members",
    Permission.VIEW_OWN_USAGE: "See what one's own keys used and spent",
    Permission.VIEW_USAGE: "See what everybody used and spent",
    Permission.VIEW_MONEY: "See the wallet, the ledger and statements",
    Permission.ADD_FUNDS: "Pay into the wallet, redeem codes",
    Permission.VIEW_REQUESTS: "See the list of requests, without their contents",
    Permission.VIEW_CONTENT: "Read requests and answers, where the organization stores them",
    Permission.EXPORT_USAGE: "Export usage",
    Permission.MAKE_OWN_KEYS: "Make keys of one's own, in one's own teams",
    Permission.MANAGE_KEYS: "Make, change and revoke anybody's keys",
    Permission.MANAGE_QUOTAS: "Set limits and budgets, block end users",
    Permission.MANAGE_MEMBERS: "Invite, add and remove members and set their roles",
    Permission.MANAGE_TEAMS: "Create teams and choose who is in them",
    Permission.MANAGE_ORGANIZATION: "Make and remove owners",
    Permission.MANAGE_NOTIFICATIONS: "Decide who is notified of what",
    Permission.VIEW_AUDIT: "See the audit log",
}


def _page(request: TenantRequest, **forms: Any) -> HttpResponse:
    """Members and teams; ``forms`` are those that came back with errors."""
    tenant = request.tenant
    context = {
        **people.shown(request, timezone.now()),
        "roles": roles_to_give(tenant),
        "may_manage_members": tenant.may(Permission.MANAGE_MEMBERS),
        "may_manage_teams": tenant.may(Permission.MANAGE_TEAMS),
        "new_member": forms.get("new_member") or NewMember(tenant, auto_id="member_%s"),
        "new_team": forms.get("new_team") or NewTeam(auto_id="team_%s"),
    }
    return render(request, "console/members/page.html", context, status=422 if forms else 200)


@requires(Permission.VIEW)
def member_page(request: TenantRequest) -> HttpResponse:
    """Everybody in the organization, with roles and teams."""
    return _page(request)


def _new_owner(request: TenantRequest) -> str:
    return f"make {request.POST.get('email', 'somebody')} an owner" if _asks_for_owner(request) else ""


@requires(Permission.MANAGE_MEMBERS)
@confirmed(_new_owner)
@require_POST
def member_add(request: TenantRequest) -> HttpResponse:
    """Add a person by e-mail address."""
    tenant = request.tenant
    form = NewMember(tenant, request.POST, auto_id="member_%s")
    if form.is_valid():
        try:
            member = services.add_member(
                acting_user=request.user, organization=tenant.organization, **form.cleaned_data
            )
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            words = f"Added {member.user.email}."
            if not member.user.has_usable_password():
                words += " They choose a password with “Forgotten it?” on the sign-in page."
            messages.success(request, words)
            return redirect("console:members", organization=tenant.organization.slug)
    return _page(request, new_member=form)


def _changeable(request: TenantRequest, number: int) -> Membership:
    """The member ``number``, if this person may change them (403) and they exist here (404)."""
    member = get_object_or_404(Membership.objects.select_related("user"), pk=number)
    if not people.may_change(request.tenant, member):
        raise PermissionDenied
    return member


def _asks_for_owner(request: TenantRequest) -> bool:
    return request.POST.get("role") == Role.OWNER.value


def _changes_owners(request: TenantRequest, member: int) -> str:
    found = Membership.objects.select_related("user").filter(pk=member).first()
    if found is None or (found.role == Role.OWNER.value) is _asks_for_owner(request):
        return ""
    if _asks_for_owner(request):
        return f"make {found.user.email} an owner"
    return f"take the role of owner from {found.user.email}"


def _removes_owner(request: TenantRequest, member: int) -> str:  # noqa: ARG001  # the arguments of the view
    found = Membership.objects.select_related("user").filter(pk=member, role=Role.OWNER.value).first()
    return f"remove the owner {found.user.email}" if found is not None else ""


@requires(Permission.MANAGE_MEMBERS)
@confirmed(_changes_owners)
@require_POST
def member_role(request: TenantRequest, member: int) -> HttpResponse:
    """Give a member another role."""
    found = _changeable(request, member)
    form = RoleChange(request.tenant, request.POST)
    if not form.is_valid():
        messages.error(request, "That role is not yours to give.")
    else:
        role = form.cleaned_data["role"]
        try:
            services.set_role(acting_user=request.user, membership=found, role=role)
        except ValueError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"{found.user.email} is {role.label.lower()} now.")
    return redirect("console:members", organization=request.tenant.organization.slug)


@requires(Permission.MANAGE_MEMBERS)
@confirmed(_removes_owner, asked_first=True)
def member_remove(request: TenantRequest, member: int) -> HttpResponse:
    """Take a person out of the organization, after saying what that does."""
    found = _changeable(request, member)
    keys = ApiKey.objects.filter(owner=found, revoked_at__isnull=True).exclude(expires_at__lte=timezone.now())
    if request.method == "POST":
        try:
            services.remove_member(acting_user=request.user, membership=found)
        except ValueError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"Removed {found.user.email}.")
            return redirect("console:members", organization=request.tenant.organization.slug)
    return render(
        request,
        "console/members/remove.html",
        {"member": found, "keys": keys.order_by("name"), "teams": found.teams},
    )


@requires(Permission.MANAGE_TEAMS)
@require_POST
def team_new(request: TenantRequest) -> HttpResponse:
    """Create a team."""
    form = NewTeam(request.POST, auto_id="team_%s")
    if form.is_valid():
        try:
            team = team_services.create_team(
                acting_user=request.user, organization=request.tenant.organization, **form.cleaned_data
            )
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"Created {team.name}. Add its members next.")
            return redirect("console:team", organization=request.tenant.organization.slug, team=team.pk)
    return _page(request, new_team=form)


@requires(Permission.VIEW)
def team_detail(request: TenantRequest, team: int) -> HttpResponse:
    """One team: its members and their roles there."""
    found = get_object_or_404(Team.objects.all(), pk=team)
    form = TeamMember(request.POST or None)
    if request.method == "POST":
        demand(request.tenant, Permission.MANAGE_TEAMS)
        if form.is_valid():
            member: Membership = form.cleaned_data["membership"]
            try:
                team_services.set_team_member(
                    acting_user=request.user, team=found, membership=member, role=form.cleaned_data["role"]
                )
            except ValueError as error:
                form.add_error(None, str(error))
            else:
                messages.success(
                    request, f"{member.user.email} is in {found.name} as {form.cleaned_data['role'].value}."
                )
                return redirect("console:team", organization=request.tenant.organization.slug, team=found.pk)
    return render(
        request,
        "console/members/team.html",
        {
            "team": found,
            **people.of_team(request, found),
            "roles": TEAM_ROLES,
            "form": form,
            "may_manage": request.tenant.may(Permission.MANAGE_TEAMS),
        },
        status=422 if form.errors else 200,
    )


@requires(Permission.MANAGE_TEAMS)
@require_POST
def team_leave(request: TenantRequest, team: int, member: int) -> HttpResponse:
    """Take a member out of a team."""
    found = get_object_or_404(Team.objects.all(), pk=team)
    person = get_object_or_404(Membership.objects.select_related("user"), pk=member)
    team_services.remove_team_member(acting_user=request.user, team=found, membership=person)
    messages.success(request, f"{person.user.email} is out of {found.name}.")
    return redirect("console:team", organization=request.tenant.organization.slug, team=found.pk)


@requires(Permission.VIEW)
def roles(request: TenantRequest) -> HttpResponse:
    """What each role may do, straight from the table that is enforced."""
    return render(
        request,
        "console/members/roles.html",
        {
            "roles": ORGANIZATION_ROLES,
            "team_roles": TEAM_ROLES,
            "lines": [
                (
                    EXPLAINED[permission],
                    [permission in ROLE_PERMISSIONS[role] for role in ORGANIZATION_ROLES],
                    [permission in TEAM_ROLE_PERMISSIONS[role] for role in TEAM_ROLES],
                )
                for permission in Permission
            ],
        },
    )


urlpatterns = [
    path("", member_page, name="members"),
    path("add/", member_add, name="member_add"),
    path("roles/", roles, name="roles"),
    path("<int:member>/role/", member_role, name="member_role"),
    path("<int:member>/remove/", member_remove, name="member_remove"),
    path("teams/new/", team_new, name="team_new"),
    path("teams/<int:team>/", team_detail, name="team"),
    path("teams/<int:team>/<int:member>/leave/", team_leave, name="team_leave"),
]
