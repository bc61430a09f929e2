"""The overview: this month's spend, what is used most, what needs attention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString

from billing.access import visible_to
from billing.calendars import period_bounds
from billing.models import ReconcileReport
from billing.reports import cost_report, top, totals_for
from gateway.console import keyring, layers
from gateway.console.access import TenantRequest, requires
from gateway.console.charts import Bar, bar_chart
from gateway.templatetags.console import money
from tenants.access import TenantAccess
from tenants.models import ApiKey, Membership, Team
from tenants.permissions import Permission

SOON = timedelta(days=14)
NEARLY = Decimal("0.8")
MOST_MATTERS = 12
MOST_USED = 5


@dataclass(frozen=True, slots=True)
class Matter:
    """Something to look after; ``level`` is warn or bad."""

    level: str
    title: str
    detail: str
    url: str


def spend_by_day(tenant: TenantAccess, start: datetime, end: datetime) -> SafeString:
    """The chart of what was spent on each day; empty where nothing was."""
    report = cost_report(tenant.organization, "day", start, end, visible_to(tenant))
    if not report.totals.charge:
        return SafeString("")
    bars = [
        Bar(
            label=str(number),
            title=f"{row.key}: {money(row.sums.charge)}, {row.sums.requests:,} requests",
            parts=[row.sums.charge],
        )
        for number, row in enumerate(report.rows, start=1)
    ]
    return bar_chart(bars, label="Spend of each day of the month")


def _search(layer: layers.Layer) -> str:
    """The query string with which the page of limits has ``layer``: there is no room for all of many."""
    match layer.target:
        case ApiKey(name=name):
            return f"?{urlencode({'q': name})}"
        case Membership(user=user):
            return f"?{urlencode({'q': user.email})}"
        case _:
            return ""


def attention(tenant: TenantAccess, everything: layers.Layers, now: datetime) -> list[Matter]:
    """Keys that end soon, budgets of which over 80 % is used, a wallet nearly empty."""
    slug = tenant.organization.slug
    page = reverse("console:quotas", args=[slug])
    found: list[Matter] = []
    for layer in (part for whole in everything.every() for part in whole.parts):
        for line in layer.budgets:
            if line.spent is None or line.left is None or line.spent < line.limit * NEARLY:
                continue
            gone = line.spent >= line.limit
            found.append(
                Matter(
                    "bad" if gone else "warn",
                    f"{layer.name}: budget {line.quota.get_period_display()} {'used up' if gone else 'nearly used up'}",
                    f"${line.spent:,.2f} of ${line.limit:,.2f} spent",
                    f"{page}{_search(layer)}#{layer.place}",
                )
            )
    wallet = everything.wallet
    if wallet is not None and wallet.limit is not None:
        left = wallet.limit - wallet.spent - wallet.held
        if left <= wallet.limit * (1 - NEARLY):
            found.append(
                Matter(
                    "bad" if left <= 0 else "warn",
                    "The wallet is nearly empty",
                    f"${max(left, Decimal(0)):,.2f} left",
                    page,
                )
            )
    ending = keyring.visible_keys(tenant).filter(
        revoked_at__isnull=True, successor__isnull=True, expires_at__gt=now, expires_at__lte=now + SOON
    )
    for key in ending.order_by("expires_at")[:5]:
        days = (key.expires_at - now).days if key.expires_at else 0
        words = "today" if days == 0 else "tomorrow" if days == 1 else f"in {days} days"
        found.append(
            Matter(
                "warn",
                f"The key {key.name} ends {words}",
                f"Team {key.team.name}",
                reverse("console:key", args=[slug, key.pk]),
            )
        )
    return found


@requires(Permission.VIEW)
def overview(request: TenantRequest) -> HttpResponse:
    """The organization at a glance; a member without wider permissions sees their own part."""
    tenant, now = request.tenant, datetime.now(UTC)
    organization = tenant.organization
    start, end = period_bounds("month", now, organization.time_zone)
    end = end or now
    where = visible_to(tenant)
    users = cost_report(organization, "user", start, now, where, most=MOST_USED)
    sums = users.totals
    before, _ = period_bounds("month", start - timedelta(hours=1), organization.time_zone)
    everything = layers.all_layers(tenant, now, used=NEARLY)
    budget = next(
        (
            line
            for layer in reversed(everything.shared)
            for line in layer.budgets
            if line.quota.period == "month" and line.spent is not None
        ),
        None,
    )
    keys = keyring.visible_keys(tenant)
    # What is bad comes first; of the rest, what is widest.
    matters = sorted(attention(tenant, everything, now), key=lambda matter: matter.level != "bad")
    return render(
        request,
        "console/overview/page.html",
        {
            "start": start,
            "sums": sums,
            "before": totals_for(organization, before, start, where),
            "whole": tenant.may(Permission.VIEW_USAGE),
            "budget": budget,
            "wallet": everything.wallet,
            "users": users.rows[:MOST_USED],
            "models": top(organization, "model", start, now, count=MOST_USED, where=where),
            "matters": matters[:MOST_MATTERS],
            "number_of_matters": len(matters),
            "books": ReconcileReport.objects.order_by("-at").first()
            if tenant.may(Permission.VIEW_MONEY)
            else None,
            "chart": spend_by_day(tenant, start, end),
            "has_teams": Team.objects.exists(),
            "has_keys": keys.exists(),
            "used_ever": sums.requests > 0 or keys.filter(last_used_at__isnull=False).exists(),
            "may_make_key": keyring.teams_for_new_keys(tenant).exists(),
            "may_manage_teams": tenant.may(Permission.MANAGE_TEAMS),
        },
    )
