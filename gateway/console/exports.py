"""Files made in the background: asking for one, watching it grow, fetching and removing it."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from billing.access import Names, names_of
from billing.exports.files import file_of, sidecar_of
from billing.exports.making import name_of
from billing.exports.sheets import CONTENT_TYPES, FORMATS, Format
from billing.models import Export, Schedule
from billing.services.exports import TooMany, What, remove_export, request_export
from billing.services.schedules import BadSchedule, remove_schedule
from billing.tag_reports import COLUMNS as BY_TAG
from billing.tag_reports import TAG, known, tag_names
from gateway.console import monthly
from gateway.console.access import TenantRequest, demand, requires
from gateway.console.files import sent
from gateway.console.key_choice import names_asked
from gateway.usage_query import FILTERS, BadQuery, read
from tenants.permissions import Permission

SHOWN = 50
WHATS = (
    ("usage", "Usage", "A line for each request"),
    ("focus", "FOCUS 1.0", "By day, key and class, for FinOps tools"),
    ("report", "Report", "Sums by user, team, key, model or time"),
)
FORMAT_LABELS = (("csv", "CSV"), ("xlsx", "Excel (XLSX)"), ("jsonl", "JSONL"))
BY_LABELS = (
    ("user", "User"),
    ("team", "Team"),
    ("key", "Key"),
    ("member", "Key owner"),
    ("end_user", "End user"),
    ("model", "Model"),
    ("month", "Month"),
    ("day", "Day"),
    ("hour", "Hour"),
)


def _about(export: Export, names: Names) -> list[str]:
    """The filters of ``export`` in words."""
    found = []
    for column, value in export.filters.items():
        if column == "team_id":
            found.append(f"team {names.team(value)}")
        elif column == "key_id":
            found.append(f"key {names.key(value)}")
        elif column == "member_id":
            found.append("keys without owner" if value is None else f"keys of {names.member(value)}")
        elif column == "end_user":
            found.append(f"end user {value}" if value else "no end user")
        else:
            found.append(f"model {value}")
    return found


def _title(export: Export) -> str:
    if export.what == "report" and export.by.startswith(TAG):
        return f"Report by tag {export.by.removeprefix(TAG)}"
    if export.what == "report":
        return f"Report by {dict(BY_LABELS).get(export.by, export.by).lower()}"
    return {what: label for what, label, _ in WHATS}[export.what]


def _page(request: TenantRequest, problem: str = "", monthly_problem: str = "") -> HttpResponse:
    """The page; either form may have come back with a problem."""
    organization = request.tenant.organization
    asked = request.POST if problem else request.GET
    exports = list(Export.objects.select_related("requested_by").order_by("-requested_at", "-pk")[:SHOWN])
    keys, members = (
        {export.filters[column] for export in exports if export.filters.get(column) is not None}
        for column in ("key_id", "member_id")
    )
    names = names_of(organization, (keys, members))
    default = read({}, organization, names)
    return render(
        request,
        "console/exports/page.html",
        {
            "exports": [(export, _title(export), _about(export, names)) for export in exports],
            "busy": any(export.state in ("waiting", "running") for export in exports),
            "problem": problem,
            "large": "large" in request.GET,
            "whats": WHATS,
            "formats": FORMAT_LABELS,
            "dimensions": BY_LABELS,
            "tags": [(f"{TAG}{name}", f"Tag {name}") for name in tag_names(organization)],
            "chosen": {
                "what": asked.get("what", "usage"),
                "format": asked.get("format", "csv"),
                "by": asked.get("by", "user"),
                "from": asked.get("from") or default.first.isoformat(),
                "to": asked.get("to") or default.last.isoformat(),
                **{name: asked.get(name, "") for name in FILTERS},
            },
            "teams": sorted(names.teams.values()),
            "now": timezone.now(),
            **monthly.shown(request.tenant, monthly_problem, request.POST if monthly_problem else None),
        },
        status=422 if problem or monthly_problem else 200,
    )


@requires(Permission.EXPORT_USAGE)
def exports(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/exports/``: the files there are, and a form for another. A POST asks for it."""
    # An export is about the whole organization.
    demand(request.tenant, Permission.EXPORT_USAGE)
    if request.method != "POST":
        return _page(request)
    organization = request.tenant.organization
    what, format_, by = (request.POST.get(name, "") for name in ("what", "format", "by"))
    if what not in {each for each, _, _ in WHATS}:
        return _page(request, f"what: “{what[:40]}” cannot be exported.")
    if format_ not in FORMATS:
        return _page(request, f"format: “{format_[:40]}” is no format.")
    if what == "report" and not known(by):
        return _page(request, f"by: “{by[:40]}” is no dimension.")
    try:
        query = read(request.POST, organization, names_asked(organization, request.POST))
        if what == "report" and by.startswith(TAG) and query.columns.keys() - BY_TAG:
            return _page(request, "by: usage by tag can be narrowed by team and model only.")
        request_export(
            acting_user=request.user,
            organization=organization,
            what=cast(What, what),
            format=format_,
            by=by if what == "report" else "",
            first=query.first,
            last=query.last,
            filters=query.columns,
        )
    except (BadQuery, TooMany) as error:
        return _page(request, str(error))
    messages.success(request, "The export is being made. You may leave this page.")
    return redirect("console:exports", organization.slug)


@requires(Permission.EXPORT_USAGE)
@require_POST
def export_remove(request: TenantRequest, reference: str) -> HttpResponse:
    """Cancel an export that is being made, or remove one with its file."""
    demand(request.tenant, Permission.EXPORT_USAGE)
    export = get_object_or_404(Export, reference=reference)
    remove_export(acting_user=request.user, export=export)
    messages.success(request, "Removed." if export.state in ("done", "failed") else "Cancelled.")
    return redirect("console:exports", request.tenant.organization.slug)


@requires(Permission.EXPORT_USAGE)
@require_POST
def monthly_set(request: TenantRequest) -> HttpResponse:
    """Have a file come every month, or change who gets it."""
    demand(request.tenant, Permission.EXPORT_USAGE)
    try:
        monthly.set_from(request)
    except BadSchedule as error:
        return _page(request, monthly_problem=str(error))
    messages.success(request, "It comes every month. The first is about the month that is under way.")
    return redirect(_monthly(request))


@requires(Permission.EXPORT_USAGE)
@require_POST
def monthly_remove(request: TenantRequest, schedule: int) -> HttpResponse:
    """Have a file come no more."""
    demand(request.tenant, Permission.EXPORT_USAGE)
    found = get_object_or_404(Schedule.objects.select_related("organization"), pk=schedule)
    remove_schedule(acting_user=request.user, schedule=found)
    messages.success(request, "It comes no more. Files that are there stay until they expire.")
    return redirect(_monthly(request))


def _monthly(request: TenantRequest) -> str:
    return f"{reverse('console:exports', args=[request.tenant.organization.slug])}#monthly"


def _fetched(request: TenantRequest, reference: str) -> Export:
    """The finished export. Raises Http404, also once its time is over."""
    demand(request.tenant, Permission.EXPORT_USAGE)
    export = get_object_or_404(Export.objects.select_related("organization"), reference=reference)
    if export.state != "done" or export.expires_at is None or export.expires_at <= timezone.now():
        raise Http404
    return export


@requires(Permission.EXPORT_USAGE)
def export_file(request: TenantRequest, reference: str) -> HttpResponse:
    """The file."""
    export = _fetched(request, reference)
    try:
        # The response closes it.
        file = file_of(reference, export.format).open("rb")
    except FileNotFoundError:
        raise Http404 from None
    return sent(
        file, export.size, name=name_of(export), content_type=CONTENT_TYPES[cast(Format, export.format)]
    )


@requires(Permission.EXPORT_USAGE)
def export_checksum(request: TenantRequest, reference: str) -> HttpResponse:
    """Its SHA-256, as ``sha256sum --check`` reads it."""
    export = _fetched(request, reference)
    try:
        text = sidecar_of(reference).read_text()
    except FileNotFoundError:
        raise Http404 from None
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name_of(export)}.sha256"'
    return response


urlpatterns = [
    path("", exports, name="exports"),
    path("monthly/", monthly_set, name="monthly_set"),
    path("monthly/<int:schedule>/remove", monthly_remove, name="monthly_remove"),
    path("<slug:reference>/file", export_file, name="export_file"),
    path("<slug:reference>/sha256", export_checksum, name="export_checksum"),
    path("<slug:reference>/remove", export_remove, name="export_remove"),
]
