"""The list of end users: who they are, what was spent for each, which limit is nearest, who is blocked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

from billing.access import Names, visible_to
from billing.end_users import (
    SORTS,
    STANDINGS,
    Asked,
    BadPlace,
    EndUser,
    blocked_end_users,
    end_users,
    last_days,
    limited_end_users,
)
from billing.exports.report import COUNTS
from billing.exports.sheets import CONTENT_TYPES, FORMATS, Format, Row, Table, sheet
from billing.models import BlockedEndUser
from billing.models.end_user import LONGEST_ID
from billing.usage_export import CURRENCY
from gateway.console.access import TenantRequest, requires
from gateway.console.end_user_limits import EndUserCounters
from gateway.console.files import sent
from gateway.console.forms import group_choices
from gateway.console.layers import BudgetLine
from gateway.usage_query import BadQuery, UsageQuery, presets, read, today
from tenants.access import TenantAccess
from tenants.permissions import Permission

PAGE = 50
# What of a download stays in memory while it is made; the rest is in a temporary file.
IN_MEMORY = 1 << 20
NOBODY = Names({}, {}, {})


@dataclass(frozen=True, slots=True)
class Line:
    """One end user as the list shows it, with the budget on all models that is nearest to its end."""

    end_user: EndUser
    last_day: date | None
    budget: BudgetLine | None
    blocked: BlockedEndUser | None


def _parameters(query: UsageQuery, asked: Asked, **changes: str) -> str:
    values = {"q": asked.search, "standing": asked.standing}
    values["sort"] = "" if asked.sort == "charge" else asked.sort
    return query.parameters(**{**values, **changes})


def _asked(request: TenantRequest) -> tuple[UsageQuery, Asked, str]:
    """What the address asks for, and what is wrong with it."""
    tenant, problem = request.tenant, ""
    try:
        query = read(request.GET, tenant.organization, NOBODY)
    except BadQuery as error:
        query, problem = read({}, tenant.organization, NOBODY), f"{error} This month is shown instead."
    sort, standing = request.GET.get("sort", ""), request.GET.get("standing", "")
    whole = tenant.teams_with(Permission.VIEW_USAGE) is None
    asked = Asked(
        *query.bounds,
        visible_to(tenant),
        sort=sort if sort in SORTS else "charge",
        search=request.GET.get("q", "").replace("\x00", "").strip()[:LONGEST_ID],
        standing=standing if standing in STANDINGS else "",
        # Whoever sees some teams alone sees those who used them.
        named=whole,
    )
    return query, asked, problem


def _lines(tenant: TenantAccess, asked: Asked, found: list[EndUser], now: datetime) -> list[Line]:
    names = [each.end_user for each in found]
    counters = EndUserCounters(tenant, names, now)
    blocked = blocked_end_users(tenant.organization, names)
    last = last_days(tenant.organization, asked.start, min(asked.end, now), asked.where, names)
    lines = []
    for each in found:
        budget = counters.tightest(each.end_user)
        lines.append(Line(each, last.get(each.end_user), budget, blocked.get(each.end_user)))
    return lines


@requires(Permission.VIEW_USAGE)
def end_user_list(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/end-users/``, the dearest of this month first unless the address says otherwise."""
    tenant, now = request.tenant, datetime.now(UTC)
    query, asked, problem = _asked(request)
    after = request.GET.get("after", "").replace("\x00", "")
    try:
        found = end_users(tenant.organization, asked, after=after, size=PAGE + 1)
    except BadPlace:
        after, found = "", end_users(tenant.organization, asked, size=PAGE + 1)
    lines = _lines(tenant, asked, found[:PAGE], now)
    first = [name for name, _ in group_choices(tenant)][:1]
    return render(
        request,
        "console/end_users/list.html",
        {
            "lines": lines,
            "query": query,
            "asked": asked,
            "problem": problem,
            "today": today(tenant.organization),
            "presets": [
                (
                    label,
                    _parameters(query, asked, **{"from": start.isoformat(), "to": end.isoformat()}),
                    (start, end) == (query.first, query.last),
                )
                for label, start, end in presets(today(tenant.organization))
            ],
            "sorts": {name: f"?{_parameters(query, asked, sort=name)}" for name in SORTS},
            "parameters": _parameters(query, asked),
            "newer": f"?{_parameters(query, asked)}" if after else "",
            "older": f"?{_parameters(query, asked, after=lines[-1].end_user.place)}"
            if len(found) > PAGE
            else "",
            "narrowed": not asked.named,
            "base_url": f"{settings.PUBLIC_URL}/v1",
            "model": first[0] if first else "MODEL",
        },
    )


_TABLE = Table(
    "end-users",
    (
        "end_user",
        *COUNTS,
        "charge",
        "currency",
        "last_day",
        "own_limits",
        "blocked",
        "blocked_at",
        "blocked_reason",
    ),
    {"charge": "charge_exact"},
)


def _rows(tenant: TenantAccess, asked: Asked, now: datetime) -> Iterator[Row]:
    blocked = blocked_end_users(tenant.organization)
    limited = limited_end_users(tenant.organization)
    last = last_days(tenant.organization, asked.start, min(asked.end, now), asked.where)
    for each in end_users(tenant.organization, asked):
        block, day = blocked.get(each.end_user), last.get(each.end_user)
        yield {
            "end_user": each.end_user,
            **{name: getattr(each.sums, name) for name in COUNTS},
            "charge": each.sums.charge,
            "currency": CURRENCY,
            "last_day": day.isoformat() if day else "",
            "own_limits": each.end_user in limited,
            "blocked": block is not None,
            "blocked_at": block.blocked_at.isoformat() if block else "",
            "blocked_reason": block.reason if block else "",
        }


@requires(Permission.VIEW_USAGE)
def download(request: TenantRequest, *, format_: Format) -> HttpResponse:
    """``end-users/end-users.<format>``: every end user that the list has, in its order, exact."""
    query, asked, problem = _asked(request)
    if problem:
        return HttpResponse(f"{problem}\n", status=400, content_type="text/plain; charset=utf-8")
    # The response closes it.
    file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
    with sheet(file, _TABLE, format_) as begun:
        begun.add(_rows(request.tenant, asked, datetime.now(UTC)))
    size = file.tell()
    file.seek(0)
    name = f"end-users-{query.organization.slug}-{query.first}-{query.last}.{format_}"
    return sent(file, size, name=name, content_type=CONTENT_TYPES[format_])


urlpatterns = [
    path("", end_user_list, name="end_users"),
    *(
        path(f"end-users.{format_}", download, {"format_": format_}, name=f"end_users_{format_}")
        for format_ in FORMATS
    ),
]
