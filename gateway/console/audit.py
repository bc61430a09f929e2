"""The page of the audit log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path, reverse
from django.utils.dateparse import parse_datetime

from billing.exports.sheets import Row
from billing.services.quotas import RATE_METRICS
from billing.usage_export import moment as moment_in_utc
from gateway.console.access import TenantRequest, requires
from gateway.console.lists import CHUNK, list_file, place, words
from gateway.templatetags.console import moment
from tenants.models import AuditEntry
from tenants.permissions import Permission

PAGE = 50
COLUMNS = ("number", "at", "actor", "kind", "action", "target", "target_id", "detail")
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
    "requestcontent": "Content of request",
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


@dataclass(frozen=True, slots=True)
class Asked:
    """Which entries the address asks for."""

    search: str
    kind: str

    @classmethod
    def of(cls, request: TenantRequest) -> Asked:
        """What ``q`` and ``kind`` say."""
        return cls(words(request), words(request, "kind"))

    @property
    def entries(self) -> QuerySet[AuditEntry]:
        """They, the newest first."""
        found = AuditEntry.objects.select_related("actor").order_by("-pk")
        if self.search:
            found = found.filter(
                Q(target_label__icontains=self.search)
                | Q(actor__email__icontains=self.search)
                | Q(verb__icontains=self.search)
            )
        return found.filter(target_type=self.kind) if self.kind else found

    @property
    def parameters(self) -> str:
        """The same as a query string."""
        return urlencode({name: value for name, value in (("q", self.search), ("kind", self.kind)) if value})


@requires(Permission.VIEW_AUDIT)
def audit(request: TenantRequest) -> HttpResponse:
    """What changed, newest first. ``?before=`` takes the last number of the page before it."""
    asked, before = Asked.of(request), place(request, "before")
    entries = asked.entries if before is None else asked.entries.filter(pk__lt=before)
    kinds = AuditEntry.objects.order_by("target_type").values_list("target_type", flat=True).distinct()
    found = list(entries[: PAGE + 1])
    more, found = len(found) > PAGE, found[:PAGE]
    address = reverse("console:audit_csv", args=[request.tenant.organization.slug])
    older = urlencode({"before": found[-1].pk}) if more else ""
    return render(
        request,
        "console/audit/page.html",
        {
            "entries": [(entry, kind_name(entry.target_type), readable(entry.detail)) for entry in found],
            "kinds": [(one, kind_name(one)) for one in kinds],
            "asked": asked,
            "before": before,
            "csv": f"{address}?{asked.parameters}",
            "first": f"?{asked.parameters}" if before is not None else "",
            "next": "?" + "&".join(filter(None, (asked.parameters, older))) if more else "",
        },
    )


@requires(Permission.VIEW_AUDIT)
def audit_file(request: TenantRequest) -> HttpResponse:
    """``audit/audit.csv``: every entry that the search finds, the newest first."""

    def rows() -> Iterator[Row]:
        for entry in Asked.of(request).entries.iterator(chunk_size=CHUNK):
            yield {
                "number": entry.pk,
                "at": moment_in_utc(entry.at),
                "actor": entry.actor.email if entry.actor else "",
                "kind": entry.target_type,
                "action": entry.verb,
                "target": entry.target_label,
                "target_id": entry.target_id,
                "detail": entry.detail,
            }

    return list_file(f"audit-{request.tenant.organization.slug}", COLUMNS, rows())


urlpatterns = [
    path("", audit, name="audit"),
    path("audit.csv", audit_file, name="audit_csv"),
]
