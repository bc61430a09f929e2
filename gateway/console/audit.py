"""The page of the audit log."""

from __future__ import annotations

import re

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.dateparse import parse_datetime

from billing.services.quotas import RATE_METRICS
from gateway.console.access import TenantRequest, requires
from gateway.templatetags.console import moment
from tenants.models import AuditEntry
from tenants.permissions import Permission

PAGE = 50
METRICS = frozenset(RATE_METRICS)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


# Names of rows as people say them, where the model's own name is none.
KINDS = {
    "apikey": "Key",
    "blockedenduser": "End user",
    "membership": "Member",
    "emaildomain": "Domain",
    "ledgertransaction": "Posting",
    "modelgroup": "Model group",
    "signinprovider": "Sign-in provider",
    "visit": "Operator's visit",
}


def kind_name(target_type: str) -> str:
    """What a changed row is, in words."""
    return KINDS.get(target_type, target_type.capitalize())


def readable(detail: dict[str, object]) -> list[tuple[str, str]]:
    """The detail of an entry as names and words, ``("limit", "5 → 10")``; what says nothing is left out."""
    lines = []
    for name, value in detail.items():
        if isinstance(value, dict) and set(value) == {"from", "to"}:
            words = f"{_words(value['from'])} → {_words(value['to'])}"
        elif value in (None, "", []) or (name == "hard" and value is True):
            continue
        else:
            words = _words(value)
        lines.append((name.replace("_", " "), words))
    return lines


def _words(value: object) -> str:
    """A value as people write it; a time in the current time zone."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, str):
        time = parse_datetime(value) if TIME.match(value) else None
        return moment(time) if time is not None else value.replace("_", " ") if value in METRICS else value
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
    kinds = AuditEntry.objects.order_by("target_type").values_list("target_type", flat=True).distinct()
    found = list(entries[: PAGE + 1])
    shown = found[:PAGE]
    return render(
        request,
        "console/audit/page.html",
        {
            "entries": [(entry, kind_name(entry.target_type), readable(entry.detail)) for entry in shown],
            "kinds": [(one, kind_name(one)) for one in kinds],
            "search": search,
            "kind": kind,
            "before": before,
            "older": shown[-1].pk if len(found) > PAGE else None,
        },
    )
