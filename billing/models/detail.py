"""How far the details of an organization's old requests are removed."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from tenants.models import Organization, owned_by


class DetailRemoval(models.Model):
    """One row an organization whose details were ever to be removed (``billing.retention``)."""

    organization = models.OneToOneField(
        Organization, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    # Of requests that began before it none has details any more.
    done_until = models.DateTimeField()
    # Requests whose details were removed so far.
    requests = models.BigIntegerField(default=0, db_default=0)

    objects: ClassVar[models.Manager[DetailRemoval]] = owned_by("organization")

    def __str__(self) -> str:
        return f"{self.organization} until {self.done_until:%Y-%m-%d}"
