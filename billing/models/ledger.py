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
        ("grants", "Promotional credit"),  # the part of that which was given, and expires
        ("receivable", "Receivable"),  # what the customer owes us
        ("revenue", "Revenue"),
        ("provider_cost", "Provider cost"),
        ("provider_payable", "Payable to providers"),
        ("cash", "Cash received"),
        ("adjustment", "Adjustments"),
        ("promotion", "Promotional credit given"),
        ("codes", "Redeemed codes"),
    ]


# Minus the sum of these is what the organization has with us: its balance.
CUSTOMER_ACCOUNTS = ("wallet", "grants", "receivable")


class LedgerTransaction(models.Model):
    """Entries that belong together and sum to zero (checked by a deferred trigger)."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=20)  # see ``billing.wallet_lines.KINDS``
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


class Grant(models.Model):
    """Promotional credit: ``amount`` US dollars that pay for usage of the hours from the one it was
    given in until ``expires_at`` (a full hour). What is left of it is the balance of its entries. The
    row is never changed (a trigger)."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    posting = models.OneToOneField(LedgerTransaction, on_delete=models.PROTECT, related_name="grant")
    amount = money_field()
    starts_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    objects: ClassVar[models.Manager[Grant]] = owned_by("organization")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount__gt=0, expires_at__gt=models.F("starts_at")), name="grant_sound"
            )
        ]

    def __str__(self) -> str:
        return f"{self.amount} until {self.expires_at:%Y-%m-%d %H:%M}"


class LedgerEntry(models.Model):
    """One line: a debit (positive) or credit (negative) of an account, in US dollars."""

    transaction = models.ForeignKey(LedgerTransaction, on_delete=models.PROTECT, related_name="entries")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    account = models.CharField(max_length=20, choices=account_choices)
    # On the account "grants": which one.
    grant = models.ForeignKey(Grant, null=True, on_delete=models.PROTECT, related_name="entries")
    amount = money_field()
    currency = models.CharField(max_length=3, default="USD")

    objects: ClassVar[models.Manager[LedgerEntry]] = owned_by("organization")

    class Meta:
        verbose_name_plural = "ledger entries"
        indexes = [models.Index(fields=["organization", "account"], name="ledger_by_account")]

    def __str__(self) -> str:
        return f"{self.account} {self.amount}"


class AccountBalance(models.Model):
    """The sum of an account's entries, kept by a trigger in the transaction that adds them. On the
    account "grants" there is one for each grant."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    account = models.CharField(max_length=20, choices=account_choices)
    grant = models.ForeignKey(Grant, null=True, on_delete=models.CASCADE, related_name="balances")
    currency = models.CharField(max_length=3)
    balance = money_field()

    objects: ClassVar[models.Manager[AccountBalance]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "account", "grant", "currency"],
                nulls_distinct=False,
                name="balance_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.organization} {self.account} {self.balance}"


class ReconcileReport(models.Model):
    """The result of one comparison of events, rollups, ledger and counters."""

    at = models.DateTimeField(db_default=Now())
    balanced = models.BooleanField()
    # [{"organization", "what", "where", "expected", "found"}], amounts as strings.
    differences = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {'balanced' if self.balanced else 'differences'}"
