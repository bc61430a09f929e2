"""Proving who one is at the provider that signs one in: for people without a password, and for all who like."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_scopes import scopes_disabled

from gateway.models import SignInProvider
from tenants.models import User


def providers_of(user: User) -> list[SignInProvider]:
    """The providers of organizations that know ``user``, suspended organizations' left out."""
    with scopes_disabled():
        found = SignInProvider.objects.filter(
            identities__membership__user=user, organization__suspended_at__isnull=True
        )
        return list(found.select_related("organization").order_by("organization__name"))


def _gateways(user: User, wanted: str) -> list[tuple[str, str]]:
    """Names and addresses of the gateway's own providers (OIDC) that know ``user``."""
    names = {
        app["provider_id"]: app.get("name") or app["provider_id"]
        for app in settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]
    }
    known = SocialAccount.objects.filter(user=user, provider__in=names).order_by("provider")
    asked = urlencode({"next": wanted, "auth_params": "prompt=login"})
    return [
        (names[each.provider], f"{reverse('openid_connect_login', args=[each.provider])}?{asked}")
        for each in known
    ]


@never_cache
@require_safe
def confirm(request: HttpRequest) -> HttpResponse:
    """``/confirm/?next=``: the ways to prove again who one is that are elsewhere, and what else there is."""
    user = request.user
    if not isinstance(user, User):
        return redirect_to_login(request.get_full_path())
    wanted = request.GET.get("next", "")
    if not url_has_allowed_host_and_scheme(wanted, allowed_hosts=None):
        wanted = reverse("console:home")
    asked = urlencode({"next": wanted, "again": "1"})
    places = [
        (
            str(urlsplit(each.issuer).hostname),
            f"{reverse('console:sign_in_start', args=[each.organization.slug])}?{asked}",
        )
        for each in providers_of(user)
    ]
    context: dict[str, Any] = {
        "places": places + _gateways(user, wanted),
        "has_password": user.has_usable_password(),
        "wanted": wanted,
    }
    return render(request, "account/elsewhere.html", context)


# Outside every organization.
urlpatterns = [path("", confirm, name="confirm")]
