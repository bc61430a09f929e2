"""Sums of usage by the tags that clients give their requests."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from billing.models.usage import UsageSpan
from billing.money import money_field
from tenants.models import Organization, owned_by


class TagValue(models.Model):
    """A value of a tag that the organization's reports know by itself; ``billing.tag_rollups`` has the bounds."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, db_index=False, related_name="+")
    name = models.CharField(max_length=40)
    value = models.CharField(max_length=100)

    objects: ClassVar[models.Manager[TagValue]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "name", "value"], name="tag_value_once")
        ]

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


class TagRollup(models.Model):
    """The sums of an hour by one tag, team and model group, made with those of ``UsageRollup`` and as they are:
    by the minute while the hour is young. A request counts once under each of its tags, and not at all without.
    """

    hour = models.DateTimeField()
    # From 0; null: the whole hour.
    minute = models.SmallIntegerField(null=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, db_index=False, related_name="+")
    name = models.CharField(max_length=40)
    # Empty: any value beyond the bound.
    value = models.CharField(max_length=100, blank=True)
    team_id = models.BigIntegerField()
    model_group = models.CharField(max_length=100, blank=True)
    requests = models.BigIntegerField()
    # Requests answered with a status of 400 or more.
    errors = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    cached_input_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost = money_field()
    charge = money_field()

    objects: ClassVar[models.Manager[TagRollup]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "hour", "minute", "name", "value", "team_id", "model_group"],
                nulls_distinct=False,
                name="tag_rollup_once",
            )
        ]
        indexes = [
            models.Index(fields=["organization", "name", "hour"], name="tag_rollup_by_name"),
            # For the hours in which a value was given.
            models.Index(fields=["organization", "name", "value", "hour"], name="tag_rollup_by_value"),
        ]

    def __str__(self) -> str:
        return f"{self.organization} {self.hour:%Y-%m-%d %H}h {self.name}={self.value}"


class TagSpanSum(models.Model):
    """The sums of a day or month by one tag, team and model group."""

    span = models.ForeignKey(UsageSpan, on_delete=models.CASCADE, db_index=False, related_name="tag_sums")
    name = models.CharField(max_length=40)
    value = models.CharField(max_length=100, blank=True)
    team_id = models.BigIntegerField()
    model_group = models.CharField(max_length=100, blank=True)
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    cached_input_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost = money_field()
    charge = money_field()

    objects: ClassVar[models.Manager[TagSpanSum]] = owned_by("span__organization")

    class Meta:
        indexes = [models.Index(fields=["span", "name"], name="tag_span_sum_by_name")]

    def __str__(self) -> str:
        return f"{self.span} {self.name}={self.value}"
