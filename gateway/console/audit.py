"""The page of the audit log."""

from __future__ import annotations

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import render

from gateway.console.access import TenantRequest, requires
from tenants.models import AuditEntry
from tenants.permissions import Permission

PAGE = 50


def readable(detail: dict[str, object]) -> list[tuple[str, str]]:
    """The detail of an entry as names and words: ``("limit", "5 → 10")``."""
    lines = []
    for name, value in detail.items():
        if isinstance(value, dict) and set(value) == {"from", "to"}:
            words = f"{_words(value['from'])} → {_words(value['to'])}"
        else:
            words = _words(value)
        lines.append((name.replace("_", " "), words))
    return lines


def _words(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


@requires(Permission.VIEW_AUDIT)
def audit(request: TenantRequest) -> HttpResponse:
    """What changed, newest first. ``?before=`` takes the last number of the page before it."""
    entries = AuditEntry.objects.select_related("actor").order_by("-pk")
    search = request.GET.get("q", "").strip()
    kind = request.GET.get("kind", "")
    if search:
        entries = entries.filter(
            Q(target_label__icontains=search) | Q(actor__email__icontains=search) | Q(verb__icontains=search)
        )
    if kind:
        entries = entries.filter(target_type=kind)
    before = request.GET.get("before", "")
    if before.isdecimal():
        entries = entries.filter(pk__lt=int(before))
    found = list(entries[: PAGE + 1])
    shown = found[:PAGE]
    return render(
        request,
        "console/audit/page.html",
        {
            "entries": [(entry, readable(entry.detail)) for entry in shown],
            "kinds": AuditEntry.objects.order_by("target_type")
            .values_list("target_type", flat=True)
            .distinct(),
            "search": search,
            "kind": kind,
            "before": before,
            "older": shown[-1].pk if len(found) > PAGE else None,
        },
    )
