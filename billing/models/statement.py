"""Monthly statements: locked once made. PostgreSQL refuses to change or delete them (a trigger)."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from billing.models.ledger import LedgerTransaction
from billing.money import EXACT, money_field, rounded
from tenants.models import Organization, owned_by


class Statement(models.Model):
    """What happened on an organization's account in a month, by the calendar of its time zone.

    ``opening`` is the ``closing`` of the one before; the lines add up to the difference (a deferred
    trigger). Names are those of the day it was made, so that a document never changes.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    # WEIR-2026-10-0001: without gaps over the platform, for each month.
    number = models.CharField(max_length=40, unique=True)
    # The first day of the month it ends with.
    month = models.DateField()
    # From the end of the statement before, so that a month without postings leaves no gap.
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    time_zone = models.CharField(max_length=64)
    issuer = models.TextField()
    customer = models.CharField(max_length=200)
    opening = money_field()
    closing = money_field()
    currency = models.CharField(max_length=3, default="USD")
    # In which it is invoiced, and how much of that one US dollar was when it was made; null: US dollars.
    shown_currency = models.CharField(max_length=3, default="USD", db_default="USD")
    rate = models.DecimalField(max_digits=24, decimal_places=12, null=True)
    # The currency it should have been invoiced in, had there been a rate; empty: the one it is in.
    missed_currency = models.CharField(max_length=3, blank=True, default="", db_default="")
    made_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Statement]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "month"], name="statement_once_a_month")
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def invoiced(self) -> Decimal:
        """The closing balance without its sign, in the currency it is invoiced in."""
        return abs(self.shown(self.closing))

    def shown(self, amount: Decimal) -> Decimal:
        """``amount`` (US dollars) in the currency it is invoiced in, rounded once to twelve places."""
        return amount if self.rate is None else rounded(EXACT.multiply(amount, self.rate))


class StatementLine(models.Model):
    """One line; ``amount`` is what it did to the balance, so usage is negative."""

    statement = models.ForeignKey(Statement, on_delete=models.PROTECT, related_name="lines")
    position = models.IntegerField()
    # usage, or the kind of the posting (``billing.wallet_lines.KINDS``).
    kind = models.CharField(max_length=20)
    # The statement whose month this usage belongs to, where it came too late for that one.
    corrects = models.ForeignKey(Statement, null=True, on_delete=models.PROTECT, related_name="corrections")
    team_id = models.BigIntegerField(null=True)
    team = models.CharField(max_length=200, blank=True)
    model_group = models.CharField(max_length=100, blank=True)
    requests = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)
    # Of a posting that is not usage: when, and what for.
    posted_at = models.DateTimeField(null=True)
    description = models.CharField(max_length=430, blank=True)
    amount = money_field()

    objects: ClassVar[models.Manager[StatementLine]] = owned_by("statement__organization")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["statement", "position"], name="statement_line_once")]

    def __str__(self) -> str:
        return f"{self.statement} {self.position}"


class StatementPosting(models.Model):
    """A ledger transaction that a statement accounts for; each is in one statement at most."""

    statement = models.ForeignKey(Statement, on_delete=models.PROTECT, related_name="postings")
    posting = models.OneToOneField(LedgerTransaction, on_delete=models.PROTECT, related_name="statement")

    objects: ClassVar[models.Manager[StatementPosting]] = owned_by("statement__organization")

    def __str__(self) -> str:
        return f"{self.statement} {self.posting}"


class StatementNumber(models.Model):
    """The last number given out for a month's statements, over the whole platform."""

    month = models.DateField(unique=True)
    last = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.month:%Y-%m} {self.last}"
