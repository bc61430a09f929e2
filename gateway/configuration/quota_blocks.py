"""Quotas in the file against those in the database."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django_scopes import scopes_disabled

from billing.models import Quota
from billing.services.quotas import RATE_METRICS, Target, identity, remove_quota, set_quota
from gateway.configuration.changes import FieldChange
from gateway.configuration.schema import LimitsBlock, QuotasBlock


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


# Model group (empty: all), metric, and period (empty but for budgets).
Place = tuple[str, str, str]


def wanted_limits(block: QuotasBlock) -> dict[Place, Limit]:
    """What the file says."""
    found = _limits("", block)
    for group, limits in block.model_groups.items():
        found |= _limits(group, limits)
    return found


def _limits(group: str, block: LimitsBlock) -> dict[Place, Limit]:
    found: dict[Place, Limit] = {}
    for metric in RATE_METRICS:
        count = getattr(block, metric)
        if count is not None:
            found[group, metric, ""] = Limit(Decimal(count))
    for budget in block.budget:
        found[group, "budget", budget.period] = Limit(
            budget.amount, budget.hard, tuple(sorted(set(budget.alert_at)))
        )
    return found


def stored_quotas(scope: str, target: Target) -> dict[Place, Quota]:
    """What the database says: quotas of ``scope`` on ``target``, but those of one end user alone."""
    columns = {name: value for name, value in identity(scope, target).items() if value is not None}
    with scopes_disabled():
        rows = Quota.objects.filter(**columns, end_user="").order_by("model_group", "metric", "period")
        return {(row.model_group, row.metric, row.period): row for row in rows}


def limit_of(quota: Quota) -> Limit:
    """A row as the file would say it."""
    return Limit(quota.limit, quota.hard, tuple(quota.alert_at))


def match_quotas(scope: str, target: Target, block: QuotasBlock, field: str = "quotas") -> list[FieldChange]:
    """Make the quotas of ``target`` those of the file: set, change, remove. Returns what changed."""
    wanted, stored = wanted_limits(block), stored_quotas(scope, target)
    changes = []
    for place, limit in wanted.items():
        group, metric, period = place
        row = stored.get(place)
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
            model_group=group,
        )
        changes.append(FieldChange(_label(field, *place), before, limit))
    for place, row in stored.items():
        if place not in wanted:
            changes.append(FieldChange(_label(field, *place), limit_of(row), None))
            remove_quota(acting_user=None, quota=row)
    return changes


def _label(field: str, group: str, metric: str, period: str) -> str:
    if group:
        field = f"{field}.model_groups.{group}"
    return f"{field}.{metric}" + (
        f" a {period}" if period not in {"", "total"} else " in total" if period else ""
    )
