"""Invitations: making, sending, taking back; and the page on which the invited person accepts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from allauth.account.utils import perform_login
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.forms import SetPasswordForm
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from gateway.console.access import TenantRequest, confirmed, requires
from gateway.console.forms import roles_to_give
from gateway.console.people import may_decide
from tenants.access import TenantAccess
from tenants.models import Invitation, Membership, Team, User
from tenants.permissions import TEAM_ROLES, Permission, Role
from tenants.services import invitations as services

# Where a link's token waits while the person signs in: not in an address that logs would keep.
SESSION_KEY = "invitation"
LIVES = ((1, "1 day"), (7, "7 days"), (30, "30 days"))


class TeamChoices(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]  # not generic at run time
    """Teams, shown by name."""

    def label_from_instance(self, obj: Any) -> str:
        return str(obj.name)


class NewInvitation(forms.Form):
    """Whom to invite, to what, and for how long."""

    email = forms.EmailField(
        label="E-mail address",
        widget=forms.EmailInput(attrs={"placeholder": "ann@example.com", "autocomplete": "off"}),
    )
    role = forms.TypedChoiceField(
        label="Role in the organization",
        coerce=Role,
        initial=Role.MEMBER.value,
        help_text="Holds everywhere.",
    )
    teams = TeamChoices(queryset=None, required=False, widget=forms.CheckboxSelectMultiple)
    team_role = forms.TypedChoiceField(
        label="Role in these teams",
        coerce=Role,
        required=False,
        # The stub wants text; Django gives it as it is.
        empty_value=Role.MEMBER,  # type: ignore[arg-type]
        choices=[(role.value, role.label) for role in TEAM_ROLES],
        initial=Role.MEMBER.value,
        help_text="An admin of a team manages its keys and limits.",
    )
    days = forms.TypedChoiceField(label="The link works for", coerce=int, choices=LIVES, initial=7)

    def __init__(self, tenant: TenantAccess, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        role, teams = self.fields["role"], self.fields["teams"]
        role.choices = [(role.value, role.label) for role in roles_to_give(tenant)]  # type: ignore[attr-defined]  # a ChoiceField
        teams.queryset = Team.objects.order_by("name")  # type: ignore[attr-defined]  # a ModelMultipleChoiceField
        if not teams.queryset.exists():  # type: ignore[attr-defined]  # likewise
            del self.fields["teams"], self.fields["team_role"]

    def clean_email(self) -> str:
        email = str(self.cleaned_data["email"]).lower()
        if Membership.objects.filter(user__email__iexact=email).exists():
            raise ValidationError("This person is a member already.")
        return email


def _invites_owner(request: TenantRequest) -> str:
    owner = request.POST.get("role") == Role.OWNER.value
    return f"invite {request.POST.get('email', 'somebody')} as an owner" if owner else ""


@requires(Permission.MANAGE_MEMBERS)
@confirmed(_invites_owner)
def invitation_new(request: TenantRequest) -> HttpResponse:
    """Invite a person; the answer shows the link this once."""
    form = NewInvitation(request.tenant, request.POST or None)
    if request.method == "POST" and form.is_valid():
        cleaned = form.cleaned_data
        try:
            invitation, token = services.invite(
                acting_user=request.user,
                organization=request.tenant.organization,
                email=cleaned["email"],
                role=cleaned["role"],
                teams=list(cleaned.get("teams", ())),
                team_role=cleaned.get("team_role", Role.MEMBER),
                life=timedelta(days=cleaned["days"]),
            )
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            return _sent(request, invitation, token)
    return render(
        request,
        "console/invitations/new.html",
        {"form": form},
        status=422 if request.method == "POST" else 200,
    )


def _sent(request: TenantRequest, invitation: Invitation, token: str) -> HttpResponse:
    """Mail the link and show it."""
    link = settings.PUBLIC_URL + reverse("console:invitation_open", args=[token])
    response = render(
        request,
        "console/invitations/sent.html",
        {"invitation": invitation, "link": link, "mailed": services.send(invitation, link)},
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _decidable(request: TenantRequest, number: int) -> Invitation:
    """The open invitation ``number``, if it is here (404) and this person may decide on it (403)."""
    found = get_object_or_404(
        Invitation.objects.select_related("organization", "invited_by"), pk=number, accepted_at__isnull=True
    )
    if not may_decide(request.tenant, found):
        raise PermissionDenied
    return found


@requires(Permission.MANAGE_MEMBERS)
@require_POST
def invitation_resend(request: TenantRequest, invitation: int) -> HttpResponse:
    """Send an invitation again, with a new link and a new end."""
    found = _decidable(request, invitation)
    try:
        renewed, token = services.renew(acting_user=request.user, invitation=found)
    except ValueError as error:
        messages.error(request, str(error))
        return redirect("console:members", organization=request.tenant.organization.slug)
    return _sent(request, renewed, token)


@requires(Permission.MANAGE_MEMBERS)
@require_POST
def invitation_revoke(request: TenantRequest, invitation: int) -> HttpResponse:
    """Take an invitation back."""
    found = _decidable(request, invitation)
    try:
        services.revoke(acting_user=request.user, invitation=found)
    except ValueError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"Revoked the invitation of {found.email}. Its link no longer works.")
    return redirect("console:members", organization=request.tenant.organization.slug)


# --- The invited person ---------------------------------------------------------------------------


@never_cache
def invitation_open(request: HttpRequest, token: str) -> HttpResponse:
    """A link from a mail: keeps its token in the session and goes to the page without it."""
    request.session[SESSION_KEY] = token
    return redirect("console:invitation")


@never_cache
def invitation(request: HttpRequest) -> HttpResponse:
    """What the invitation offers, and its acceptance: signed in, or with a new account."""
    token = str(request.session.get(SESSION_KEY, ""))
    try:
        found = services.find(token)
        return _offer(request, found, token)
    except services.InvitationError as error:
        status = 404 if isinstance(error, services.UnknownInvitation) else 410
        return render(
            request, "console/invitations/refused.html", {"problem": type(error).__name__}, status=status
        )


def _offer(request: HttpRequest, found: Invitation, token: str) -> HttpResponse:
    """The page for who is here: the invited person, somebody else, or nobody signed in yet."""
    context: dict[str, Any] = {
        "invitation": found,
        # Not `organization`: whoever is here has no part in it yet.
        "host": found.organization,
        "role": Role(found.role).label.lower(),
    }
    if isinstance(request.user, User):
        if request.user.email.lower() != found.email:
            return render(request, "console/invitations/other.html", context, status=403)
        if request.method == "POST":
            services.accept(token=token, user=request.user)
            return _welcome(request, found)
        return render(request, "console/invitations/accept.html", context)
    if User.objects.filter(email__iexact=found.email).exists():
        return render(request, "console/invitations/sign_in.html", context)
    if settings.SIGN_UP == "closed":
        return render(request, "console/invitations/refused.html", {"problem": "Closed"}, status=403)
    form: SetPasswordForm[User] = SetPasswordForm(User(email=found.email), request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            member = services.accept_as_new(token=token, password=form.cleaned_data["new_password1"])
        except services.AccountExists:
            return render(request, "console/invitations/sign_in.html", context)
        home = reverse("console:overview", args=[found.organization.slug])
        response: HttpResponse = perform_login(
            request,
            member.user,
            email_verification=settings.ACCOUNT_EMAIL_VERIFICATION,
            redirect_url=home,
        )
        request.session.pop(SESSION_KEY, None)
        return response
    context["form"] = form
    return render(
        request, "console/invitations/join.html", context, status=422 if request.method == "POST" else 200
    )


def _welcome(request: HttpRequest, found: Invitation) -> HttpResponse:
    request.session.pop(SESSION_KEY, None)
    messages.success(request, f"Welcome to {found.organization.name}.")
    return redirect("console:overview", organization=found.organization.slug)


# Below /members/.
urlpatterns = [
    path("invitations/new/", invitation_new, name="invitation_new"),
    path("invitations/<int:invitation>/resend/", invitation_resend, name="invitation_resend"),
    path("invitations/<int:invitation>/revoke/", invitation_revoke, name="invitation_revoke"),
]
# Below /invitation/, outside every organization.
public_urlpatterns = [
    path("", invitation, name="invitation"),
    path("<str:token>/", invitation_open, name="invitation_open"),
]
