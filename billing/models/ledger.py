"""The double-entry ledger. PostgreSQL refuses to change or delete its rows (a trigger)."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from billing.money import money_field
from tenants.models import Organization, User, owned_by


def account_choices() -> list[tuple[str, str]]:
    """The accounts of an organization's books."""
    return [
        ("wallet", "Customer wallet"),  # what we owe the customer: credit is money they have with us
        ("revenue", "Revenue"),
        ("provider_cost", "Provider cost"),
        ("provider_payable", "Payable to providers"),
        ("cash", "Cash received"),
        ("adjustment", "Adjustments"),
    ]


class LedgerTransaction(models.Model):
    """Entries that belong together and sum to zero (checked by a deferred trigger)."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=20)  # usage, top_up, adjustment
    # Posting the same thing twice is refused by this.
    reference = models.CharField(max_length=120, unique=True)
    memo = models.CharField(max_length=300, blank=True)
    # The hour of usage that a posting is for; null for other kinds.
    usage_hour = models.DateTimeField(null=True)
    actor = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    posted_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[LedgerTransaction]] = owned_by("organization")

    class Meta:
        indexes = [models.Index(fields=["organization", "usage_hour"], name="ledger_by_hour")]

    def __str__(self) -> str:
        return self.reference


class LedgerEntry(models.Model):
    """One line: a debit (positive) or credit (negative) of an account, in US dollars."""

    transaction = models.ForeignKey(LedgerTransaction, on_delete=models.PROTECT, related_name="entries")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    account = models.CharField(max_length=20, choices=account_choices)
    amount = money_field()
    currency = models.CharField(max_length=3, default="USD")

    objects: ClassVar[models.Manager[LedgerEntry]] = owned_by("organization")

    class Meta:
        verbose_name_plural = "ledger entries"
        indexes = [models.Index(fields=["organization", "account"], name="ledger_by_account")]

    def __str__(self) -> str:
        return f"{self.account} {self.amount}"


class ReconcileReport(models.Model):
    """The result of one comparison of events, rollups, ledger and counters."""

    at = models.DateTimeField(db_default=Now())
    balanced = models.BooleanField()
    # [{"organization", "what", "where", "expected", "found"}], amounts as strings.
    differences = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {'balanced' if self.balanced else 'differences'}"
