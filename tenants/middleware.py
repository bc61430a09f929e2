"""The one place where a page enters its tenant."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import Resolver404, resolve
from django_scopes import scope, scopes_disabled

from tenants.access import tenant_access
from tenants.models import User


class TenantScope:
    """Enters ``scope(organization=...)`` for every address with an ``organization`` in it.

    The person must be a member, or the address does not exist (404); an operator on a visit may only
    read (403). Elsewhere no scope is active
    and a query for a tenant's rows raises, but in Django's admin, which is for operators only.
    A view that streams must enter the scope again inside its generator.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/admin/"):
            with scopes_disabled():
                response = self.get_response(request)
                # The admin renders late; its queries belong to this scope.
                render = getattr(response, "render", None)
                return render() if render is not None and not response.is_rendered else response  # type: ignore[attr-defined]
        try:
            slug = resolve(request.path_info).kwargs.get("organization")
        except Resolver404:
            slug = None
        if slug is None:
            return self.get_response(request)
        if not isinstance(request.user, User) or not request.user.is_active:
            if request.path_info.startswith("/api/"):
                return JsonResponse({"detail": "Sign in first."}, status=401)
            return redirect_to_login(request.get_full_path())
        access = tenant_access(request.user, slug)
        if access is None:
            raise Http404
        if access.visit is not None and request.method not in ("GET", "HEAD", "OPTIONS"):
            raise PermissionDenied
        request.tenant = access  # type: ignore[attr-defined]
        with scope(organization=access.organization):
            return self.get_response(request)
