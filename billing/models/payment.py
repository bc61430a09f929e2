"""How money gets into a wallet without an operator: checkouts, and codes."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from billing.models.ledger import LedgerTransaction
from billing.money import money_field
from tenants.models import Organization, User, owned_by


class Checkout(models.Model):
    """A payment that a customer began at a payment provider; the posting is there once it is paid."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    reference = models.CharField(max_length=40, unique=True)
    provider = models.CharField(max_length=20)
    # The provider's id and page; empty until it answered.
    session = models.CharField(max_length=100, blank=True)
    url = models.TextField(blank=True)
    amount = money_field()
    started_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    started_at = models.DateTimeField(db_default=Now())
    posting = models.OneToOneField(
        LedgerTransaction, null=True, on_delete=models.PROTECT, related_name="checkout"
    )

    objects: ClassVar[models.Manager[Checkout]] = owned_by("organization")

    def __str__(self) -> str:
        return f"{self.provider} {self.reference}"


class RedeemableCode(models.Model):
    """A code worth ``amount`` US dollars, once, to the organization that redeems it. Of the code itself
    only a keyed digest is stored; it belongs to the platform until then."""

    digest = models.CharField(max_length=64, unique=True)
    last_four = models.CharField(max_length=4)
    amount = money_field()
    memo = models.CharField(max_length=200, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    made_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    made_at = models.DateTimeField(db_default=Now())
    posting = models.OneToOneField(
        LedgerTransaction, null=True, on_delete=models.PROTECT, related_name="code"
    )

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(amount__gt=0), name="code_worth_something")]

    def __str__(self) -> str:
        return f"…{self.last_four}"
