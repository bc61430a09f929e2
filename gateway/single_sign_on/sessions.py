"""Which organizations' providers a browser's session came through, and the door of those that ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse

from gateway.models import SignInProvider
from tenants.models import User

SESSION_KEY = "single_sign_on"
# A session that came through a provider is asked to come again, so that who left there leaves here too.
LIFE_SECONDS = 12 * 3600


def _client(provider: SignInProvider) -> list[object]:
    """What makes it another provider when it changes."""
    return [provider.pk, provider.issuer, provider.client_id]


def note_arrival(request: HttpRequest, user: User, provider: SignInProvider) -> None:
    """Remember in the session that ``user`` came through ``provider``. It counts only while they are who is
    signed in, so it may be noted while a second factor is still asked for."""
    held = request.session.get(SESSION_KEY, {})
    by = held.get("by", {}) if held.get("user") == user.pk else {}
    by[str(provider.organization_id)] = [_client(provider), int(time.time())]
    request.session[SESSION_KEY] = {"user": user.pk, "by": by}


def came_through(request: HttpRequest, provider: SignInProvider) -> bool:
    """Whether the person who is signed in came through ``provider``, as it is set today, not too long ago."""
    held = request.session.get(SESSION_KEY, {})
    if not isinstance(request.user, User) or held.get("user") != request.user.pk:
        return False
    client, at = held.get("by", {}).get(str(provider.organization_id), [None, 0])
    return bool(client == _client(provider) and time.time() - at < LIFE_SECONDS)


class OidcOnly:
    """Lets nobody into an organization that is OIDC only but through its provider; works inside ``TenantScope``.

    An operator on a visit reads on: the visit is logged and ends.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        tenant = getattr(request, "tenant", None)
        if tenant is None or not tenant.organization.oidc_only or tenant.visit is not None:
            return self.get_response(request)
        provider = SignInProvider.objects.filter(organization=tenant.organization).first()
        if provider is not None and came_through(request, provider):
            return self.get_response(request)
        if request.path_info.startswith("/api/"):
            return JsonResponse({"detail": "Sign in through your organization first."}, status=403)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        there = reverse("console:sign_in_organization", args=[tenant.organization.slug])
        return redirect(f"{there}?{urlencode({'next': request.get_full_path()})}")
