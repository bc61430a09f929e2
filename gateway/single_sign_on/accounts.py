"""What django-allauth asks before it signs somebody in, and before it lets them do what is dangerous."""

from __future__ import annotations

from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse, ReauthenticationRequired
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from gateway.confirmation import proved_recently
from gateway.single_sign_on.again import providers_of
from gateway.single_sign_on.domains import holder
from tenants import accounts
from tenants.models import User

# Passed to ``perform_login`` by the one way in that needs no password.
ARRIVED = "single_sign_on"


class AccountAdapter(accounts.AccountAdapter):
    """Sends people whose address belongs to an organization that is OIDC only to its provider."""

    def pre_login(self, request: HttpRequest, user: User, **options: Any) -> HttpResponse | None:
        """A redirect instead of the sign-in, or None to go on. Asked after a right password, whatever the way.

        Operators keep their password, since no organization's provider may sign them in.
        """
        refused: HttpResponse | None = super().pre_login(request, user, **options)
        if refused is not None or ARRIVED in (options.get("signal_kwargs") or {}) or user.is_staff:
            return refused
        organization = holder(user.email)
        if organization is None or not organization.oidc_only:
            return None
        messages.info(request, f"{organization.name} signs you in through its own provider only.")
        return redirect("console:sign_in_organization", slug=organization.slug)

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, str]]:
        """The ways in which ``user`` can prove again who they are, the usual one first; never none."""
        ways: list[dict[str, str]] = super().get_reauthentication_methods(user)
        if isinstance(user, User) and (not ways or providers_of(user)):
            ways.append(
                {
                    "id": "elsewhere",
                    "description": "Sign in at your provider",
                    "url": reverse("console:confirm"),
                }
            )
        return ways

    def is_reauthentication_required(self, *, app: str, **options: Any) -> bool:
        """Whether a change to one's own account asks again. Signing in counts as an answer, as it does in the console.

        django-allauth (65.21) counts only answers to the question itself, and asks nothing at all of
        whoever has neither a password nor a second factor: they are asked for what they have.
        """
        request: HttpRequest = context.request
        if proved_recently(request):
            return False
        if super().is_reauthentication_required(app=app, **options):
            if not super().get_reauthentication_methods(request.user):
                raise ReauthenticationRequired
            return True
        return False


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Signing in at a provider of the whole gateway (OIDC)."""

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Who is signed in and comes again as themselves has proved who they are. Else their session would end
        here and another begin, without what waits in it."""
        same = request.user.is_authenticated and sociallogin.is_existing and sociallogin.user == request.user
        if not same or sociallogin.state.get("process") != "login":
            return
        account = sociallogin.account
        record_authentication(
            request,
            request.user,
            "socialaccount",
            provider=account.provider,
            uid=account.uid,
            reauthenticated=True,
        )
        raise ImmediateHttpResponse(redirect(sociallogin.get_redirect_url(request) or "console:home"))
