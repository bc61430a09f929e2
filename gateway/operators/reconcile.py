"""Whether the books balance: every comparison, and each difference by name."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse

from billing.models import ReconcileReport
from gateway.console.lists import words
from gateway.operators.access import OperatorRequest, operators_only

PAGE = 50
DIFFERENCES = 100


@operators_only
def reports(request: OperatorRequest) -> HttpResponse:
    """``/operator/reconcile/``: newest first. ``?before=`` takes a report's number."""
    found = ReconcileReport.objects.order_by("-pk")
    only = request.GET.get("only", "")
    if only == "differences":
        found = found.filter(balanced=False)
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        found = found.filter(pk__lt=int(before))
    page = list(found[: PAGE + 1])
    return render(
        request,
        "operators/reconcile/list.html",
        {
            "reports": page[:PAGE],
            "latest": ReconcileReport.objects.order_by("-pk").first(),
            "only": only,
            "before": before,
            "older": page[PAGE - 1].pk if len(page) > PAGE else None,
        },
    )


def differences_of(report: ReconcileReport, search: str) -> list[dict[str, Any]]:
    """The differences with the words of ``search``, in small letters."""
    return [
        each
        for each in report.differences
        if any(search in str(each.get(name, "")).lower() for name in ("organization", "what", "where"))
    ]


@operators_only
def report_detail(request: OperatorRequest, report: int) -> HttpResponse:
    """``/operator/reconcile/<number>/``: the differences that were found, with search."""
    found = get_object_or_404(ReconcileReport, pk=report)
    search = words(request).lower()
    matching = differences_of(found, search)
    after = request.GET.get("after", "")
    address = reverse("operator:reconcile_csv", args=[report])
    begin = int(after) if after.isdecimal() and len(after) < 6 else 0
    return render(
        request,
        "operators/reconcile/detail.html",
        {
            "report": found,
            "differences": matching[begin : begin + DIFFERENCES],
            "count": len(matching),
            "search": search,
            "csv": f"{address}?{urlencode({'q': search} if search else {})}" if matching else "",
            "after": begin,
            "older": begin + DIFFERENCES if len(matching) > begin + DIFFERENCES else None,
        },
    )
