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

from gateway.confirmation import guard
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


def confirmed(
    danger: str | Callable[..., str], *, asked_first: bool = False
) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Takes a dangerous POST only from somebody who proved a short while ago who they are.

    Others are asked for it, and then go on with what they sent. ``danger`` says what is about to be done
    ("remove an owner"), or is asked for it with the view's arguments; empty words are no danger.
    With ``asked_first`` the page itself is opened only after the question. Stands below ``requires``.
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @functools.wraps(view)
        def asked(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            return guard(
                request,
                lambda: view(request, **kwargs),
                lambda: danger if isinstance(danger, str) else danger(request, **kwargs),
                asked_first=asked_first,
            )

        return asked

    return decorate


def demand(tenant: TenantAccess, permission: Permission, team: Team | int | None = None) -> None:
    """Raise PermissionDenied (403) unless ``permission`` is granted, in ``team`` if one is given."""
    if not tenant.may(permission, team):
        raise PermissionDenied
