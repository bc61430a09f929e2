"""What was used: one row a request, and its sums by the hour."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Value
from django.db.models.functions import Now

from billing.money import money_field
from billing.token_usage import TokenUsage
from tenants.models import Organization, owned_by


class UsageEvent(models.Model):
    """One request. The table is partitioned by month of ``started_at``; rows are inserted once and
    never changed, but that an organization may have details removed from old ones (``billing.retention``).

    Foreign keys are plain numbers: an event outlives what it names. Token classes are disjoint
    (``input_tokens`` excludes cached and cache-write tokens); ``reasoning_tokens`` is part of
    ``output_tokens``. ``cost`` is what the provider asks, ``charge`` what the tenant pays, in US dollars.
    """

    pk = models.CompositePrimaryKey("started_at", "request_id")
    request_id = models.CharField(max_length=40)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    team_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    # The key owner's membership; null where the key has no owner.
    member_id = models.BigIntegerField(null=True)
    end_user = models.CharField(max_length=256, blank=True)
    model_group = models.CharField(max_length=100, blank=True)
    # What answered (or was tried last); empty where nothing was tried.
    deployment = models.CharField(max_length=100, blank=True)
    provider = models.CharField(max_length=100, blank=True)
    provider_model = models.CharField(max_length=200, blank=True)
    endpoint = models.CharField(max_length=40)
    streamed = models.BooleanField()
    # The HTTP status the client saw; 499: the client went away first.
    status = models.SmallIntegerField()
    end_reason = models.CharField(max_length=24)
    error_code = models.CharField(max_length=64, blank=True)
    # [{deployment, provider, status, reason, started_ms, first_token_ms, duration_ms}] in order of trying.
    attempts = models.JSONField(default=list)
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    # Rarer classes, none of them within the counts above: {class: exact decimal as a string}, see
    # billing.token_usage.QUANTITIES.
    quantities = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    # reported, counted, estimated or none.
    usage_source = models.CharField(max_length=10)
    cost = money_field()
    charge = money_field()
    cost_price_id = models.BigIntegerField(null=True)
    charge_price_id = models.BigIntegerField(null=True)
    markup = models.DecimalField(max_digits=9, decimal_places=6, default=0)
    # The counters (billing.Budget) this request was charged to.
    budget_ids = ArrayField(models.BigIntegerField(), default=list)
    first_token_ms = models.IntegerField(null=True)
    duration_ms = models.IntegerField()
    tags = models.JSONField(default=dict)
    # Since when attempts, error code, time to the first token and some tags are gone.
    details_removed_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[UsageEvent]] = owned_by("organization")

    def __str__(self) -> str:
        return self.request_id

    @property
    def usage(self) -> TokenUsage:
        """What was used, as it was charged."""
        return TokenUsage(
            self.input_tokens,
            self.cached_input_tokens,
            self.cache_write_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.usage_source,
            {name: Decimal(amount) for name, amount in self.quantities.items()},
        )


class UsageRollup(models.Model):
    """The sums of an hour, by everything a report can ask for. Recomputed as a whole, never added to.

    While an hour is young, its rows are sums of its minutes, so that what a request changes stays small;
    the sum over the rows of the hour is right at any time.
    """

    hour = models.DateTimeField()
    # From 0; null: the whole hour.
    minute = models.SmallIntegerField(null=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, db_index=False, related_name="+")
    team_id = models.BigIntegerField()
    member_id = models.BigIntegerField(null=True)
    key_id = models.BigIntegerField()
    end_user = models.CharField(max_length=256, blank=True)
    model_group = models.CharField(max_length=100, blank=True)
    deployment = models.CharField(max_length=100, blank=True)
    requests = models.BigIntegerField()
    # Requests answered with a status of 400 or more.
    errors = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    cached_input_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    # The sums of the events' quantities, as they have them.
    quantities = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    cost = money_field()
    charge = money_field()

    objects: ClassVar[models.Manager[UsageRollup]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "organization",
                    "hour",
                    "minute",
                    "team_id",
                    "member_id",
                    "key_id",
                    "end_user",
                    "model_group",
                    "deployment",
                ],
                nulls_distinct=False,
                name="rollup_once",
            )
        ]
        indexes = [
            # For what one key or one end user used, divided otherwise: no day or month has that summed.
            models.Index(fields=["organization", "key_id", "hour"], name="rollup_by_key"),
            models.Index(
                fields=["organization", "end_user", "hour"],
                name="rollup_by_end_user",
                condition=~models.Q(end_user=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization} {self.hour:%Y-%m-%d %H}h"


class UsageSpan(models.Model):
    """A day or month of the organization's calendar whose sums are kept (``billing.spans``)."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, db_index=False, related_name="+")
    kind = models.CharField(max_length=5)
    start = models.DateTimeField()
    end = models.DateTimeField()
    # The sums hold what began in [start, until), unless an hour changed since: then not ``fresh``.
    until = models.DateTimeField()
    fresh = models.BooleanField()
    # Up to where the sums by tag go (``billing.tag_spans``); they hold if that is ``until``.
    tagged_until = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[UsageSpan]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "kind", "start", "end"], name="span_once")
        ]

    def __str__(self) -> str:
        return f"{self.organization} {self.kind} from {self.start:%Y-%m-%d %H}h"


class UsageSpanSum(models.Model):
    """The sums of a span by the columns of one slice; the other columns are null or empty."""

    span = models.ForeignKey(UsageSpan, on_delete=models.CASCADE, db_index=False, related_name="sums")
    slice = models.CharField(max_length=5)
    team_id = models.BigIntegerField(null=True)
    member_id = models.BigIntegerField(null=True)
    key_id = models.BigIntegerField(null=True)
    end_user = models.CharField(max_length=256, db_default="")
    model_group = models.CharField(max_length=100, db_default="")
    deployment = models.CharField(max_length=100, db_default="")
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    cached_input_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost = money_field()
    charge = money_field()

    objects: ClassVar[models.Manager[UsageSpanSum]] = owned_by("span__organization")

    class Meta:
        indexes = [
            models.Index(fields=["span", "slice"], name="span_sum_by_slice"),
            # For the days of a few of thousands of end users.
            models.Index(
                fields=["span", "end_user"], name="span_sum_by_end_user", condition=models.Q(slice="user")
            ),
            # A member's and a key's requests for no end user are among thousands of those.
            models.Index(
                fields=["span", "member_id", "key_id"],
                name="span_sum_unnamed",
                condition=models.Q(slice="user", end_user=""),
            ),
            # The same of a few keys or members.
            models.Index(fields=["span", "key_id"], name="span_sum_by_key", condition=models.Q(slice="key")),
            models.Index(
                fields=["span", "member_id"], name="span_sum_by_member", condition=models.Q(slice="key")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.span} by {self.slice}"


class DirtyBucket(models.Model):
    """An hour of an organization whose rollups no longer match its events.

    Marks are only ever added, and removed by the transaction that recomputes, so shippers and
    the recomputation do not wait for each other.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    hour = models.DateTimeField()
    # From 0; null: any of them.
    minute = models.SmallIntegerField(null=True)
    marked_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[DirtyBucket]] = owned_by("organization")

    def __str__(self) -> str:
        return f"{self.organization} {self.hour:%Y-%m-%d %H}h"


class DeadLetter(models.Model):
    """A journal record that could not become a usage event, kept for an operator."""

    record = models.TextField()
    reason = models.CharField(max_length=500)
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.reason
