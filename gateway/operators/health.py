"""The states of all deployments, and what the last hour's attempts of all tenants say."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render

from gateway.attempts import measured
from gateway.console.health import health_context, health_rows, place_in
from gateway.explanation import picture
from gateway.operators.access import OperatorRequest, operators_only


@operators_only
def health(request: OperatorRequest) -> HttpResponse:
    """``/operator/health/``: every deployment that a model group leads to."""
    seen = picture()
    rows = health_rows(seen, seen.table.groups.values(), measured())
    search, after = request.GET.get("q", "").strip(), place_in(request.GET.get("after", ""))
    return render(request, "operators/health.html", health_context(rows, search, after, seen))
