"""What tokens cost."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.money import money_field
from routing.models import Deployment, ModelGroup


class Price(models.Model):
    """US dollars per million tokens, of a deployment (what its provider asks) or of a model group
    (what tenants pay), from a moment on.

    A row is never changed: a new price is a new row, so each usage event can name the row it was
    priced by. A class that is null is charged like ``input`` (an explicit zero is a price).
    """

    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.CASCADE, related_name="prices")
    model_group = models.ForeignKey(ModelGroup, null=True, on_delete=models.CASCADE, related_name="prices")
    effective_from = models.DateTimeField()
    input = money_field(null=True, blank=True)
    cached_input = money_field(null=True, blank=True)
    cache_write = money_field(null=True, blank=True)
    output = money_field(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(deployment__isnull=True) ^ Q(model_group__isnull=True), name="price_of_one_thing"
            ),
            models.CheckConstraint(
                condition=(Q(input__isnull=True) | Q(input__gte=0))
                & (Q(cached_input__isnull=True) | Q(cached_input__gte=0))
                & (Q(cache_write__isnull=True) | Q(cache_write__gte=0))
                & (Q(output__isnull=True) | Q(output__gte=0)),
                name="price_not_negative",
            ),
            models.UniqueConstraint(
                fields=["deployment", "model_group", "effective_from"],
                nulls_distinct=False,
                name="price_once_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.deployment or self.model_group} from {self.effective_from:%Y-%m-%d}"
