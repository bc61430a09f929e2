"""When a person last proved who they are, and what waits while they prove it again.

A dangerous request is not lost by the question: a form that was sent is kept, encrypted, in the session, and
the person is led back to it. django-allauth's own way of keeping it would write what was typed, secrets
too, into the session as it is, and would call the view outside its tenant.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from allauth.account import app_settings
from allauth.account.adapter import get_adapter
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme

from gateway.models import SignInProvider
from routing.credentials import UndecipherableCredential, decrypt, encrypt
from tenants.models import User

# Names what waits, in an address and in a form.
FIELD = "_waiting"
SESSION_KEY = "waiting_post"
# How long it waits, in seconds.
PATIENCE = 3600
METHOD = "single_sign_on"
# How far a provider's clock may be from this one's, in seconds.
LEEWAY = 60


def window() -> int:
    """For how many seconds a proof counts (CONFIRMATION_MINUTES)."""
    seconds: int = app_settings.REAUTHENTICATION_TIMEOUT
    return seconds


def proved_recently(request: HttpRequest) -> bool:
    """Whether who is signed in has proved it a short while ago: by signing in, or when asked again."""
    records = get_authentication_records(request, request.user) if request.user.is_authenticated else []
    return time.time() - max((record["at"] for record in records), default=-math.inf) < window()


def note_sign_in(
    request: HttpRequest, user: User, provider: SignInProvider, at: float | None, *, again: bool = False
) -> bool:
    """Note that ``user`` signed in at ``provider``, which says when (``at``, Unix time); returns whether it counts.

    Many providers lead on whoever has a session there, without asking anything, so an old time does not
    count. Without a time it counts only ``again``, when the provider was told to ask.
    """
    now = time.time()
    if at is None and not again:
        return False
    if at is not None and now - at > window() + LEEWAY:
        return False
    record_authentication(
        request,
        user,
        method=METHOD,
        provider=provider.pk,
        at=now if at is None else min(at, now),
        reauthenticated=again or None,
    )
    return True


def ask(request: HttpRequest, wanted: str) -> HttpResponse:
    """To the page where the person proves who they are, which leads on to ``wanted``."""
    ways = get_adapter().get_reauthentication_methods(request.user)
    return redirect(f"{ways[0]['url']}?{urlencode({'next': wanted})}")


def _keep(request: HttpRequest, danger: str) -> str:
    """Keep the form that was sent; returns the address at which it goes on."""
    posted = request.POST.copy()
    posted.pop("csrfmiddlewaretoken", None)
    came_from = request.headers.get("referer", "")
    known = url_has_allowed_host_and_scheme(came_from, allowed_hosts={request.get_host()})
    name = secrets.token_urlsafe(16)
    request.session[SESSION_KEY] = {
        "name": name,
        "path": request.path,
        "query": request.GET.urlencode(),
        "user": request.user.pk,
        "at": time.time(),
        "danger": danger,
        "back": urlsplit(came_from).path if known else "",
        "body": encrypt(posted.urlencode()).decode(),
    }
    return f"{request.path}?{urlencode({FIELD: name})}"


def _kept(request: HttpRequest, name: str) -> dict[str, Any] | None:
    """What waits under ``name`` for this person at this address; None if nothing does."""
    found: dict[str, Any] = request.session.get(SESSION_KEY, {})
    mine = (
        bool(found)
        and constant_time_compare(found["name"], name)
        and found["path"] == request.path
        and found["user"] == request.user.pk
        and time.time() - found["at"] < PATIENCE
    )
    return found if mine else None


def _resume(request: HttpRequest, found: dict[str, Any]) -> bool:
    """Make ``request`` the one that was kept, which works once; False if it cannot be read any more."""
    del request.session[SESSION_KEY]
    try:
        request.POST = QueryDict(decrypt(found["body"].encode()))
    except UndecipherableCredential:
        return False
    request.GET = QueryDict(found["query"])
    return True


def _show(request: HttpRequest, found: dict[str, Any] | None) -> HttpResponse:
    response = render(
        request,
        "account/confirmed.html",
        {"waiting": found, "field": FIELD},
        status=200 if found else 410,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def guard(
    request: HttpRequest,
    proceed: Callable[[], HttpResponse],
    danger: Callable[[], str],
    *,
    asked_first: bool = False,
) -> HttpResponse:
    """``proceed()``, if what ``danger()`` names (empty: nothing) is asked for by somebody who proved recently
    who they are; else the way there. ``asked_first``: a GET is asked for it too."""
    if request.method == "POST" and FIELD in request.POST:
        name = request.POST[FIELD]
        found = _kept(request, name)
        if found is not None and not proved_recently(request):
            return ask(request, f"{request.path}?{urlencode({FIELD: name})}")
        return proceed() if found is not None and _resume(request, found) else _show(request, None)
    if request.method == "GET" and FIELD in request.GET:
        found = _kept(request, request.GET[FIELD])
        if found is not None and not proved_recently(request):
            return ask(request, request.get_full_path())
        return _show(request, found)
    if request.method == "POST" or (asked_first and request.method == "GET"):
        words = "" if proved_recently(request) else danger()
        if words:
            return ask(
                request, _keep(request, words) if request.method == "POST" else request.get_full_path()
            )
    return proceed()
