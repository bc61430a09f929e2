"""Files made for a tenant in the background."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now

from billing.money import money_field
from tenants.models import Organization, User, owned_by


class Export(models.Model):
    """One file: what was asked for, how far it is, and what it adds up to once it is there.

    ``filters`` are columns of usage rows with the value each must have. The file lies in
    ``settings.EXPORT_DIR`` under the reference, and goes with the row.
    """

    reference = models.CharField(max_length=32, unique=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    requested_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    requested_at = models.DateTimeField(db_default=Now())
    # usage, focus or report; a report is divided ``by``.
    what = models.CharField(max_length=10)
    by = models.CharField(max_length=50, blank=True)
    format = models.CharField(max_length=5)
    # Days of the organization's calendar, both included.
    first = models.DateField()
    last = models.DateField()
    filters = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))

    # waiting, running, done or failed.
    state = models.CharField(max_length=8, default="waiting", db_default="waiting")
    attempts = models.SmallIntegerField(default=0, db_default=0)
    problem = models.CharField(max_length=300, blank=True, db_default="")
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    # Requests the file is about: how many there are, and how many it holds.
    expected = models.BigIntegerField(default=0, db_default=0)
    requests = models.BigIntegerField(default=0, db_default=0)
    rows = models.BigIntegerField(default=0, db_default=0)
    size = models.BigIntegerField(default=0, db_default=0)
    sha256 = models.CharField(max_length=64, blank=True, db_default="")
    # The sum of the file; the figure of the books for the same time; whose figure: ledger or report.
    charge = money_field(null=True)
    control = money_field(null=True)
    control_of = models.CharField(max_length=6, blank=True, db_default="")
    # Why the two differ; empty where they do not.
    note = models.CharField(max_length=300, blank=True, db_default="")

    objects: ClassVar[models.Manager[Export]] = owned_by("organization")

    class Meta:
        indexes = [
            models.Index(fields=["organization", "requested_at"], name="export_by_organization"),
            models.Index(fields=["id"], name="export_to_make", condition=Q(state__in=["waiting", "running"])),
        ]

    def __str__(self) -> str:
        return f"{self.what} {self.first} to {self.last}"

    @property
    def share(self) -> int:
        """How much of it is made, in percent; never 100 before it is done."""
        if self.state == "done":
            return 100
        return min(99, self.requests * 100 // self.expected) if self.expected else 0

    @property
    def agrees(self) -> bool:
        """Whether its sum is that of the books."""
        return self.charge is not None and self.charge == self.control
