"""The statements: a list, one with its lines, and each as PDF and CSV."""

from __future__ import annotations

from decimal import Decimal

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import path

from billing.models import Statement, StatementLine
from billing.statements.document import pdf_of
from billing.statements.sheet import csv_of
from billing.usage_export import CONTENT_TYPES, moment
from billing.wallet_lines import KINDS
from gateway.console.access import TenantRequest, requires
from gateway.console.lists import CHUNK, list_file
from tenants.permissions import Permission

PAGE = 36
COLUMNS = (
    "number",
    "month",
    "starts_at",
    "ends_at",
    "opening",
    "change",
    "closing",
    "currency",
    "closing_shown",
    "shown_currency",
    "rate",
)


def _found(number: str) -> tuple[Statement, list[StatementLine]]:
    """The statement of the organization entered, with its lines in order. Raises Http404."""
    statement = get_object_or_404(Statement.objects.select_related("organization"), number=number)
    lines = StatementLine.objects.filter(statement=statement).select_related("corrects")
    return statement, list(lines.order_by("position"))


@requires(Permission.VIEW_MONEY)
def statement_list(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/statements/``, newest first; ``?page=`` counts from 1."""
    text = request.GET.get("page", "1")
    page = max(int(text), 1) if text.isascii() and text.isdigit() and len(text) < 6 else 1
    found = list(Statement.objects.order_by("-ends_at")[(page - 1) * PAGE : page * PAGE + 1])
    shown = found[:PAGE]
    return render(
        request,
        "console/statements/list.html",
        {
            "statements": shown,
            "newer": page - 1 if page > 1 else None,
            "older": page + 1 if len(found) > PAGE else None,
        },
    )


@requires(Permission.VIEW_MONEY)
def statement_list_file(request: TenantRequest) -> HttpResponse:
    """``statements/statements.csv``: every statement and its balances, newest first. Amounts are in
    ``currency``; ``closing_shown`` is in the one it is invoiced in, at ``rate``."""
    rows = (
        {
            "number": each.number,
            "month": f"{each.month:%Y-%m}",
            "starts_at": moment(each.starts_at),
            "ends_at": moment(each.ends_at),
            "opening": each.opening,
            "change": each.closing - each.opening,
            "closing": each.closing,
            "currency": each.currency,
            "closing_shown": each.shown(each.closing),
            "shown_currency": each.shown_currency,
            "rate": "" if each.rate is None else f"{each.rate:f}",
        }
        for each in Statement.objects.order_by("-ends_at").iterator(chunk_size=CHUNK)
    )
    return list_file(f"statements-{request.tenant.organization.slug}", COLUMNS, rows)


@requires(Permission.VIEW_MONEY)
def statement_detail(request: TenantRequest, number: str) -> HttpResponse:
    """One statement: usage as it was charged, corrections, everything else, and both balances."""
    statement, lines = _found(number)
    own = [line for line in lines if line.kind == "usage" and line.corrects is None]
    corrections = [line for line in lines if line.corrects is not None]
    others = [line for line in lines if line.kind != "usage"]
    return render(
        request,
        "console/statements/detail.html",
        {
            "statement": statement,
            "usage": [(line, -line.amount) for line in own],
            "used": -sum((line.amount for line in own), Decimal(0)),
            "corrections": [(line, -line.amount) for line in corrections],
            "corrected": -sum((line.amount for line in corrections), Decimal(0)),
            "others": [(line, KINDS.get(line.kind, line.kind)) for line in others],
            "moved": sum((line.amount for line in others), Decimal(0)),
        },
    )


def _attachment(body: bytes, content_type: str, name: str) -> HttpResponse:
    response = HttpResponse(body, content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@requires(Permission.VIEW_MONEY)
def statement_pdf(request: TenantRequest, number: str) -> HttpResponse:  # noqa: ARG001  # a view's signature
    """The document."""
    statement, lines = _found(number)
    return _attachment(pdf_of(statement, lines), "application/pdf", f"{statement.number}.pdf")


@requires(Permission.VIEW_MONEY)
def statement_csv(request: TenantRequest, number: str) -> HttpResponse:  # noqa: ARG001  # a view's signature
    """The lines with all digits."""
    statement, lines = _found(number)
    return _attachment(csv_of(statement, lines), CONTENT_TYPES["csv"], f"{statement.number}.csv")


urlpatterns = [
    path("", statement_list, name="statements"),
    path("statements.csv", statement_list_file, name="statements_csv"),
    path("<slug:number>.pdf", statement_pdf, name="statement_pdf"),
    path("<slug:number>.csv", statement_csv, name="statement_csv"),
    path("<slug:number>/", statement_detail, name="statement"),
]
