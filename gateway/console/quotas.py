"""The page of all limits, and their editing in place."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from billing.models import Quota
from billing.services import quotas as services
from gateway.console import keyring, layers
from gateway.console.access import TenantRequest, demand, requires
from gateway.console.forms import Increase, Limits, group_choices
from gateway.console.lists import words
from gateway.console.quota_file import quota_file
from tenants.access import TenantAccess
from tenants.models import ApiKey, Membership, Organization, Team, User
from tenants.permissions import Permission

# Keys, and members, that the page has at a time.
MOST = 50


def _page(
    request: TenantRequest,
    edited: str,
    form: Limits | None,
    model_group: str = "",
    raising: tuple[Quota, Increase] | None = None,
) -> HttpResponse:
    """The page, with the layer ``edited`` (its part about ``model_group``) as a form, or an increase."""
    now = datetime.now(UTC)
    search = words(request)
    found = layers.all_layers(
        request.tenant, now, also=edited, model_group=model_group, search=search, most=MOST
    )
    free_keys = list(layers.limitable_keys(request.tenant, now, search)[: MOST + 1])
    free_members = list(layers.limitable_members(request.tenant, search)[: MOST + 1])
    more_free = len(free_keys) > MOST or len(free_members) > MOST
    bad = any(each is not None and each.is_bound for each in (form, raising and raising[1]))
    return render(
        request,
        "console/quotas/page.html",
        {
            "layers": found,
            "edited": f"{edited}-for-{model_group}" if model_group else edited,
            "form": form,
            "raised": raising[0] if raising else None,
            "increase": raising[1] if raising else None,
            "shared_layers": [layer for layer in found.every() if layer.editable],
            "free_keys": free_keys[:MOST],
            "free_members": free_members[:MOST],
            "search": search,
            "csv": f"{reverse('console:quotas_csv', args=[request.tenant.organization.slug])}?"
            + urlencode({"q": search} if search else {}),
            "searchable": bool(search) or found.more or more_free,
            "more_free": more_free,
            "shown_part": f"The first {MOST} keys and the first {MOST} members with limits of their own are shown. "
            "Search for the others, or take the CSV.",
            "model_groups": [name for name, _ in group_choices(request.tenant)],
            "now": now,
        },
        status=422 if bad else 200,
    )


Target = Organization | Team | ApiKey | Membership


def editable(tenant: TenantAccess, anchor: str) -> tuple[str, Target]:
    """The scope and target that an anchor such as ``organization``, ``team-3`` or ``key-17`` names.

    Raises Http404 where it is unknown or not to be seen, PermissionDenied where its limits are not
    this person's to set.
    """
    scope, _, number = anchor.partition("-")
    if anchor in {"organization", "end_user"}:
        demand(tenant, Permission.MANAGE_QUOTAS)
        return anchor, tenant.organization
    if not number.isdecimal():
        raise Http404
    if scope == "team":
        team = get_object_or_404(Team.objects.all(), pk=int(number))
        demand(tenant, Permission.MANAGE_QUOTAS, team)
        return scope, team
    if scope == "key":
        key = get_object_or_404(keyring.visible_keys(tenant), pk=int(number))
        demand(tenant, Permission.MANAGE_QUOTAS, key.team)
        return scope, key
    if scope == "member":
        demand(tenant, Permission.MANAGE_QUOTAS)
        return scope, get_object_or_404(Membership.objects.select_related("user"), pk=int(number))
    raise Http404


def quotas_of(scope: str, target: Target, model_group: str = "", end_user: str = "") -> list[Quota]:
    """The limits set directly on ``target``, for all models or for one model group; of end users, the default
    or those of ``end_user`` alone."""
    place = {} if isinstance(target, Organization) else {scope: target}
    return list(Quota.objects.filter(scope=scope, end_user=end_user, model_group=model_group, **place))


def _group_to_limit(tenant: TenantAccess, name: str, existing: list[Quota]) -> None:
    """Http404 unless ``name`` is empty, a model group the organization may use, or limited already."""
    if name and not existing and (name, name) not in group_choices(tenant):
        raise Http404


@transaction.atomic
def save_limits(
    acting_user: User, scope: str, target: Target, form: Limits, model_group: str = "", end_user: str = ""
) -> None:
    """Make the limits of ``target`` those of the form: set what is filled in, remove what is not."""
    found = quotas_of(scope, target, model_group, end_user)
    existing = {(quota.metric, quota.period): quota for quota in found}
    hard, alert_at = not form.cleaned_data["alerts_only"], form.cleaned_data["alert_at"]
    wanted = form.wanted()
    for place, quota in existing.items():
        if place not in wanted:
            services.remove_quota(acting_user=acting_user, quota=quota)
    for (metric, period), limit in wanted.items():
        budget = metric == "budget"
        services.set_quota(
            acting_user=acting_user,
            scope=scope,
            target=target,
            metric=metric,
            limit=limit,
            period=period,
            hard=hard or not budget,
            alert_at=alert_at if budget else (),
            end_user=end_user,
            model_group=model_group,
        )


@requires(Permission.VIEW)
def quota_page(request: TenantRequest) -> HttpResponse:
    """Every layer with what is used of it; ``?edit=team-3`` opens that layer's form."""
    edited, model_group = request.GET.get("edit", ""), request.GET.get("model", "")
    if request.GET.get("raise"):
        quota = _raisable(request.tenant, request.GET["raise"])
        return _page(request, "", None, raising=(quota, Increase(quota)))
    if not edited:
        return _page(request, "", None)
    existing = quotas_of(*editable(request.tenant, edited), model_group)
    _group_to_limit(request.tenant, model_group, existing)
    return _page(request, edited, Limits(initial=Limits.initial_of(existing)), model_group)


def _raisable(tenant: TenantAccess, number: str | int) -> Quota:
    """The quota, if this person may change it. Raises Http404, PermissionDenied."""
    if not str(number).isdecimal():
        raise Http404
    quota = get_object_or_404(Quota.objects.filter(end_user=""), pk=int(number))
    anchor = layers.anchor_of(quota)
    editable(tenant, anchor)
    return quota


@requires(Permission.MANAGE_QUOTAS)
@require_POST
def quota_raise(request: TenantRequest, quota: int) -> HttpResponse:
    """Raise one limit for a while, or end that."""
    found = _raisable(request.tenant, quota)
    form = Increase(found, request.POST)
    ending = "end" in request.POST
    if ending or form.is_valid():
        to = None if ending else form.cleaned_data["to"]
        until = None if ending else form.until()
        try:
            services.raise_quota(acting_user=request.user, quota=found, to=to, until=until)
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            messages.success(
                request, "The increase has ended." if ending else "Raised the limit for a while."
            )
            page = reverse("console:quotas", args=[request.tenant.organization.slug])
            return redirect(f"{page}#{layers.anchor_of(found)}")
    return _page(request, "", None, raising=(found, form))


@requires(Permission.MANAGE_QUOTAS)
@require_POST
def quota_save(request: TenantRequest, layer: str) -> HttpResponse:
    """Save the limits of one layer."""
    scope, target = editable(request.tenant, layer)
    model_group = request.POST.get("model_group", "")
    _group_to_limit(request.tenant, model_group, quotas_of(scope, target, model_group))
    form = Limits(request.POST)
    if form.is_valid():
        try:
            save_limits(request.user, scope, target, form, model_group)
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            name = "each end user" if scope == "end_user" else getattr(target, "name", target)
            if model_group:
                name = f"{name} for {model_group}"
            messages.success(request, f"Saved the limits of {name}.")
            page = reverse("console:quotas", args=[request.tenant.organization.slug])
            return redirect(f"{page}#{layer}")
    return _page(request, layer, form, model_group)


urlpatterns = [
    path("", quota_page, name="quotas"),
    path("quotas.csv", quota_file, name="quotas_csv"),
    path("raise/<int:quota>/", quota_raise, name="quota_raise"),
    path("<slug:layer>/", quota_save, name="quota_save"),
]
