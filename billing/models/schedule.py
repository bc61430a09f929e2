"""Files that an organization gets anew for each month."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing.models.export import Export
from billing.models.statement import Statement
from tenants.models import Membership, Organization, User, owned_by


class Schedule(models.Model):
    """One file wanted for every month of the organization's calendar, and who is mailed a link to it.

    ``what`` is statement, usage, focus or report; a report is divided ``by``. The first month is the one in
    which the schedule was made.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    what = models.CharField(max_length=10)
    by = models.CharField(max_length=12, blank=True)
    format = models.CharField(max_length=5)
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Schedule]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "what", "by", "format"], name="schedule_once_a_file"
            )
        ]

    def __str__(self) -> str:
        return " ".join(word for word in (self.what, self.by, self.format) if word)


class ScheduleRecipient(models.Model):
    """A member who gets the mail, for as long as they may export."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="recipients")
    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="+")

    objects: ClassVar[models.Manager[ScheduleRecipient]] = owned_by("schedule__organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["schedule", "membership"], name="schedule_recipient_once")
        ]

    def __str__(self) -> str:
        return f"{self.membership} of {self.schedule}"


class ScheduleRun(models.Model):
    """What became of a schedule for one month; there is one for each, so that nothing is mailed twice."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="runs")
    # Its first day.
    month = models.DateField()
    # One of them, once it is asked for or there.
    export = models.ForeignKey(Export, null=True, on_delete=models.SET_NULL, related_name="+")
    statement = models.ForeignKey(Statement, null=True, on_delete=models.PROTECT, related_name="+")
    # making, mailing, sent, failed or nothing.
    state = models.CharField(max_length=8, default="making", db_default="making")
    attempts = models.SmallIntegerField(default=0, db_default=0)
    next_at = models.DateTimeField(db_default=Now())
    # For people; never an address.
    problem = models.CharField(max_length=200, blank=True, db_default="")
    began_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[ScheduleRun]] = owned_by("schedule__organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["schedule", "month"], name="schedule_run_once_a_month")
        ]
        indexes = [
            models.Index(
                fields=["next_at"],
                name="schedule_run_under_way",
                condition=Q(state__in=["making", "mailing"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.schedule} {self.month:%Y-%m}"
