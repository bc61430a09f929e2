"""The customer's own users, as far as anything is kept of them beside their usage."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.models import Organization, User, owned_by

# Of an end user's id, as the data plane keeps it (``gateway.v1.facts.MAX_END_USER``).
LONGEST_ID = 256


class BlockedEndUser(models.Model):
    """An end user of an organization whose requests are refused; unblocking removes the row.

    ``end_user`` is the id that requests name. Workers hold all of them (``gateway.v1.blocking``).
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, db_index=False, related_name="blocked_end_users"
    )
    end_user = models.CharField(max_length=LONGEST_ID)
    # For the organization's own people; callers are not told.
    reason = models.CharField(max_length=200, blank=True)
    # Null where the block came from the command line, or from somebody who is gone.
    blocked_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    blocked_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[BlockedEndUser]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "end_user"], name="end_user_blocked_once"),
            models.CheckConstraint(condition=~models.Q(end_user=""), name="blocked_end_user_has_an_id"),
        ]

    def __str__(self) -> str:
        return self.end_user
