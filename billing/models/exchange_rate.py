"""What a US dollar is in other currencies."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class ExchangeRate(models.Model):
    """How much of ``currency`` (ISO 4217) one US dollar is, from a moment on. Entered by the operator;
    a row is never changed, a new rate is a new row."""

    currency = models.CharField(max_length=3)
    rate = models.DecimalField(max_digits=24, decimal_places=12)
    effective_from = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(rate__gt=0) & Q(currency__regex="^[A-Z]{3}$") & ~Q(currency="USD"),
                name="exchange_rate_sound",
            ),
            models.UniqueConstraint(
                fields=["currency", "effective_from"], name="exchange_rate_once_at_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rate.normalize():f} {self.currency} from {self.effective_from:%Y-%m-%d}"
