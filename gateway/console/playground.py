"""The playground: a person asks a model from the browser, in the same way as an app does.

The page calls ``/v1`` itself, with a key of the person's own that works for 15 minutes. Its secret goes from
the answer of a POST into the page's memory and nowhere else. What is written there is never stored.
"""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from billing.access import usage_event, visible_to
from billing.money import plain
from gateway.console import keyring
from gateway.console.access import TenantRequest, requires
from routing.access import model_groups_of, permitted_names
from tenants.models import Team
from tenants.permissions import Permission
from tenants.services.lent_keys import KeyNameTaken, lend_key


@requires(Permission.MAKE_OWN_KEYS, Permission.MANAGE_KEYS)
def playground(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/playground/``: ask a model, with what a request can carry."""
    tenant = request.tenant
    teams = list(keyring.teams_for_new_keys(tenant).order_by("name"))
    organization = tenant.organization
    groups = [group.name for group in model_groups_of(organization)]
    models = {}
    for team in teams:
        permitted = permitted_names(organization, team.model_groups)
        models[str(team.pk)] = [name for name in groups if permitted is None or name in permitted]
    return render(
        request,
        "console/playground/playground.html",
        {
            "teams": teams,
            "models": models,
            "has_models": any(models.values()),
            "has_teams": Team.objects.exists(),
            "may_make_teams": tenant.may(Permission.MANAGE_TEAMS),
            "base_url": f"{settings.PUBLIC_URL}/v1",
        },
    )


@sensitive_variables("secret")
@requires(Permission.MAKE_OWN_KEYS, Permission.MANAGE_KEYS)
@require_POST
def playground_key(request: TenantRequest) -> HttpResponse:
    """Lend a key in ``team`` to the page that asks: ``{"secret", "expires_at"}``."""
    number = request.POST.get("team", "")
    team = keyring.teams_for_new_keys(request.tenant).filter(pk=number).first() if number.isdigit() else None
    if team is None:
        raise Http404
    try:
        key, secret = lend_key(acting_user=request.user, team=team, owner=request.tenant.membership)
    except KeyNameTaken as taken:
        return JsonResponse({"error": {"message": f"{taken} Rename it, for the playground's."}}, status=409)
    answer = JsonResponse({"secret": secret, "expires_at": key.expires_at, "key": key.pk})
    answer.headers["Cache-Control"] = "no-store"
    return answer


@requires(Permission.MAKE_OWN_KEYS, Permission.MANAGE_KEYS)
def playground_usage(request: TenantRequest) -> HttpResponse:
    """What the request ``?request=`` used and cost, once it is in the books; ``{"known": false}`` before.

    ``charge`` is in US dollars, exact, as a string; times are in milliseconds.
    """
    tenant = request.tenant
    number = request.GET.get("request", "")
    event = usage_event(tenant.organization, number, visible_to(tenant, Permission.VIEW_REQUESTS))
    if event is None:
        return JsonResponse({"known": False})
    return JsonResponse(
        {
            "known": True,
            "charge": plain(event.charge),
            "input_tokens": event.input_tokens + event.cached_input_tokens + event.cache_write_tokens,
            "cached_tokens": event.cached_input_tokens,
            "output_tokens": event.output_tokens,
            "reasoning_tokens": event.reasoning_tokens,
            "deployment": event.deployment,
            "attempts": len(event.attempts),
            "first_token_ms": event.first_token_ms,
            "duration_ms": event.duration_ms,
        }
    )


urlpatterns = [
    path("", playground, name="playground"),
    path("key/", playground_key, name="playground_key"),
    path("usage/", playground_usage, name="playground_usage"),
]
