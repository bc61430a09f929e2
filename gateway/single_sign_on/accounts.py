"""What django-allauth asks before it signs somebody in."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

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
