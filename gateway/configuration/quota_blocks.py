"""Quotas in the file against those in the database."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django_scopes import scopes_disabled

from billing.models import Quota
from billing.services.quotas import RATE_METRICS, Target, identity, remove_quota, set_quota
from gateway.configuration.changes import FieldChange
from gateway.configuration.schema import QuotasBlock


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota without whom it binds. ``amount`` is a count, or US dollars."""

    amount: Decimal
    hard: bool = True
    alert_at: tuple[Decimal, ...] = ()

    def __str__(self) -> str:
        text = f"{self.amount.normalize():f}"
        if not self.hard:
            text += " soft"
        if self.alert_at:
            text += f" alert at {', '.join(f'{share.normalize():f}' for share in self.alert_at)}"
        return text


# Limits by metric and period, the period empty but for budgets.
Limits = dict[tuple[str, str], Limit]


def wanted_limits(block: QuotasBlock) -> Limits:
    """What the file says."""
    found: Limits = {}
    for metric in RATE_METRICS:
        count = getattr(block, metric)
        if count is not None:
            found[metric, ""] = Limit(Decimal(count))
    for budget in block.budget:
        found["budget", budget.period] = Limit(
            budget.amount, budget.hard, tuple(sorted(set(budget.alert_at)))
        )
    return found


def stored_quotas(scope: str, target: Target) -> dict[tuple[str, str], Quota]:
    """What the database says: quotas of ``scope`` on ``target``, but those of one end user alone."""
    columns = {name: value for name, value in identity(scope, target).items() if value is not None}
    with scopes_disabled():
        rows = Quota.objects.filter(**columns, end_user="").order_by("metric", "period")
        return {(row.metric, row.period): row for row in rows}


def limit_of(quota: Quota) -> Limit:
    """A row as the file would say it."""
    return Limit(quota.limit, quota.hard, tuple(quota.alert_at))


def match_quotas(scope: str, target: Target, block: QuotasBlock, field: str = "quotas") -> list[FieldChange]:
    """Make the quotas of ``target`` those of the file: set, change, remove. Returns what changed."""
    wanted, stored = wanted_limits(block), stored_quotas(scope, target)
    changes = []
    for (metric, period), limit in wanted.items():
        row = stored.get((metric, period))
        before = None if row is None else limit_of(row)
        if before == limit:
            continue
        set_quota(
            acting_user=None,
            scope=scope,
            target=target,
            metric=metric,
            limit=limit.amount,
            period=period,
            hard=limit.hard,
            alert_at=limit.alert_at,
        )
        changes.append(FieldChange(_label(field, metric, period), before, limit))
    for (metric, period), row in stored.items():
        if (metric, period) not in wanted:
            changes.append(FieldChange(_label(field, metric, period), limit_of(row), None))
            remove_quota(acting_user=None, quota=row)
    return changes


def _label(field: str, metric: str, period: str) -> str:
    return f"{field}.{metric}" + (
        f" a {period}" if period not in {"", "total"} else " in total" if period else ""
    )
