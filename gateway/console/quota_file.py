"""Every limit that a person may see, as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from django.http import HttpResponse

from billing.exports.sheets import Row
from billing.usage_export import moment
from gateway.console import layers
from gateway.console.access import TenantRequest, requires
from gateway.console.layers import BudgetLine, Layer, RateLine
from gateway.console.lists import list_file, words
from tenants.models import ApiKey, Membership, Team
from tenants.permissions import Permission

COLUMNS = (
    "layer",
    "name",
    "team",
    "model_group",
    "limits",
    "period",
    "limit",
    "raised_until",
    "used",
    "held",
    "resets_at",
    "only_alerts",
    "alert_at",
)


def _rows(whole: Layer, now: datetime) -> Iterator[Row]:
    target = whole.target
    team = target.team.slug if isinstance(target, ApiKey) else target.slug if isinstance(target, Team) else ""
    name = target.user.email if isinstance(target, Membership) else whole.name
    for part in whole.parts:
        lines: list[RateLine | BudgetLine] = [*part.rates.values(), *part.budgets]
        for line in lines:
            quota, budget = line.quota, line if isinstance(line, BudgetLine) else None
            raised = quota.raised_until is not None and now < quota.raised_until
            used = line.spent if isinstance(line, BudgetLine) else line.used
            yield {
                "layer": whole.scope,
                "name": name,
                "team": team,
                "model_group": part.model_group,
                "limits": quota.metric,
                "period": quota.period,
                "limit": line.limit if budget else int(line.limit),
                "raised_until": moment(quota.raised_until) if raised and quota.raised_until else "",
                "used": "" if used is None else used,
                "held": budget.held if budget and budget.held is not None else "",
                "resets_at": moment(budget.resets_at) if budget and budget.resets_at else "",
                "only_alerts": not quota.hard,
                "alert_at": [str(share) for share in quota.alert_at] or "",
            }


@requires(Permission.VIEW)
def quota_file(request: TenantRequest) -> HttpResponse:
    """``quotas/quotas.csv``: a line for each limit of the layers that the page has, of all keys and members.
    Budgets are US dollars."""
    now = datetime.now(UTC)
    found = layers.all_layers(request.tenant, now, search=words(request))
    lines = (row for layer in found.every() for row in _rows(layer, now))
    return list_file(f"quotas-{request.tenant.organization.slug}", COLUMNS, lines)
