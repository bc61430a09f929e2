"""What became of the work that Celery does: one row a task."""

from __future__ import annotations

from django.db import models


class TaskRun(models.Model):
    """The last run of a task. A start later than the end: it is running, or was killed in it."""

    name = models.CharField(primary_key=True, max_length=100)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    seconds = models.FloatField(null=True)
    # The kind of error that ended the last run, empty if it succeeded.
    error = models.CharField(max_length=100, blank=True, default="")
    succeeded_at = models.DateTimeField(null=True)
    runs = models.BigIntegerField(default=0)
    failures = models.BigIntegerField(default=0)
    # What the task has done in all its runs, in its own words.
    detail = models.JSONField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
