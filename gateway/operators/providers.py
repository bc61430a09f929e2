"""Providers and their credentials: listed, tried, added and taken out. A credential is never shown again."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from gateway.console.access import confirmed
from gateway.console.lists import words
from gateway.operators.access import OperatorRequest, operators_only
from gateway.operators.connection import try_connection
from routing.models import Provider
from routing.services.providers import ProviderError, set_credentials, stored_secrets

PAGE = 50


def found(request: OperatorRequest) -> QuerySet[Provider]:
    """The providers that the address asks for, by name."""
    search = words(request)
    every = Provider.objects.order_by("name").prefetch_related("credentials")
    every = every.annotate(placed=Count("deployments"))
    if search:
        every = every.filter(Q(name__icontains=search) | Q(base_url__icontains=search))
    return every


@operators_only
def providers(request: OperatorRequest) -> HttpResponse:
    """``/operator/providers/``: by name. ``?after=`` a name."""
    search, after = words(request), words(request, "after")
    rows = found(request)
    if after:
        rows = rows.filter(name__gt=after)
    page = list(rows[: PAGE + 1])
    return render(
        request,
        "operators/providers/list.html",
        {
            "providers": page[:PAGE],
            "search": search,
            "csv": f"{reverse('operator:providers_csv')}?{urlencode({'q': search} if search else {})}",
            "after": after,
            "older": page[PAGE - 1].name if len(page) > PAGE else "",
        },
    )


def _secrets(found: Provider) -> list[str]:
    """What is stored. Raises ``ProviderError`` if one cannot be read, since the others would replace it."""
    secrets = stored_secrets(found)
    if None in secrets:
        raise ProviderError(
            "A stored credential cannot be decrypted, so the list cannot be changed one by one: replace all of them."
        )
    return [secret for secret in secrets if secret is not None]


def _change(request: OperatorRequest, found: Provider) -> str:
    """Do what was sent; returns what was done. Raises ``ProviderError``."""
    secret = request.POST.get("secret", "").strip()
    do = request.POST.get("do")
    with transaction.atomic():
        locked = Provider.objects.select_for_update(no_key=True).get(pk=found.pk)
        if do in ("add", "replace") and (not secret or not secret.isprintable() or not secret.isascii()):
            raise ProviderError("secret: paste one credential, without spaces or line breaks.")
        if do == "add":
            wanted = [*_secrets(locked), secret]
            if secret in wanted[:-1]:
                raise ProviderError("secret: this credential is stored already.")
            done = "The credential is added; workers use it within a second."
        elif do == "replace":
            wanted, done = [secret], "The credential replaces all others; workers use it within a second."
        elif do == "remove":
            numbers = list(locked.credentials.order_by("pk").values_list("pk", flat=True))
            gone = request.POST.get("credential", "")
            if gone not in map(str, numbers):
                raise ProviderError("credential: it is gone already.")
            wanted = [
                each for number, each in zip(numbers, _secrets(locked), strict=True) if str(number) != gone
            ]
            done = "The credential is taken out; workers stop using it within a second."
        else:
            return ""
        set_credentials(acting_user=request.user, provider=locked, secrets=wanted)
    return done


def _changes_credentials(request: OperatorRequest, name: str) -> str:
    changes = request.POST.get("do") in ("add", "replace", "remove")
    return f"change the credentials of {name}" if changes else ""


@operators_only
@confirmed(_changes_credentials)
def provider_detail(request: OperatorRequest, name: str) -> HttpResponse:
    """``/operator/providers/<name>/``. POST ``do=test``, ``add``, ``replace`` or ``remove``."""
    found = get_object_or_404(Provider, name=name)
    trials, problem = None, ""
    if request.method == "POST":
        if request.POST.get("do") == "test":
            trials = try_connection(found)
        else:
            try:
                if done := _change(request, found):
                    messages.success(request, done)
                return redirect("operator:provider", name=found.name)
            except ProviderError as error:
                problem = str(error)
    deployments = list(found.deployments.order_by("name")[:200])
    listed = frozenset[str]().union(*(trial.models for trial in trials or ()))
    response = render(
        request,
        "operators/providers/detail.html",
        {
            "provider": found,
            "credentials": found.credentials.order_by("pk"),
            "deployments": deployments,
            "trials": trials,
            "listed": len(listed),
            "unlisted": [each for each in deployments if listed and each.model not in listed],
            "problem": problem,
        },
        status=422 if problem else 200,
    )
    response.headers["Cache-Control"] = "no-store"
    return response
