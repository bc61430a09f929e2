"""What Celery does for billing, on the schedule in ``gateway.celery``. Each task may run twice, late
or beside itself without harm."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from celery import Task, shared_task
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django_scopes import scopes_disabled

from billing import ledger, partitions, reconcile, retention, rollups, spans, stored_content
from billing.exports import making as exports
from billing.models import TaskRun
from billing.services import grants
from billing.statements import making
from tenants.models import Organization

logger = logging.getLogger(__name__)
# Seconds; the next day's message goes on where one ended.
DETAILS_EXPIRE = 20 * 3600


class PlatformTask(Task):  # type: ignore[type-arg]  # at run time it takes none
    """Work across all tenants, which is the one reason to leave their scopes. What became of it is
    kept as a TaskRun."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run with tenant scopes disabled."""
        name = self.name.rpartition(".")[2]
        began = datetime.now(tz=UTC)
        TaskRun.objects.update_or_create(
            name=name, defaults={"started_at": began}, create_defaults={"name": name, "started_at": began}
        )
        error = ""
        try:
            with scopes_disabled():
                return super().__call__(*args, **kwargs)
        except Exception as raised:
            error = type(raised).__name__
            raise
        finally:
            _ended(name, began, error)


def _ended(name: str, began: datetime, error: str) -> None:
    now = datetime.now(tz=UTC)
    changes: dict[str, Any] = {"succeeded_at": now} if not error else {"failures": F("failures") + 1}
    try:
        TaskRun.objects.filter(name=name).update(
            ended_at=now,
            seconds=(now - began).total_seconds(),
            error=error,
            runs=F("runs") + 1,
            **changes,
        )
    except DatabaseError:
        # What the task itself raised says more.
        logger.warning("The end of task %s could not be recorded.", name)


def hand_over(task: Task, organization_ids: Iterable[int], expires: int) -> None:  # type: ignore[type-arg]  # as above
    """A message of its own for each organization, so that one that is stuck delays no other. It is void after
    ``expires`` seconds, when the next one is under way."""
    for organization_id in organization_ids:
        task.apply_async((organization_id,), expires=expires)


@shared_task(base=PlatformTask, soft_time_limit=30, time_limit=45)
def refresh_rollups() -> None:
    """Have the hours that changed recomputed."""
    hand_over(refresh_rollups_of, rollups.waiting(), 10)


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def refresh_rollups_of(organization_id: int) -> None:
    """Recompute the organization's hours that changed."""
    rollups.refresh(organization_id=organization_id)


@shared_task(base=PlatformTask, soft_time_limit=30, time_limit=45)
def refresh_spans() -> None:
    """Have the days and months summed whose hours changed."""
    hand_over(refresh_spans_of, spans.waiting(), 50)


@shared_task(base=PlatformTask, soft_time_limit=240, time_limit=270)
def refresh_spans_of(organization_id: int) -> None:
    """Sum the organization's days and months whose hours changed."""
    spans.refresh(organization_id=organization_id)


@shared_task(base=PlatformTask, soft_time_limit=30, time_limit=45)
def post_usage() -> None:
    """Have posted to the ledger what the rollups gained."""
    hand_over(post_usage_of, ledger.waiting(), 30)


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def post_usage_of(organization_id: int) -> None:
    """Post to the ledger what the organization's rollups gained."""
    ledger.post_usage_of(organization_id)


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def expire_grants() -> None:
    """Take back what is left of promotional credit that ended."""
    grants.expire_grants()


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def make_statements() -> None:
    """Have the statements made and locked of months that are over."""
    hand_over(make_statements_of, Organization.objects.order_by("pk").values_list("pk", flat=True), 3000)


@shared_task(base=PlatformTask, soft_time_limit=1800, time_limit=1860)
def make_statements_of(organization_id: int) -> None:
    """Make and lock the organization's statements of months that are over."""
    organization = Organization.objects.filter(pk=organization_id).first()
    if organization is not None:
        making.make_due_of(organization, datetime.now(tz=UTC))


@shared_task(base=PlatformTask, soft_time_limit=6 * 3600, time_limit=6 * 3600 + 60)
def make_exports() -> None:
    """Make the files that were asked for."""
    exports.make_due()


@shared_task(base=PlatformTask, soft_time_limit=300, time_limit=330)
def remove_expired_exports() -> None:
    """Remove files that can no longer be fetched."""
    exports.remove_expired()


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def ensure_partitions() -> None:
    """Have a partition for this month's events and the next month's."""
    month = datetime.now(tz=UTC)
    with transaction.atomic(), connection.cursor() as cursor:
        for wanted in (month, partitions.after(month)):
            partitions.ensure(cursor, wanted)


@shared_task(base=PlatformTask, soft_time_limit=60, time_limit=90)
def remove_details() -> None:
    """Have the details and contents removed of requests that are older than their organizations keep them."""
    hand_over(remove_details_of, sorted({*retention.waiting(), *stored_content.waiting()}), DETAILS_EXPIRE)


@shared_task(base=PlatformTask, soft_time_limit=240, time_limit=270)
def remove_details_of(organization_id: int) -> None:
    """Remove contents and details of the organization's old requests: for a minute each, and then behind whoever
    waits."""
    organization = Organization.objects.filter(pk=organization_id).first()
    if organization is None:
        return
    done = [stored_content.remove_content(organization), retention.remove_details(organization)]
    if not all(done):
        hand_over(remove_details_of, [organization_id], DETAILS_EXPIRE)


@shared_task(base=PlatformTask, soft_time_limit=1800, time_limit=1860)
def reconcile_books() -> None:
    """Compare everything and keep a report."""
    reconcile.bring_up_to_date()
    comparison = reconcile.compare(settings.WEIR_DATA_DIR / "journal")
    reconcile.record(comparison)
    if comparison.differences:
        logger.error("The books do not balance: %s differences.", len(comparison.differences))
