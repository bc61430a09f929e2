"""Who may open a page of the operator area. The one place that decides it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django_scopes import scopes_disabled

from tenants.models import User


class OperatorRequest(HttpRequest):
    """A request that ``operators_only`` let in."""

    user: User


def operators_only(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Opens a page to operators (``is_staff``). To everybody else it does not exist: 404.

    The page sees all tenants. Times are shown in UTC.
    """

    @functools.wraps(view)
    def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if not isinstance(request.user, User) or not request.user.is_active:
            return redirect_to_login(request.get_full_path())
        if not request.user.is_staff:
            raise Http404
        with scopes_disabled():
            response = view(cast(OperatorRequest, request), **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response

    return guarded
