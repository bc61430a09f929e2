"""Who may open a page of the console."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast
from zoneinfo import ZoneInfo

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse
from django.utils import timezone

from tenants.access import TenantAccess
from tenants.models import Team, User
from tenants.permissions import Permission


class TenantRequest(HttpRequest):
    """A request that ``tenants.middleware.TenantScope`` let into an organization."""

    tenant: TenantAccess
    user: User


def somewhere(tenant: TenantAccess, permission: Permission) -> bool:
    """Whether ``permission`` is granted in the organization or in at least one team of it."""
    return tenant.teams_with(permission) != []


def requires(
    *permissions: Permission,
) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Opens a page to members with any of ``permissions``, in the organization or in one of its teams.

    Others get 403 (PermissionDenied). The page itself shows and changes only what
    ``request.tenant.teams_with()`` or ``demand()`` allow. Times are shown in the organization's zone.
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, organization: str, **kwargs: Any) -> HttpResponse:  # noqa: ARG001  # entered by TenantScope
            entered = cast(TenantRequest, request)
            if not any(somewhere(entered.tenant, permission) for permission in permissions):
                raise PermissionDenied
            with timezone.override(ZoneInfo(entered.tenant.organization.time_zone)):
                response = view(entered, **kwargs)
                # A page that renders late would do so in the wrong time zone.
                if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                    response = response.render()
            response.headers.setdefault("Cache-Control", "private, no-cache")
            return response

        return guarded

    return decorate


def demand(tenant: TenantAccess, permission: Permission, team: Team | int | None = None) -> None:
    """Raise PermissionDenied (403) unless ``permission`` is granted, in ``team`` if one is given."""
    if not tenant.may(permission, team):
        raise PermissionDenied
