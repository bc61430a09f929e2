"""The front door: to one's organization, to the choice between several, or to the sign-in page."""

from __future__ import annotations

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from tenants.access import organizations_of
from tenants.accounts import sign_up_open
from tenants.models import User


def home(request: HttpRequest) -> HttpResponse:
    """``/``: where a person belongs."""
    if not isinstance(request.user, User):
        return redirect_to_login("/")
    organizations = organizations_of(request.user)
    if len(organizations) == 1:
        return redirect("console:overview", organization=organizations[0].slug)
    if not organizations and sign_up_open() and not request.user.is_staff:
        return redirect("console:organization_new")
    return render(request, "console/home.html", {"organizations": organizations})
