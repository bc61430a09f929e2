"""What Celery does for the project itself, on the schedule in ``gateway.celery``."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from billing.tasks import PlatformTask
from gateway.models import StoredResponse

# Rows deleted in one statement.
BATCH = 5_000


@shared_task(base=PlatformTask, soft_time_limit=300, time_limit=330)
def delete_expired_responses() -> None:
    """Delete kept responses whose time is over; nobody could read them any more."""
    while True:
        expired = StoredResponse.objects.filter(expires_at__lte=datetime.now(tz=UTC))
        ids = list(expired.values_list("pk", flat=True)[:BATCH])
        StoredResponse.objects.filter(pk__in=ids).delete()
        if len(ids) < BATCH:
            return
