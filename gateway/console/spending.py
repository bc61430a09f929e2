"""What each member or each team has spent this month, beside the budgets set on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from django.db.models import Q

from billing.access import visible_to
from billing.calendars import period_bounds
from billing.models import Budget, Quota
from billing.reports import spent_since
from billing.sums import Sums
from gateway.console.layers import BudgetLine
from tenants.access import TenantAccess
from tenants.permissions import Permission

ORDER = ("day", "week", "month", "total")


@dataclass(frozen=True, slots=True)
class Spending:
    """One member or team. ``spent`` is what it was charged this month in US dollars, None where this person
    may not know; ``budgets`` are its own over all models, without amounts where they may not know."""

    # The layer on the page of limits: ``member-3``, ``team-7``.
    anchor: str
    spent: Decimal | None
    budgets: list[BudgetLine]
    limitable: bool


class Spendings:
    """Those of the members or the teams with the ids ``numbers``, from as many queries whatever their number."""

    def __init__(
        self,
        tenant: TenantAccess,
        scope: Literal["member", "team"],
        numbers: Collection[int],
        at: datetime,
    ) -> None:
        self.tenant, self.scope, self.numbers, self.at = tenant, scope, numbers, at
        self.budgets: dict[int, list[Quota]] = {}
        of_these = Quota.objects.filter((f"{scope}_id__in", numbers), scope=scope, metric="budget")
        for quota in of_these.filter(model_group=""):
            number = quota.member_id if scope == "member" else quota.team_id
            if number is not None:
                self.budgets.setdefault(number, []).append(quota)
        running = Q(period_end__isnull=True) | Q(period_end__gt=at)
        self.counters = {
            (row.quota_id, row.period_start): row
            for row in Budget.objects.filter(running, quota__in=of_these, subject="")
        }
        self._sums: dict[str, dict[int, Sums]] = {}

    def of(self, number: int) -> Spending:
        """That of the member or team with this id."""
        if self.scope == "member":
            own = number == self.tenant.membership.pk
            amounts = own or self.tenant.may(Permission.VIEW_USAGE)
            limits, limitable = amounts, self.tenant.may(Permission.MANAGE_QUOTAS)
        else:
            amounts = self.tenant.may(Permission.VIEW_USAGE, number)
            limits = amounts or number in self.tenant.team_roles
            limitable = self.tenant.may(Permission.MANAGE_QUOTAS, number)
        budgets = [self._line(quota, number, amounts) for quota in self.budgets.get(number, ()) if limits]
        budgets.sort(key=lambda line: ORDER.index(line.quota.period))
        spent = self._charge("month", number) if amounts else None
        return Spending(f"{self.scope}-{number}", spent, budgets, limitable)

    def _line(self, quota: Quota, number: int, visible: bool) -> BudgetLine:
        start, end = period_bounds(quota.period, self.at, self.tenant.organization.time_zone)
        limit = quota.limit_at(self.at)
        if not visible:
            return BudgetLine(quota, None, None, end, limit)
        counter = self.counters.get((quota.pk, start))
        if counter is not None:
            return BudgetLine(quota, counter.spent, counter.held, end, limit)
        # Nobody has asked with it yet; the counter will open with what the sums say.
        return BudgetLine(quota, self._charge(quota.period, number), Decimal(0), end, limit)

    def _charge(self, period: str, number: int) -> Decimal:
        """US dollars charged since ``period`` began."""
        if period not in self._sums:
            where = visible_to(self.tenant) & Q((f"{self.scope}_id__in", list(self.numbers)))
            self._sums[period] = spent_since(
                self.tenant.organization, self.scope, period, at=self.at, where=where
            )
        return self._sums[period].get(number, Sums()).charge
