"""One end user: what was used for them, what limits them, and whether they are blocked."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from billing.access import local_range, visible_to
from billing.calendars import period_bounds
from billing.end_users import blocked_end_users, last_days
from billing.models.end_user import LONGEST_ID
from billing.reports import cost_report, totals_for
from billing.services.end_users import block_end_user, unblock_end_user
from gateway.console.access import TenantRequest, demand, requires
from gateway.console.charts import Bar, bar_chart
from gateway.console.end_user_limits import EndUserCounters
from gateway.console.forms import Limits
from gateway.console.quotas import quotas_of, save_limits
from gateway.templatetags.console import money, number
from gateway.usage_query import today
from tenants.access import TenantAccess
from tenants.permissions import Permission

CHART_DAYS = 30
# How far back from this month the last use is looked for.
LOOK_BACK = timedelta(days=60)


def _named(request: TenantRequest) -> str:
    """The id that the address or form names. It can hold any character, so it is no part of a path.

    Raises Http404.
    """
    given = request.POST if request.method == "POST" else request.GET
    end_user = given.get("id", "").replace("\x00", "")
    if not end_user or len(end_user) > LONGEST_ID:
        raise Http404
    return end_user


def _address(request: TenantRequest, end_user: str) -> str:
    page = reverse("console:end_user", args=[request.tenant.organization.slug])
    return f"{page}?{urlencode({'id': end_user})}"


def _chart(tenant: TenantAccess, end_user: str) -> SafeString:
    """What was spent for them on each of the last days."""
    last = today(tenant.organization)
    bounds = local_range(tenant.organization, last - timedelta(days=CHART_DAYS - 1), last)
    where = visible_to(tenant) & Q(end_user=end_user)
    report = cost_report(tenant.organization, "day", *bounds, where)
    if not report.totals.requests:
        return SafeString("")
    requests = reverse("console:requests", args=[tenant.organization.slug])
    bars = []
    for row in report.rows:
        label = f"{date.fromisoformat(row.key):%-d %b}"
        title = f"{label}: {money(row.sums.charge)}, {number(row.sums.requests)} requests"
        href = f"{requests}?{urlencode({**row.filters, 'end_user': end_user})}"
        bars.append(Bar(label, title, [row.sums.charge], href))
    return bar_chart(bars, label=f"US dollars a day of the last {CHART_DAYS} days")


def _page(request: TenantRequest, end_user: str, form: Limits | None = None) -> HttpResponse:
    """The page of one end user, with its own limits as a form if there is one."""
    tenant, now = request.tenant, datetime.now(UTC)
    organization, where = tenant.organization, visible_to(tenant) & Q(end_user=end_user)
    start, _ = period_bounds("month", now, organization.time_zone)
    before, _ = period_bounds("month", start - timedelta(hours=1), organization.time_zone)
    counters = EndUserCounters(tenant, [end_user], now)
    layer = counters.layer(end_user, editable=tenant.may(Permission.MANAGE_QUOTAS))
    return render(
        request,
        "console/end_users/detail.html",
        {
            "end_user": end_user,
            "sums": totals_for(organization, start, now, where),
            "before": totals_for(organization, before, start, where),
            "last_day": last_days(organization, start - LOOK_BACK, now, visible_to(tenant), [end_user]).get(
                end_user
            ),
            "today": today(organization),
            "chart": _chart(tenant, end_user),
            "layers": [part for part in layer.parts if part.rates or part.budgets],
            "own": any(quota.end_user == end_user for quota in counters.quotas),
            "blocked": blocked_end_users(organization, [end_user]).get(end_user),
            "may_limit": layer.editable,
            "whole": tenant.may(Permission.VIEW_USAGE),
            "form": form,
            "filter": urlencode({"end_user": end_user}),
        },
        status=422 if form is not None and form.errors else 200,
    )


@requires(Permission.VIEW_USAGE)
def end_user_detail(request: TenantRequest) -> HttpResponse:
    """``end-users/one/?id=``: one end user; with ``&edit=limits`` its own limits are a form."""
    end_user, form = _named(request), None
    if request.GET.get("edit") == "limits":
        demand(request.tenant, Permission.MANAGE_QUOTAS)
        existing = quotas_of("end_user", request.tenant.organization, end_user=end_user)
        form = Limits(initial=Limits.initial_of(existing))
    return _page(request, end_user, form)


@requires(Permission.MANAGE_QUOTAS)
@require_POST
def end_user_limits(request: TenantRequest) -> HttpResponse:
    """Set an end user's own limits on all models; none of them: the default holds again."""
    demand(request.tenant, Permission.MANAGE_QUOTAS)
    end_user, organization = _named(request), request.tenant.organization
    form = Limits({} if "default" in request.POST else request.POST)
    if form.is_valid():
        try:
            save_limits(request.user, "end_user", organization, form, end_user=end_user)
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            words = (
                f"Saved the limits of {end_user}."
                if form.wanted()
                else f"The default limits bind {end_user} again."
            )
            messages.success(request, words)
            return redirect(_address(request, end_user))
    return _page(request, end_user, form)


@requires(Permission.MANAGE_QUOTAS)
@require_POST
def end_user_standing(request: TenantRequest) -> HttpResponse:
    """Block an end user, or let them pass again (``do``: block, unblock)."""
    demand(request.tenant, Permission.MANAGE_QUOTAS)
    end_user, organization = _named(request), request.tenant.organization
    match request.POST.get("do"):
        case "block":
            reason = request.POST.get("reason", "")[:200]
            block_end_user(
                acting_user=request.user, organization=organization, end_user=end_user, reason=reason
            )
            messages.success(request, f"Blocked {end_user}. Their requests are refused from now on.")
        case "unblock":
            if unblock_end_user(acting_user=request.user, organization=organization, end_user=end_user):
                messages.success(request, f"Unblocked {end_user}. Their requests pass again.")
        case _:
            raise Http404
    return redirect(_address(request, end_user))


urlpatterns = [
    path("one/", end_user_detail, name="end_user"),
    path("limits/", end_user_limits, name="end_user_limits"),
    path("standing/", end_user_standing, name="end_user_standing"),
]
