"""What the project itself remembers."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.models import Organization, Team, owned_by


class AppliedObject(models.Model):
    """Something a configuration file created, so that ``apply --prune`` may remove it.

    ``kind`` is a section of the file ("providers", "organizations", "teams", ...), ``name`` the
    object's identity there ("openai", "acme", "acme/search", "acme/search/backend").
    """

    kind = models.CharField(max_length=20)
    name = models.CharField(max_length=300)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="applied_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class StoredResponse(models.Model):
    """A response of ``/v1/responses`` that its organization keeps. The data plane writes and reads it by
    SQL of its own (``gateway.v1.stored``); ``content`` is encrypted with CREDENTIAL_KEYS."""

    id = models.CharField(max_length=64, primary_key=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    # The response it goes on from; empty for none.
    previous_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    content = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)

    objects: ClassVar[models.Manager[StoredResponse]] = owned_by("organization")

    def __str__(self) -> str:
        return self.id
