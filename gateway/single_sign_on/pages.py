"""The way in through an organization's provider: the address, the provider, and back.

No page leads on to the provider by itself: browsers hold a form to the content security policy through all
its redirects, so the last step is a link.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from allauth.account.utils import perform_login
from allauth.core import ratelimit
from django import forms
from django.conf import settings
from django.contrib.auth import logout
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_scopes import scopes_disabled

from gateway.confirmation import note_sign_in, window
from gateway.models import SignInIdentity, SignInProvider
from gateway.single_sign_on.accounts import ARRIVED
from gateway.single_sign_on.arrivals import Refused, arrive
from gateway.single_sign_on.domains import holder
from gateway.single_sign_on.issuers import Claims, IssuerError, authorization_url, discover, redeem
from gateway.single_sign_on.sessions import note_arrival
from routing.credentials import UndecipherableCredential, decrypt
from tenants.models import User

# What waits in the session for the person's return, and how long, in seconds.
PENDING_KEY = "single_sign_on_pending"
PATIENCE = 900
HINT_KEY = "single_sign_on_hint"

log = logging.getLogger(__name__)


class Address(forms.Form):
    """Whose organization is looked for."""

    email = forms.EmailField(
        label="E-mail address",
        widget=forms.EmailInput(
            attrs={"autocomplete": "email", "autofocus": True, "placeholder": "ann@example.com"}
        ),
    )


def _provider(slug: str) -> SignInProvider:
    """The provider of the organization ``slug``; 404 if it has none or is suspended."""
    with scopes_disabled():
        found = (
            SignInProvider.objects.select_related("organization")
            .filter(organization__slug=slug, organization__suspended_at__isnull=True)
            .first()
        )
    if found is None:
        raise Http404
    return found


def callback_url(slug: str) -> str:
    """The address that is registered at the provider. One each, so that no provider answers for another."""
    return settings.PUBLIC_URL + reverse("console:sign_in_callback", args=[slug])


def _too_often(request: HttpRequest) -> HttpResponse | None:
    """The answer (429) to an address from which sign-ins were begun too often; None for others."""
    # django-allauth counts no GET unless it is told to.
    refused: HttpResponse | None = ratelimit.consume_or_429(request, action="single_sign_on", limit_get=True)
    return refused


def _next(request: HttpRequest, slug: str) -> str:
    """Where to go in the end: only within this console."""
    wanted = request.GET.get("next", "")
    if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None):
        return wanted
    return reverse("console:overview", args=[slug])


@never_cache
def sign_in_email(request: HttpRequest) -> HttpResponse:
    """``/sign-in/``: an address; on to the organization whose domain it is in."""
    form = Address(request.POST or None)
    if request.method == "POST" and form.is_valid():
        # Else whose domains are here could be asked of a list.
        if (refused := _too_often(request)) is not None:
            return refused
        email = form.cleaned_data["email"].lower()
        organization = holder(email)
        with scopes_disabled():
            if organization and SignInProvider.objects.filter(organization=organization).exists():
                request.session[HINT_KEY] = email
                return redirect("console:sign_in_organization", slug=organization.slug)
        form.add_error("email", "No organization signs people in with this address. Use your password.")
    return render(
        request, "single_sign_on/email.html", {"form": form}, status=422 if request.method == "POST" else 200
    )


@never_cache
@require_safe
def sign_in_organization(request: HttpRequest, slug: str) -> HttpResponse:
    """``/sign-in/<slug>/``: which organization and provider it is, and a link there."""
    provider = _provider(slug)
    there = reverse("console:sign_in_start", args=[slug])
    return render(
        request,
        "single_sign_on/organization.html",
        {
            # Not `organization`: whoever is here has no part in it yet.
            "host": provider.organization,
            "place": urlsplit(provider.issuer).hostname,
            "there": f"{there}?{urlencode({'next': _next(request, slug)})}",
            "hint": request.session.get(HINT_KEY, ""),
        },
    )


@never_cache
@require_safe
def sign_in_start(request: HttpRequest, slug: str) -> HttpResponse:
    """To the provider, with what binds its answer to this browser, this client and this moment.

    ``?again=1``: the person is signed in already and proves who they are once more.
    """
    provider = _provider(slug)
    if (refused := _too_often(request)) is not None:
        return refused
    again = "again" in request.GET and request.user.is_authenticated
    try:
        endpoints = discover(provider.issuer)
    except IssuerError as error:
        return _failed(request, provider, str(error))
    pending = {
        "provider": provider.pk,
        "state": secrets.token_urlsafe(32),
        "nonce": secrets.token_urlsafe(32),
        "verifier": secrets.token_urlsafe(48),
        "next": _next(request, slug),
        "at": int(time.time()),
        "again": again,
    }
    request.session[PENDING_KEY] = pending
    return HttpResponseRedirect(
        authorization_url(
            endpoints,
            client_id=provider.client_id,
            redirect_uri=callback_url(slug),
            state=str(pending["state"]),
            nonce=str(pending["nonce"]),
            verifier=str(pending["verifier"]),
            hint=str(request.session.get(HINT_KEY, "")),
            most_age=window() if again else None,
        )
    )


@never_cache
@require_safe
def sign_in_callback(request: HttpRequest, slug: str) -> HttpResponse:
    """Back from the provider, with a code for tokens or an error."""
    provider = _provider(slug)
    # Taken out whatever comes: an answer works once.
    pending: dict[str, Any] = request.session.pop(PENDING_KEY, {})
    if (
        pending.get("provider") != provider.pk
        or not constant_time_compare(request.GET.get("state", ""), str(pending.get("state", "")))
        or time.time() - int(pending.get("at", 0)) > PATIENCE
    ):
        return _failed(request, provider, "This sign-in was begun elsewhere, or too long ago.")
    if "code" not in request.GET:
        said = request.GET.get("error", "")
        known = said if re.fullmatch(r"[a-z_]{1,60}", said) else "no code"
        return _failed(request, provider, f"Your provider answered: {known}.")
    try:
        claims = redeem(
            discover(provider.issuer),
            client_id=provider.client_id,
            secret=decrypt(provider.ciphertext),
            code=request.GET["code"],
            redirect_uri=callback_url(slug),
            verifier=pending["verifier"],
            nonce=pending["nonce"],
        )
        if pending.get("again"):
            _known(request, provider, claims)
        user = arrive(provider=provider, claims=claims)
    except (IssuerError, Refused, UndecipherableCredential) as error:
        # The messages hold no secret; without them an owner could not tell what is wrong.
        log.info("A sign-in through the provider of %s failed: %s", slug, error)
        return _failed(request, provider, str(error))
    if pending.get("again"):
        if not note_sign_in(request, user, provider, claims.signed_in_at, again=True):
            return _failed(request, provider, "Your provider did not ask you to sign in anew.")
        note_arrival(request, user, provider)
        return redirect(str(pending["next"]))
    if request.user.is_authenticated and request.user.pk != user.pk:
        # Nothing of the one is left to the other.
        logout(request)
    request.session.pop(HINT_KEY, None)
    note_sign_in(request, user, provider, claims.signed_in_at)
    # A second factor is asked for as after a password.
    entered: HttpResponse = perform_login(
        request,
        user,
        email_verification="none",
        redirect_url=pending["next"],
        signal_kwargs={ARRIVED: provider.pk},
    )
    note_arrival(request, user, provider)
    return entered


def _known(request: HttpRequest, provider: SignInProvider, claims: Claims) -> None:
    """Raise ``Refused`` unless ``claims`` speak of whoever is signed in here: nobody else is let in instead."""
    with scopes_disabled():
        found = SignInIdentity.objects.filter(provider=provider, subject=claims.subject)
        if isinstance(request.user, User) and found.filter(membership__user=request.user).exists():
            return
    raise Refused("Your provider signed in somebody else than who is signed in here.")


def _failed(request: HttpRequest, provider: SignInProvider, problem: str) -> HttpResponse:
    return render(
        request,
        "single_sign_on/failed.html",
        {"host": provider.organization, "problem": problem},
        status=403,
    )


# Below /sign-in/, outside every organization.
urlpatterns = [
    path("", sign_in_email, name="sign_in_email"),
    path("<slug:slug>/", sign_in_organization, name="sign_in_organization"),
    path("<slug:slug>/start/", sign_in_start, name="sign_in_start"),
    path("<slug:slug>/callback/", sign_in_callback, name="sign_in_callback"),
]
