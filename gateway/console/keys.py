"""Pages for API keys: one key, making, rotating, changing and revoking."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path
from django.views.decorators.http import require_POST

from billing.reports import spent_this_month
from billing.sums import Sums
from gateway.console import keyring, layers
from gateway.console.access import TenantRequest, requires
from gateway.console.forms import KeySettings, NewKey, Rotation, group_choices
from gateway.console.key_list import key_file, key_list
from tenants.models import ApiKey, Team
from tenants.permissions import Permission
from tenants.services import keys as services


def show_secret(
    request: TenantRequest, key: ApiKey, secret: str, overlapping: ApiKey | None = None
) -> HttpResponse:
    """The page that shows a secret: once, in the answer to the POST that made it, kept nowhere."""
    groups = key.model_groups or [name for name, _ in group_choices(request.tenant)]
    response = render(
        request,
        "console/keys/secret.html",
        {
            "key": key,
            "secret": secret,
            "overlapping": overlapping,
            "base_url": f"{settings.PUBLIC_URL}/v1",
            "model": groups[0] if groups else "MODEL",
        },
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@requires(Permission.MAKE_OWN_KEYS, Permission.MANAGE_KEYS)
def key_new(request: TenantRequest) -> HttpResponse:
    """Make a key; the answer shows its secret."""
    if not keyring.teams_for_new_keys(request.tenant).exists():
        if Team.objects.exists():
            messages.warning(
                request, "You are in no team yet. Ask an admin to add you to one, then make a key in it."
            )
        else:
            messages.warning(request, "A key belongs to a team. Create a team first.")
        return redirect("console:members", organization=request.tenant.organization.slug)
    form = NewKey(request.tenant, request.POST or None, initial={"team": request.GET.get("team")})
    if request.method == "POST" and form.is_valid():
        try:
            key, secret = services.create_key(
                acting_user=request.user,
                team=form.cleaned_data["team"],
                owner=form.cleaned_data["owner"],
                **form.changes(),
            )
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            return show_secret(request, key, secret)
    return render(request, "console/keys/new.html", {"form": form}, status=422 if form.errors else 200)


def working_old_secrets(key: ApiKey, at: datetime) -> QuerySet[ApiKey]:
    """The secrets of ``key`` that were replaced and still work at ``at``, the one replaced last first."""
    old = ApiKey.objects.filter(successor=key, revoked_at__isnull=True, expires_at__gt=at)
    return old.order_by("-expires_at")


def _key(request: TenantRequest, number: int) -> ApiKey:
    """The key ``number`` if this person may see it; else 404."""
    return get_object_or_404(keyring.visible_keys(request.tenant), pk=number)


@requires(Permission.VIEW_OWN_USAGE)
def key_detail(request: TenantRequest, key: int) -> HttpResponse:
    """One key: its facts, what binds it, and how to call with it."""
    found, now = _key(request, key), datetime.now(UTC)
    groups = found.model_groups or [name for name, _ in group_choices(request.tenant)]
    standing = keyring.standing(found, now)
    used = spent_this_month(request.tenant.organization, "key", at=now, where=Q(key_id=found.pk))
    return render(
        request,
        "console/keys/detail.html",
        {
            "key": found,
            "standing": standing,
            "working": standing in {"active", "rotated"},
            "successor": found.successor,
            "old_secrets": working_old_secrets(found, now),
            "layers": layers.binding(request.tenant, found, now),
            "used": used.get(found.pk, Sums()),
            "may_change": standing in {"active", "paused"} and keyring.may_change(request.tenant, found),
            "may_pause": standing == "active" and keyring.may_pause(request.tenant, found),
            "may_resume": standing == "paused"
            and found.successor_id is None
            and keyring.may_resume(request.tenant, found),
            "may_revoke": standing in {"active", "rotated", "paused"}
            and keyring.may_revoke(request.tenant, found),
            "may_limit": request.tenant.may(Permission.MANAGE_QUOTAS, found.team),
            "base_url": f"{settings.PUBLIC_URL}/v1",
            "model": groups[0] if groups else "MODEL",
        },
    )


@requires(Permission.MAKE_OWN_KEYS, Permission.MANAGE_KEYS)
def key_edit(request: TenantRequest, key: int) -> HttpResponse:
    """Rename or restrict a key."""
    found = _key(request, key)
    if not keyring.may_change(request.tenant, found):
        raise PermissionDenied
    form = KeySettings(request.tenant, request.POST or None, key=found, initial=KeySettings.initial_of(found))
    if request.method == "POST" and form.is_valid():
        changes = {name: value for name, value in form.changes().items() if _touched(form, name)}
        try:
            services.update_key(acting_user=request.user, key=found, **changes)
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"Saved {found.name}.")
            return redirect("console:key", organization=request.tenant.organization.slug, key=found.pk)
    return render(
        request, "console/keys/edit.html", {"form": form, "key": found}, status=422 if form.errors else 200
    )


def _touched(form: KeySettings, name: str) -> bool:
    """Whether a field of the key was changed in the form, so that an exact expiry stays as it is."""
    return {"expires_at": "expires_on"}.get(name, name) in form.changed_data


@requires(Permission.MAKE_OWN_KEYS, Permission.MANAGE_KEYS)
def key_rotate(request: TenantRequest, key: int) -> HttpResponse:
    """Give a key a new secret; the old one works on for a chosen time."""
    found = _key(request, key)
    if not keyring.may_change(request.tenant, found):
        raise PermissionDenied
    form = Rotation(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            rotated, secret = services.rotate_key(
                acting_user=request.user, key=found, overlap=form.cleaned_data["overlap"]
            )
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            old = working_old_secrets(rotated, datetime.now(UTC)).first()
            return show_secret(request, rotated, secret, overlapping=old)
    return render(
        request, "console/keys/rotate.html", {"form": form, "key": found}, status=422 if form.errors else 200
    )


@requires(Permission.VIEW_OWN_USAGE)
def key_revoke(request: TenantRequest, key: int) -> HttpResponse:
    """Stop a key, after saying what that does."""
    found = _key(request, key)
    if not keyring.may_revoke(request.tenant, found):
        raise PermissionDenied
    if request.method == "POST":
        services.revoke_key(acting_user=request.user, key=found)
        messages.success(request, f"Revoked {found.name}. Requests with it are refused from now on.")
        return redirect("console:keys", organization=request.tenant.organization.slug)
    old = working_old_secrets(found, datetime.now(UTC))
    return render(request, "console/keys/revoke.html", {"key": found, "old_secrets": old})


@requires(Permission.VIEW_OWN_USAGE)
@require_POST
def key_pause(request: TenantRequest, key: int) -> HttpResponse:
    """Have a key refused for a while, or answered again: ``do`` is ``pause`` or ``resume``."""
    found, resume = _key(request, key), request.POST.get("do") == "resume"
    allowed = keyring.may_resume if resume else keyring.may_pause
    if not allowed(request.tenant, found):
        raise PermissionDenied
    try:
        if resume:
            services.resume_key(acting_user=request.user, key=found)
            messages.success(request, f"Resumed {found.name}. Requests with it are answered again.")
        else:
            services.pause_key(acting_user=request.user, key=found)
            messages.success(
                request, f"Paused {found.name}. Requests with it are refused until it is resumed."
            )
    except services.KeyRevoked as error:
        messages.error(request, str(error))
    return redirect("console:key", organization=request.tenant.organization.slug, key=found.pk)


urlpatterns = [
    path("", key_list, name="keys"),
    path("keys.csv", key_file, name="keys_csv"),
    path("new/", key_new, name="key_new"),
    path("<int:key>/", key_detail, name="key"),
    path("<int:key>/edit/", key_edit, name="key_edit"),
    path("<int:key>/rotate/", key_rotate, name="key_rotate"),
    path("<int:key>/pause/", key_pause, name="key_pause"),
    path("<int:key>/revoke/", key_revoke, name="key_revoke"),
]
