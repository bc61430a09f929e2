"""The ledger: every posting to the wallet with the balance after it, on a page and as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, cast
from urllib.parse import urlencode

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import path

from billing import ledger
from billing.access import local_range
from billing.models import AccountBalance, Budget, ReconcileReport
from billing.services.wallet import paid_in
from billing.usage_export import CONTENT_TYPES
from billing.wallet_lines import KINDS, Selection, streamed_lines, wallet_lines
from gateway.console.access import TenantRequest, requires
from tenants.models import Organization
from tenants.permissions import Permission

PAGE = 50
EARLIEST, LATEST = date(2000, 1, 1), date(2199, 12, 31)


class BadSelection(ValueError):
    """A parameter that cannot be understood; the message names it and is fit to be shown."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the query string asks for; days are of the organization's calendar, both included."""

    kind: str
    first: date | None
    last: date | None
    selection: Selection

    @property
    def parameters(self) -> str:
        """The same as a query string."""
        values = {"kind": self.kind, "from": self.first, "to": self.last}
        return urlencode({name: str(value) for name, value in values.items() if value})


def _day(parameters: Mapping[str, str], name: str) -> date | None:
    text = parameters.get(name, "").strip()
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise BadSelection(f"{name}: “{text[:40]}” is no date. Write it as 2026-03-31.") from None
    if not EARLIEST <= found <= LATEST:
        raise BadSelection(f"{name}: {found} is out of range.")
    return found


def asked_for(parameters: Mapping[str, str], organization: Organization) -> Asked:
    """The lines that ``kind``, ``from`` and ``to`` ask for, each may be absent. Raises ``BadSelection``."""
    kind = parameters.get("kind", "")
    if kind and kind not in KINDS:
        raise BadSelection(f"kind: “{kind[:40]}” is no kind of posting.")
    first, last = _day(parameters, "from"), _day(parameters, "to")
    if first and last and last < first:
        raise BadSelection("to: the last day is before the first.")
    start, end = local_range(organization, first or EARLIEST, last or LATEST)
    return Asked(kind, first, last, Selection(kind, start if first else None, end if last else None))


def open_credits() -> list[dict[str, Any]]:
    """The grants of the organization entered that have something left, the first to end first."""
    found = AccountBalance.objects.filter(account="grants", balance__lt=0).select_related("grant__posting")
    return [
        {"grant": each.grant, "left": -each.balance, "memo": each.grant.posting.memo}
        for each in found.order_by("grant__expires_at", "grant_id")
        if each.grant is not None
    ]


@requires(Permission.VIEW_MONEY)
def page(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/ledger/``, newest first. ``?before=`` takes the last number of the page before it."""
    organization, problem = request.tenant.organization, ""
    try:
        asked = asked_for(request.GET, organization)
    except BadSelection as error:
        asked, problem = asked_for({}, organization), str(error)
    before = request.GET.get("before", "")
    found = wallet_lines(
        organization,
        asked.selection,
        before=int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,
        size=PAGE + 1,
    )
    lines = found[:PAGE]
    wallet = Budget.objects.filter(quota__isnull=True, subject="").first()
    return render(
        request,
        "console/ledger/page.html",
        {
            "balance": ledger.balance(organization),
            "paid_in": paid_in(organization),
            "spendable": None
            if wallet is None or wallet.limit is None
            else wallet.limit - wallet.spent - wallet.held,
            "wallet": wallet,
            "credits": open_credits(),
            "lines": lines,
            "older": lines[-1].number if len(found) > PAGE else None,
            "before": before,
            "kinds": KINDS.items(),
            "asked": asked,
            "problem": problem,
            "books": ReconcileReport.objects.order_by("-at").first(),
        },
    )


@requires(Permission.VIEW_MONEY)
def download(request: TenantRequest) -> HttpResponse:
    """``ledger/ledger.csv``: the same lines, oldest first and exact."""
    organization = request.tenant.organization
    try:
        asked = asked_for(request.GET, organization)
    except BadSelection as error:
        return HttpResponse(f"{error}\n", status=400, content_type="text/plain; charset=utf-8")
    response = StreamingHttpResponse(
        streamed_lines(organization, asked.selection), content_type=CONTENT_TYPES["csv"]
    )
    words = ["ledger", organization.slug, asked.kind, asked.first, asked.last or datetime.now(UTC).date()]
    name = "-".join(str(word) for word in words if word)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    # Django's two kinds of response have no common type that the decorator could name.
    return cast(HttpResponse, response)


urlpatterns = [
    path("", page, name="ledger"),
    path("ledger.csv", download, name="ledger_csv"),
]
