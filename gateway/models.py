"""What the project itself remembers."""

from __future__ import annotations

from django.db import models


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
