"""What usage costs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.db import models
from django.db.models import Q, Value

from billing.money import money_field
from billing.price_terms import COLUMNS, rates_of
from billing.pricing import CLASSES, Rates
from routing.models import Deployment, ModelGroup
from tenants.models import Organization


def _not_negative(name: str) -> Q:
    return Q(**{f"{name}__isnull": True}) | Q(**{f"{name}__gte": 0})


def _all_not_negative() -> Q:
    found = Q()
    for name in (*CLASSES, "minimum"):
        found &= _not_negative(name)
    return found


def _rate() -> models.DecimalField[Any, Any]:
    return money_field(null=True, blank=True)


class Price(models.Model):
    """US dollars for each class of usage, of a deployment (what its provider asks) or of a model group
    (what tenants pay, or one organization), from a moment on.

    Tokens and characters are priced by the million; images, seconds, searches and requests one by one
    (`billing.pricing.CLASSES`). A row is never changed: a new price is a new row, so each usage event
    can name the row it was priced by. A row without any rate ends a price. `billing.price_terms` tells
    the shape of ``tiers`` and ``peaks``.
    """

    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.CASCADE, related_name="prices")
    model_group = models.ForeignKey(ModelGroup, null=True, on_delete=models.CASCADE, related_name="prices")
    # The one organization that pays this for the model group; null: all.
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="prices"
    )
    effective_from = models.DateTimeField()
    input = _rate()
    cached_input = _rate()
    cache_write = _rate()
    cache_write_1h = _rate()
    output = _rate()
    reasoning = _rate()
    audio_input = _rate()
    audio_output = _rate()
    image_input = _rate()
    image_output = _rate()
    image = _rate()
    second = _rate()
    character = _rate()
    search = _rate()
    request = _rate()
    # The least that a request is charged.
    minimum = _rate()
    tiers = models.JSONField(default=list, blank=True, db_default=Value([], models.JSONField()))
    peaks = models.JSONField(default=list, blank=True, db_default=Value([], models.JSONField()))

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(deployment__isnull=True) ^ Q(model_group__isnull=True), name="price_of_one_thing"
            ),
            models.CheckConstraint(
                condition=Q(organization__isnull=True) | Q(model_group__isnull=False),
                name="price_of_organization_and_group",
            ),
            models.CheckConstraint(condition=_all_not_negative(), name="price_not_negative"),
            models.UniqueConstraint(
                fields=["deployment", "model_group", "organization", "effective_from"],
                nulls_distinct=False,
                name="price_once_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        of = self.deployment or self.model_group
        whose = f" for {self.organization}" if self.organization_id else ""
        return f"{of}{whose} from {self.effective_from:%Y-%m-%d}"

    def terms(self) -> dict[str, Any]:
        """What the row says, by the names of ``billing.price_terms.COLUMNS``."""
        return {name: getattr(self, name) for name in COLUMNS}

    @cached_property
    def rates(self) -> Rates:
        """The row as rates; computed once, as a row is never changed."""
        return rates_of(self.pk or 0, self.terms())
