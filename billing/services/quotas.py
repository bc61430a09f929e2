"""Quotas: setting and removing the limits on plans, organizations, teams, members, keys and end users."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django_scopes import scopes_disabled

from billing.calendars import PERIODS
from billing.models import Budget, Quota
from tenants.models import ApiKey, Membership, Organization, Plan, Team, User
from tenants.services import audit, rows

Target = Plan | Organization | Team | Membership | ApiKey
RATE_METRICS = ("requests_per_minute", "tokens_per_minute", "concurrency")
# What kind of row each scope binds, and the column that names it.
_TARGETS: dict[str, tuple[type[Target], str]] = {
    "plan": (Plan, "plan"),
    "organization": (Organization, ""),
    "team": (Team, "team"),
    "member": (Membership, "member"),
    "key": (ApiKey, "key"),
    "end_user": (Organization, ""),
}


class QuotaError(ValueError):
    """A quota that cannot be set."""


class WrongTarget(QuotaError):
    """The scope does not bind that kind of thing."""


class BadLimit(QuotaError):
    """A limit below zero, or a count that is not whole."""


class BadPeriod(QuotaError):
    """A budget without a period, or another metric with one."""


class BadAlert(QuotaError):
    """A share to alert at that is not above 0, or an alert on something else than a budget."""


def identity(scope: str, target: Target) -> dict[str, Any]:
    """The columns that say whom a quota of ``scope`` on ``target`` binds. Raises ``WrongTarget``."""
    kind, column = _TARGETS.get(scope, (None, ""))
    if kind is None or not isinstance(target, kind):
        raise WrongTarget(f"A quota of scope {scope!r} does not bind a {type(target).__name__}.")
    columns: dict[str, Any] = {"scope": scope, "plan": None, "team": None, "member": None, "key": None}
    if column:
        columns[column] = target
    columns["organization"] = organization_of(target)
    return columns


def organization_of(target: Target) -> Organization | None:
    """The organization that ``target`` is or belongs to; None for a plan."""
    if isinstance(target, Plan):
        return None
    return target if isinstance(target, Organization) else target.organization


def _check(
    scope: str, metric: str, limit: Decimal, period: str, alert_at: Sequence[Decimal], end_user: str
) -> None:
    if not (limit.is_finite() and limit >= 0):
        raise BadLimit("A limit is not negative.")
    if metric == "budget":
        if period not in PERIODS:
            raise BadPeriod(f"A budget needs a period: one of {', '.join(PERIODS)}.")
    else:
        if metric not in RATE_METRICS:
            raise QuotaError(f"{metric!r} is not something a quota counts.")
        if period:
            raise BadPeriod("Only a budget has a period.")
        if alert_at:
            raise BadAlert("Only a budget can alert.")
        if limit != limit.to_integral_value():
            raise BadLimit(f"{metric} is a whole number.")
    if any(not 0 < share <= 10 for share in alert_at):
        raise BadAlert('A share to alert at is above 0, such as "0.8".')
    if end_user and scope != "end_user":
        raise WrongTarget("Only a quota of scope 'end_user' names an end user.")


@transaction.atomic
def set_quota(
    *,
    acting_user: User | None,
    scope: str,
    target: Target,
    metric: str,
    limit: Decimal | int,
    period: str = "",
    hard: bool = True,
    alert_at: Sequence[Decimal] = (),
    end_user: str = "",
) -> Quota:
    """Set one limit; the row of that target, metric, period and end user is made or changed.

    ``limit`` is a count, or US dollars for a budget. ``alert_at`` are shares of a budget. A budget's
    counters of the current period follow in the same transaction. For ``scope`` "end_user",
    ``target`` is the organization and an empty ``end_user`` the default for each. Raises
    ``WrongTarget``, ``BadLimit``, ``BadPeriod``, ``BadAlert``, ``InvalidRow``.
    """
    limit = Decimal(limit)
    shares = sorted(set(alert_at))
    _check(scope, metric, limit, period, shares, end_user)
    columns = identity(scope, target)
    organization = columns["organization"]
    with scopes_disabled():
        # One at a time for a target: the row to lock may not be there yet.
        type(target).objects.select_for_update(of=("self",), no_key=True).get(pk=target.pk)
        row = Quota.objects.filter(
            **{name: value for name, value in columns.items() if value is not None},
            metric=metric,
            period=period,
            end_user=end_user,
        ).first()
        values = {"limit": limit, "hard": hard, "alert_at": shares}
        if row is None:
            row = Quota(**columns, metric=metric, period=period, end_user=end_user, **values)
            rows.check(row)
            row.save(force_insert=True)
            verb, detail = "created", {**values, "period": period, "end_user": end_user}
        else:
            changes = rows.changed(row, values)
            if not changes:
                return row
            verb, detail = "changed", rows.assign(row, changes)
            _move_counters(row)
        audit.record(
            acting_user=acting_user,
            verb=verb,
            target=row,
            organization=organization,
            detail={"of": target, "metric": metric, **detail},
        )
    return row


def _move_counters(quota: Quota) -> None:
    """Give the counters of the periods that are not over the quota's limit; a soft one only counts."""
    unfinished = Q(period_end__isnull=True) | Q(period_end__gt=timezone.now())
    Budget.objects.filter(unfinished, quota=quota).update(limit=quota.limit if quota.hard else None)


@transaction.atomic
def remove_quota(*, acting_user: User | None, quota: Quota) -> None:
    """Lift a limit. Its counters go too; what was spent stays in the usage events."""
    with scopes_disabled():
        locked = Quota.objects.select_for_update(of=("self",), no_key=True).get(pk=quota.pk)
        audit.record(
            acting_user=acting_user,
            verb="removed",
            target=locked,
            organization=locked.organization,
            detail={
                "scope": locked.scope,
                "metric": locked.metric,
                "period": locked.period,
                "limit": locked.limit,
            },
        )
        locked.delete()
