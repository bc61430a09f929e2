"""Operators in a tenant's pages: begun with a reason, for a while; ended early."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from gateway.console.access import confirmed
from gateway.operators.access import OperatorRequest, operators_only
from tenants.models import Organization
from tenants.services.rows import InvalidRow
from tenants.services.visits import VisitError, end_visit, start_visit

# What the form offers; the service takes up to an hour.
MINUTES = (15, 30, 60)


def _enters(request: OperatorRequest, slug: str) -> str:
    return "" if request.POST.get("do") == "end" else f"begin a visit to {slug}"


@operators_only
@confirmed(_enters)
@require_POST
def visit(request: OperatorRequest, slug: str) -> HttpResponse:
    """POST ``do=start`` with ``reason`` and ``minutes``, which leads into the tenant; or ``do=end``."""
    organization = get_object_or_404(Organization, slug=slug)
    if request.POST.get("do") == "end":
        if end_visit(acting_user=request.user, organization=organization):
            messages.success(request, f"Your visit to {organization.name} is over.")
        return redirect("operator:tenant", slug=slug)
    minutes = request.POST.get("minutes", "")
    try:
        start_visit(
            acting_user=request.user,
            organization=organization,
            reason=request.POST.get("reason", ""),
            length=timedelta(minutes=int(minutes) if minutes in map(str, range(1, 61)) else 0),
        )
    except (VisitError, InvalidRow) as error:
        messages.error(request, f"{error} No visit was begun.")
        return redirect("operator:tenant", slug=slug)
    return redirect("console:overview", organization=slug)
