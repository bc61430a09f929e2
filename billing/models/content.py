"""What was asked and answered, of organizations that have it stored."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from tenants.models import Organization, owned_by


class RequestContent(models.Model):
    """The body of one request and of its answer, cut and encrypted (``billing.request_content``).

    The data plane writes it by SQL of its own (``gateway.v1.content_log``), never in the way of a request.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, db_index=False, related_name="+")
    request_id = models.CharField(max_length=40)
    # Of the request, as its usage event has it.
    started_at = models.DateTimeField()
    content = models.BinaryField()

    objects: ClassVar[models.Manager[RequestContent]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "request_id"], name="content_of_a_request_once")
        ]
        indexes = [models.Index(fields=["organization", "started_at"], name="content_by_time")]

    def __str__(self) -> str:
        return self.request_id


class ContentLoss(models.Model):
    """How many requests of a day (UTC) should have been stored and were not, since nothing waits for it."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, db_index=False, related_name="+")
    day = models.DateField()
    requests = models.BigIntegerField()

    objects: ClassVar[models.Manager[ContentLoss]] = owned_by("organization")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "day"], name="content_loss_of_a_day")]

    def __str__(self) -> str:
        return f"{self.organization} {self.day}"
