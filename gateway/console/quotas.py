"""The page of all limits, and their editing in place."""

from __future__ import annotations

from datetime import UTC, datetime

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from billing.models import Quota
from billing.services import quotas as services
from gateway.console import keyring, layers
from gateway.console.access import TenantRequest, requires
from gateway.console.forms import Limits
from tenants.access import TenantAccess
from tenants.models import ApiKey, Organization, Team, User
from tenants.permissions import Permission


def _page(request: TenantRequest, edited: str, form: Limits | None) -> HttpResponse:
    """The page, with the layer ``edited`` as a form."""
    now = datetime.now(UTC)
    return render(
        request,
        "console/quotas/page.html",
        {
            "layers": layers.all_layers(request.tenant, now, also=edited),
            "edited": edited,
            "form": form,
            "free_keys": layers.limitable_keys(request.tenant, now),
            "now": now,
        },
        status=422 if form is not None and form.is_bound else 200,
    )


def editable_target(tenant: TenantAccess, anchor: str) -> Organization | Team | ApiKey:
    """What ``organization``, ``team-3`` or ``key-17`` names.

    Raises Http404 where it is unknown or not to be seen, PermissionDenied where its limits are not
    this person's to set.
    """
    scope, _, number = anchor.partition("-")
    if anchor == "organization":
        if not tenant.may(Permission.MANAGE_QUOTAS):
            raise PermissionDenied
        return tenant.organization
    if not number.isdecimal():
        raise Http404
    found: Team | ApiKey | None = None
    if scope == "team":
        found = Team.objects.filter(pk=int(number)).first()
    elif scope == "key":
        found = keyring.visible_keys(tenant).filter(pk=int(number)).first()
    if found is None:
        raise Http404
    if not tenant.may(Permission.MANAGE_QUOTAS, found.team_id if isinstance(found, ApiKey) else found):
        raise PermissionDenied
    return found


def quotas_of(target: Organization | Team | ApiKey) -> list[Quota]:
    """The limits set directly on ``target``."""
    if isinstance(target, Team):
        return list(Quota.objects.filter(scope="team", team=target))
    if isinstance(target, ApiKey):
        return list(Quota.objects.filter(scope="key", key=target))
    return list(Quota.objects.filter(scope="organization"))


@transaction.atomic
def save_limits(acting_user: User, target: Organization | Team | ApiKey, form: Limits) -> None:
    """Make the limits of ``target`` those of the form: set what is filled in, remove what is not."""
    scope = {Team: "team", ApiKey: "key", Organization: "organization"}[type(target)]
    existing = {(quota.metric, quota.period): quota for quota in quotas_of(target)}
    wanted = form.wanted()
    for place, quota in existing.items():
        if place not in wanted:
            services.remove_quota(acting_user=acting_user, quota=quota)
    for (metric, period), limit in wanted.items():
        before = existing.get((metric, period))
        if before is not None and before.limit == limit:
            continue
        services.set_quota(
            acting_user=acting_user,
            scope=scope,
            target=target,
            metric=metric,
            limit=limit,
            period=period,
            hard=before.hard if before else True,
            alert_at=tuple(before.alert_at) if before else (),
        )


@requires(Permission.VIEW)
def quota_page(request: TenantRequest) -> HttpResponse:
    """Every layer with what is used of it; ``?edit=team-3`` opens that layer's form."""
    edited = request.GET.get("edit", "")
    form = None
    if edited:
        form = Limits(initial=Limits.initial_of(quotas_of(editable_target(request.tenant, edited))))
    return _page(request, edited, form)


@requires(Permission.MANAGE_QUOTAS)
@require_POST
def quota_save(request: TenantRequest, layer: str) -> HttpResponse:
    """Save the limits of one layer."""
    target = editable_target(request.tenant, layer)
    form = Limits(request.POST)
    if form.is_valid():
        try:
            save_limits(request.user, target, form)
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"Saved the limits of {getattr(target, 'name', target)}.")
            page = reverse("console:quotas", args=[request.tenant.organization.slug])
            return redirect(f"{page}#{layer}")
    return _page(request, layer, form)


urlpatterns = [
    path("", quota_page, name="quotas"),
    path("<slug:layer>/", quota_save, name="quota_save"),
]
