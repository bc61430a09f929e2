"""Organizations that let in only people with a second factor."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from allauth.mfa.models import Authenticator
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, Q
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_scopes import scopes_disabled

from gateway.models import SignInIdentity, SignInProvider
from gateway.single_sign_on.sessions import came_through
from tenants.access import tenant_access
from tenants.models import Organization, User

# Recovery codes alone are none: they stand in for one of these that was lost.
FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User) -> bool:
    """Whether ``user`` is asked for a code or a passkey when they sign in, or has a passkey instead of a password."""
    return bool(Authenticator.objects.filter(user=user, type__in=FACTORS).exists())


def secured() -> Q:
    """For a query of memberships: whether the member has a second factor, or comes through the organization's
    provider, which may ask for one itself."""
    own = Authenticator.objects.filter(user=OuterRef("user"), type__in=FACTORS)
    return Exists(own) | Exists(SignInIdentity.objects.filter(membership=OuterRef("pk")))


def satisfies(request: HttpRequest, organization: Organization) -> bool:
    """Whether who is signed in may enter ``organization`` while it demands a second factor."""
    if not isinstance(request.user, User):
        return False
    if has_second_factor(request.user):
        return True
    with scopes_disabled():
        provider = SignInProvider.objects.filter(organization=organization).first()
    # What it asks people for is the organization's own decision, made there; a token does not say it reliably.
    return provider is not None and came_through(request, provider)


class SecondFactor:
    """Leads members without a second factor to set one up, where their organization demands it.

    Works inside ``TenantScope``. Other organizations and the person's own account stay open, and so does
    an operator's visit, which is logged and ends.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        tenant = getattr(request, "tenant", None)
        if tenant is None or not tenant.organization.require_mfa or tenant.visit is not None:
            return self.get_response(request)
        if satisfies(request, tenant.organization):
            return self.get_response(request)
        if request.path_info.startswith("/api/"):
            return JsonResponse({"detail": "Set up a second factor first."}, status=403)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        there = reverse("console:second_factor", args=[tenant.organization.slug])
        return redirect(f"{there}?{urlencode({'next': request.get_full_path()})}")


@never_cache
@require_safe
def second_factor(request: HttpRequest, slug: str) -> HttpResponse:
    """``/second-factor/<slug>/?next=``: what the organization demands and how one gets it; then on to ``next``."""
    if not isinstance(request.user, User):
        return redirect_to_login(request.get_full_path())
    access = tenant_access(request.user, slug)
    if access is None:
        raise Http404
    organization = access.organization
    wanted = request.GET.get("next", "")
    if not url_has_allowed_host_and_scheme(wanted, allowed_hosts=None):
        wanted = reverse("console:overview", args=[slug])
    if access.visit is not None or not organization.require_mfa or satisfies(request, organization):
        return redirect(wanted)
    with scopes_disabled():
        provider = SignInProvider.objects.filter(organization=organization).exists()
    through = f"{reverse('console:sign_in_organization', args=[slug])}?{urlencode({'next': wanted})}"
    return render(
        request,
        "account/second_factor.html",
        # Not `organization`: its pages are closed yet.
        {"host": organization, "through": through if provider else ""},
    )


# Outside every organization.
urlpatterns = [path("<slug:slug>/", second_factor, name="second_factor")]
