"""What Celery does for the project itself, on the schedule in ``gateway.celery``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from celery import shared_task
from django.conf import settings
from django.db import transaction

from billing.exports import monthly as due_every_month
from billing.models import TaskRun
from billing.tasks import PlatformTask, hand_over
from gateway.models import StoredResponse
from gateway.notifications import monthly, occasions, operators, sending
from gateway.probes import probe_due
from gateway.v1.worker import database_dsn
from tenants.models import Organization
from tenants.services import visits

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


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def close_visits() -> None:
    """Write into the tenants' logs which operators' visits ran out; they were over already."""
    visits.close_visits(datetime.now(UTC))


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def notice() -> None:
    """Look for what is worth telling, and queue it."""
    now = datetime.now(UTC)
    occasions.tell([*occasions.budget_alerts(now), *occasions.keys_that_end(now), *occasions.outages(now)])


@shared_task(base=PlatformTask, soft_time_limit=45, time_limit=55)
def tell_operators() -> None:
    """Tell operators which deployments fail; what was told this hour stands in the task's run."""
    operators.tell(datetime.now(UTC))


@shared_task(base=PlatformTask, soft_time_limit=30, time_limit=45)
def deliver_due() -> None:
    """Hand each delivery that is due to a task of its own, so that a slow receiver delays no other."""
    for delivery_id in sending.claim_due(datetime.now(UTC)):
        deliver.delay(delivery_id)


@shared_task(base=PlatformTask, soft_time_limit=45, time_limit=55)
def deliver(delivery_id: int) -> None:
    """One attempt at one delivery."""
    sending.deliver(delivery_id, datetime.now(UTC))


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def send_monthly() -> None:
    """Have made, and mailed once it is there, what organizations get every month."""
    hand_over(send_monthly_of, due_every_month.waiting(datetime.now(UTC)), 50)


@shared_task(base=PlatformTask, soft_time_limit=240, time_limit=270)
def send_monthly_of(organization_id: int) -> None:
    """What one organization gets every month, as far as it is due."""
    organization = Organization.objects.filter(pk=organization_id).first()
    if organization is not None:
        monthly.go_on(organization, datetime.now(UTC))


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def probe() -> None:
    """Ask deployments that are left alone something tiny, so that no customer's request has to.

    What all probes came to so far stands in the task's run.
    """
    tally = asyncio.run(probe_due(settings.REDIS_URL, database_dsn(), settings.PROBE_SECONDS))
    if tally.probes:
        with transaction.atomic():
            run = TaskRun.objects.select_for_update().get(name="probe")
            run.detail = tally.plus(run.detail or {})
            run.save(update_fields=["detail"])
