"""The limits of end users as people see them: what binds each, whose own it is, what is used of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from django.db.models import Q

from billing.calendars import period_bounds
from billing.end_users import binding_limits, limits_of_end_users
from billing.models import Budget, Quota
from billing.sums import Sums, grouped
from gateway.console.gauges import used_now
from gateway.console.layers import BudgetLine, Layer, RateLine
from tenants.access import TenantAccess
from tenants.permissions import Permission

ORDER = ("day", "week", "month", "total")


class EndUserCounters:
    """What a page's end users used of the budgets that bind them; a fixed number of queries for all.

    ``visible`` is whether the person may know what is spent.
    """

    def __init__(self, tenant: TenantAccess, names: Iterable[str], at: datetime) -> None:
        self.tenant, self.at = tenant, at
        self.visible = tenant.may(Permission.VIEW_USAGE)
        self.names = list(names)
        self.quotas = limits_of_end_users(tenant.organization, self.names)
        self._rows: dict[tuple[int | None, str, datetime], Budget] = {}
        self._used: dict[tuple[str, str], dict[str, Sums]] = {}
        budgets = [quota.pk for quota in self.quotas if quota.metric == "budget"]
        if self.visible and budgets and self.names:
            found = Budget.objects.filter(quota__in=budgets, subject__in=self.names).filter(
                Q(period_end__isnull=True) | Q(period_end__gt=at)
            )
            self._rows = {(row.quota_id, row.subject, row.period_start): row for row in found}

    def limits_of(self, end_user: str) -> list[Quota]:
        """The quotas that bind ``end_user``: its own, or the default."""
        return binding_limits(self.quotas, end_user)

    def line(self, quota: Quota, end_user: str) -> BudgetLine:
        """One budget of ``end_user``; until it has a counter, with what the sums of hours say."""
        start, end = period_bounds(quota.period, self.at, self.tenant.organization.time_zone)
        limit = quota.limit_at(self.at)
        if not self.visible:
            return BudgetLine(quota, None, None, end, limit)
        row = self._rows.get((quota.pk, end_user, start))
        if row is not None:
            return BudgetLine(quota, row.spent, row.held, end, limit)
        used = self._sums(quota, start).get(end_user, Sums())
        return BudgetLine(quota, used.charge, Decimal(0), end, limit)

    def _sums(self, quota: Quota, start: datetime) -> dict[str, Sums]:
        """What every name of the page used since ``start`` of what ``quota`` counts, asked once."""
        place = (quota.period, quota.model_group)
        if place not in self._used:
            where = Q(end_user__in=self.names)
            if quota.model_group:
                where &= Q(model_group=quota.model_group)
            found = grouped(self.tenant.organization, "end_user", start, self.at, where=where)
            self._used[place] = {end_user: sums for (end_user,), sums in found.items()}
        return self._used[place]

    def tightest(self, end_user: str) -> BudgetLine | None:
        """Of the budgets on all models, the one of which the largest part is used."""
        lines = [
            self.line(quota, end_user)
            for quota in self.limits_of(end_user)
            if quota.metric == "budget" and not quota.model_group
        ]
        return max(lines, key=_part_used, default=None)

    def layer(self, end_user: str, *, editable: bool) -> Layer:
        """All that binds ``end_user``, with its parts about one model group each."""
        quotas = self.limits_of(end_user)
        layer = Layer("end_user", end_user, editable=editable)
        used = used_now(quotas, self.tenant.organization.pk, end_user) if self.visible else {}
        for quota in quotas:
            part = layer.of_group(quota.model_group)
            if quota.metric == "budget":
                part.budgets.append(self.line(quota, end_user))
            else:
                part.rates[quota.metric] = RateLine(quota, used.get(quota.pk), quota.limit_at(self.at))
        for part in layer.parts:
            part.budgets.sort(key=lambda line: ORDER.index(line.quota.period))
        return layer


def _part_used(line: BudgetLine) -> Decimal:
    if line.spent is None:
        return Decimal(0)
    return line.spent / line.limit if line.limit else Decimal(1)
