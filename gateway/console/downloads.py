"""Downloads of what the costs page shows: the report, the usage behind it, and the same as FOCUS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import cast

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse

from billing.access import visible_to
from billing.exports.focus import TABLE as FOCUS
from billing.exports.focus import focus_rows
from billing.exports.report import report_rows, table_of
from billing.exports.sheets import CONTENT_TYPES, FORMATS, Format, Row, Table, sheet
from billing.exports.usage import TABLE as USAGE
from billing.reports import totals_for
from billing.tag_reports import TAG, NotByTag, known, report_of, visible_by_tag
from billing.usage_export import streamed_export, usage_rows
from gateway.console.access import TenantRequest, requires
from gateway.console.files import sent
from gateway.console.key_choice import names_asked
from gateway.console.request_filter import request_filter
from gateway.usage_query import BadQuery, UsageQuery, read
from tenants.permissions import Permission

# Requests that an export made while the browser waits may hold.
AT_ONCE = 50_000
# What of a download stays in memory while it is made; the rest is in a temporary file.
IN_MEMORY = 1 << 20


def _refused(message: str) -> HttpResponse:
    return HttpResponse(f"{message}\n", status=400, content_type="text/plain; charset=utf-8")


def _name(what: str, query: UsageQuery, format_: Format) -> str:
    return f"{what}-{query.organization.slug}-{query.first}-{query.last}.{format_}"


def _download(query: UsageQuery, table: Table, rows: Iterable[Row], format_: Format) -> HttpResponse:
    """``rows`` as a file, made whole before it is sent."""
    # The response closes it.
    file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
    with sheet(file, table, format_) as begun:
        begun.add(rows)
    size = file.tell()
    file.seek(0)
    return sent(file, size, name=_name(table.name, query, format_), content_type=CONTENT_TYPES[format_])


def _elsewhere(query: UsageQuery, what: str, format_: Format) -> HttpResponse:
    """On to where the file can be made in the background."""
    page = reverse("console:exports", args=[query.organization.slug])
    return redirect(f"{page}?{query.parameters(what=what, format=format_, large='yes')}")


def _asked(request: TenantRequest) -> UsageQuery:
    """What the address asks for, of what the person may see. Raises BadQuery."""
    organization = request.tenant.organization
    query = read(request.GET, organization, names_asked(organization, request.GET))
    by_tag = request.GET.get("by", "").startswith(TAG)
    return query.within((visible_by_tag if by_tag else visible_to)(request.tenant))


@requires(Permission.VIEW_USAGE, Permission.VIEW_OWN_USAGE)
def report(request: TenantRequest, *, format_: Format) -> HttpResponse:
    """``costs/report.<format>``: every row of the report the page shows, exact, without a total."""
    by = request.GET.get("by", "user")
    staff = request.user.is_staff
    if not known(by, operator=staff):
        return _refused(f"by: “{by[:40]}” is no dimension.")
    try:
        query = _asked(request)
        found = report_of(query.organization, by, *query.bounds, query.where)
    except (BadQuery, NotByTag) as error:
        return _refused(str(error))
    table, rows = table_of(by, provider_cost=staff), report_rows(found)
    return _download(query, table, rows, format_)


@requires(Permission.EXPORT_USAGE)
def usage(request: TenantRequest, *, format_: Format) -> HttpResponse:
    """``costs/usage.<format>``: one line a request, with the filters of the request list; CSV and JSONL are
    streamed."""
    try:
        query, narrowing = _asked(request), request_filter(request.GET)
    except BadQuery as error:
        return _refused(str(error))
    organization, (start, end), staff = query.organization, query.bounds, request.user.is_staff
    too_many = format_ == "xlsx" and _too_many(query)
    query = query.within(narrowing.condition)
    if format_ == "xlsx":
        if too_many and narrowing.kept:
            return _refused("format: there are too many requests for a workbook narrowed so; take CSV.")
        if too_many:
            return _elsewhere(query, "usage", format_)
        rows = usage_rows(organization, start, end, where=query.where, provider_cost=staff)
        return _download(query, USAGE, rows, format_)
    pieces = streamed_export(organization, start, end, format_, where=query.where, provider_cost=staff)
    response = StreamingHttpResponse(pieces, content_type=CONTENT_TYPES[format_])
    response.headers["Content-Disposition"] = f'attachment; filename="{_name("usage", query, format_)}"'
    return cast(HttpResponse, response)


@requires(Permission.EXPORT_USAGE)
def focus(request: TenantRequest, *, format_: Format) -> HttpResponse:
    """``costs/focus.<format>``: the usage by day, key, model and class in the columns of FOCUS 1.0."""
    try:
        query = _asked(request)
    except BadQuery as error:
        return _refused(str(error))
    if _too_many(query):
        return _elsewhere(query, "focus", format_)
    rows = focus_rows(query.organization, *query.bounds, where=query.where)
    return _download(query, FOCUS, rows, format_)


def _too_many(query: UsageQuery) -> bool:
    return totals_for(query.organization, *query.bounds, query.where).requests > AT_ONCE


urlpatterns = [
    path(f"{name}.{format_}", view, {"format_": format_}, name=f"costs_{name}_{format_}")
    for name, view in (("report", report), ("usage", usage), ("focus", focus))
    for format_ in FORMATS
]
