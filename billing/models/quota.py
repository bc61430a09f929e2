"""Limits, and the counters behind the limits on money."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing.money import money_field
from tenants.models import ApiKey, Membership, Organization, Plan, Team, owned_by


def scope_choices() -> list[tuple[str, str]]:
    """Whom a quota binds."""
    return [
        ("plan", "Plan"),
        ("organization", "Organization"),
        ("team", "Team"),
        ("member", "Member"),
        ("key", "Key"),
        ("end_user", "End user"),
    ]


def metric_choices() -> list[tuple[str, str]]:
    """What a quota counts."""
    return [
        ("requests_per_minute", "Requests per minute"),
        ("tokens_per_minute", "Tokens per minute"),
        ("concurrency", "Requests at a time"),
        ("budget", "Budget"),
    ]


def period_choices() -> list[tuple[str, str]]:
    """When a budget begins anew, by the calendar of the organization's time zone."""
    return [("day", "a day"), ("week", "a week"), ("month", "a month"), ("total", "in total")]


class Quota(models.Model):
    """One limit on one plan, organization, team, member, key or end user.

    ``limit`` is a count, or US dollars for a budget. ``organization`` is null only on a plan's
    quota, which is the default of every organization on that plan. An end user's quota with an
    empty ``end_user`` is the default for each end user of the organization. ``model_group`` is the name
    of the one group whose requests it binds; empty: all. Until ``raised_until`` it is ``raised_to``.
    """

    organization = models.ForeignKey(Organization, null=True, blank=True, on_delete=models.CASCADE)
    scope = models.CharField(max_length=12, choices=scope_choices)
    plan = models.ForeignKey(Plan, null=True, blank=True, on_delete=models.CASCADE, related_name="quotas")
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="quotas")
    member = models.ForeignKey(
        Membership, null=True, blank=True, on_delete=models.CASCADE, related_name="quotas"
    )
    key = models.ForeignKey(ApiKey, null=True, blank=True, on_delete=models.CASCADE, related_name="quotas")
    end_user = models.CharField(max_length=256, blank=True)
    model_group = models.CharField(max_length=100, blank=True, default="", db_default="")
    metric = models.CharField(max_length=20, choices=metric_choices)
    limit = money_field()
    # A temporary increase: both are set, or neither.
    raised_to = money_field(null=True, blank=True)
    raised_until = models.DateTimeField(null=True, blank=True)
    period = models.CharField(max_length=5, choices=period_choices, blank=True)
    # A soft budget only alerts.
    hard = models.BooleanField(default=True)
    # Shares of the budget at which to alert.
    alert_at = ArrayField(models.DecimalField(max_digits=6, decimal_places=4), default=list, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Quota]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "organization",
                    "scope",
                    "plan",
                    "team",
                    "member",
                    "key",
                    "end_user",
                    "model_group",
                    "metric",
                    "period",
                ],
                nulls_distinct=False,
                name="quota_once",
            ),
            models.CheckConstraint(condition=Q(limit__gte=0), name="quota_limit_not_negative"),
            models.CheckConstraint(
                condition=Q(metric="budget", period__in=["day", "week", "month", "total"])
                | (~Q(metric="budget") & Q(period="")),
                name="quota_period_for_budgets",
            ),
            models.CheckConstraint(
                condition=Q(scope="plan", plan__isnull=False, organization__isnull=True)
                | (~Q(scope="plan") & Q(plan__isnull=True, organization__isnull=False)),
                name="quota_organization_unless_plan",
            ),
            models.CheckConstraint(
                condition=Q(raised_to__isnull=True, raised_until__isnull=True)
                | Q(raised_to__gt=F("limit"), raised_until__isnull=False),
                name="quota_raised_above_limit",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.metric} {self.limit}"

    def limit_at(self, at: datetime) -> Decimal:
        """What is allowed at ``at``: the limit, or what it is raised to."""
        raised = self.raised_until is not None and at < self.raised_until
        limit: Decimal = self.raised_to if raised else self.limit
        return limit


class Budget(models.Model):
    """The counter of one budget in one period, or of an organization's wallet.

    ``spent`` is settled, ``held`` is leased to workers. ``spent + held <= limit`` holds for every
    grant, checked by the one UPDATE that grants (``billing.leases``). A null ``limit`` is counted but
    not enforced. Until ``raised_until`` the limit is ``raised_to``; what was spent by then stays spent.
    ``opening`` is what had been spent in the period before this counter was made.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="budgets")
    # Null: the organization's wallet.
    quota = models.ForeignKey(Quota, null=True, on_delete=models.CASCADE, related_name="budgets")
    # The end user, where the quota is a default for each end user.
    subject = models.CharField(max_length=256, blank=True)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField(null=True)
    limit = money_field(null=True)
    raised_to = money_field(null=True)
    raised_until = models.DateTimeField(null=True)
    spent = money_field(default=0)
    held = money_field(default=0)
    opening = money_field(default=0)

    objects: ClassVar[models.Manager[Budget]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "quota", "subject", "period_start"],
                nulls_distinct=False,
                name="budget_once_a_period",
            ),
            models.CheckConstraint(condition=Q(held__gte=0), name="budget_held_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.quota or 'wallet'} from {self.period_start:%Y-%m-%d}"

    def limit_at(self, at: datetime) -> Decimal | None:
        """What may be spent at ``at``; None: it is only counted."""
        raised = self.raised_until is not None and at < self.raised_until
        limit: Decimal | None = self.raised_to if raised else self.limit
        return limit


class Lease(models.Model):
    """The part of a budget that one worker may spend without asking. ``budget.held`` is the sum of these."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="leases")
    worker = models.UUIDField()
    remaining = money_field(default=0)
    updated_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Lease]] = owned_by("budget__organization")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["budget", "worker"], name="lease_once")]
        indexes = [models.Index(F("worker"), name="lease_by_worker")]

    def __str__(self) -> str:
        return f"{self.remaining} of {self.budget}"
