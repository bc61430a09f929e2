"""Quotas: setting and removing the limits on plans, organizations, teams, members, keys and end users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
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


class BadRaise(QuotaError):
    """A temporary increase that is none, or that is over already."""


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
    model_group: str = "",
) -> Quota:
    """Set one limit; the row of that target, metric, period, end user and model group is made or changed.

    ``limit`` is a count, or US dollars for a budget. ``alert_at`` are shares of a budget. A budget's
    counters of the current period follow in the same transaction. For ``scope`` "end_user",
    ``target`` is the organization and an empty ``end_user`` the default for each. A ``model_group`` is
    named, as in lists of allowed groups; empty: all. A temporary increase stays, unless the new limit
    is as high. Raises
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
            model_group=model_group,
        ).first()
        values: dict[str, Any] = {"limit": limit, "hard": hard, "alert_at": shares}
        if row is None:
            names = {"period": period, "end_user": end_user, "model_group": model_group}
            row = Quota(**columns, metric=metric, **names, **values)
            rows.check(row)
            row.save(force_insert=True)
            verb, detail = "created", {**values, **names}
        else:
            if row.raised_to is not None and row.raised_to <= limit:
                values |= {"raised_to": None, "raised_until": None}
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
    Budget.objects.filter(unfinished, quota=quota).update(
        limit=quota.limit if quota.hard else None,
        raised_to=quota.raised_to if quota.hard else None,
        raised_until=quota.raised_until if quota.hard else None,
    )


@transaction.atomic
def raise_quota(
    *, acting_user: User | None, quota: Quota, to: Decimal | int | None, until: datetime | None
) -> Quota:
    """Raise a limit to ``to`` (in the limit's own unit) until the moment ``until``; both None end it now.

    It ends by itself, without anyone's doing. Counters follow in the same transaction. Raises
    ``BadRaise``, ``BadLimit``, ``InvalidRow``.
    """
    with scopes_disabled():
        locked = Quota.objects.select_for_update(of=("self",), no_key=True).get(pk=quota.pk)
        if to is None or until is None:
            if (to is None) != (until is None):
                raise BadRaise("A temporary increase needs both an amount and an end.")
        else:
            to = Decimal(to)
            if not (to.is_finite() and to > locked.limit):
                raise BadRaise(
                    f"A temporary increase must be above the limit, which is {locked.limit.normalize():f}."
                )
            if locked.metric != "budget" and to != to.to_integral_value():
                raise BadLimit(f"{locked.metric} is a whole number.")
            if until <= timezone.now():
                raise BadRaise("A temporary increase must end in the future.")
        changes = rows.changed(locked, {"raised_to": to, "raised_until": until})
        if changes:
            detail = rows.assign(locked, changes)
            _move_counters(locked)
            audit.record(
                acting_user=acting_user,
                verb="raised" if to is not None else "raise ended",
                target=locked,
                organization=locked.organization,
                detail={"metric": locked.metric, "period": locked.period, **detail},
            )
    return locked


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
                "end_user": locked.end_user,
                "model_group": locked.model_group,
                "limit": locked.limit,
            },
        )
        locked.delete()
