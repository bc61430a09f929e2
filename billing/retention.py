"""Removes from an organization's old requests what its books do not need.

Removed are the attempts, the error's code, the time to the first token, and of the tags what no report adds
up. Everything that is charged, added up or compared stays: the end user's id too, since sums rest on it.
The table itself lets nothing else of an event be changed (migration ``0021``).

Short batches along an index, each a transaction with its own lock timeout, so that neither readers nor the
shipper wait. ``DetailRemoval`` says how far it is; a request that arrives later with an older start moves that
back (``billing.settlement``).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from time import monotonic
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django_scopes import scope

from billing.calendars import BEGINNING, midnight, zone
from billing.models import DetailRemoval
from tenants.models import Organization

# Requests of one transaction.
BATCH = 2_000
# When the task begins each day, by UTC (``gateway.celery``).
BEGINS_AT = time(3, 40)
PATIENCE = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '45s'"
_LAST_OF_BATCH = """
SELECT started_at FROM billing_usageevent
WHERE organization_id = %(organization)s AND started_at >= %(start)s AND started_at < %(limit)s
ORDER BY started_at OFFSET %(batch)s - 1 LIMIT 1
"""
# Of the tags what ``billing.tag_rollups`` sums: a value that it knows under no name of its own is kept as empty,
# which is how it is summed.
_REMOVE = """
UPDATE billing_usageevent AS e
SET attempts = '[]', error_code = '', first_token_ms = NULL, details_removed_at = now(), tags = (
    SELECT coalesce(jsonb_object_agg(tag.key, coalesce(known.value, '')), '{}')
    FROM jsonb_each_text(e.tags) AS tag LEFT JOIN billing_tagvalue known
        ON known.organization_id = e.organization_id AND known.name = tag.key AND known.value = tag.value
    WHERE EXISTS (
        SELECT FROM billing_tagvalue n WHERE n.organization_id = e.organization_id AND n.name = tag.key
    )
)
WHERE organization_id = %(organization)s AND started_at >= %(start)s AND started_at < %(end)s
    AND details_removed_at IS NULL
"""


def kept_days(organization: Organization) -> int | None:
    """For how many days the details of its requests are kept: what it chose, within the platform's
    ``KEEP_DETAILS_DAYS``. None: for ever."""
    wanted = [days for days in (organization.keep_details_days, settings.KEEP_DETAILS_DAYS) if days]
    return min(wanted, default=None)


def first_day_kept(days: int, time_zone: str, now: datetime) -> date:
    """The first day, by the calendar of ``time_zone``, whose requests still have their details at ``now``."""
    return now.astimezone(zone(time_zone)).date() - timedelta(days=days)


def next_removal(now: datetime) -> datetime:
    """When details are removed next."""
    today = datetime.combine(now.astimezone(UTC).date(), BEGINS_AT, tzinfo=UTC)
    return today if today > now else today + timedelta(days=1)


def waiting() -> list[int]:
    """The organizations that do not keep details for ever."""
    found = Organization.objects.order_by("pk")
    if not settings.KEEP_DETAILS_DAYS:
        found = found.filter(keep_details_days__isnull=False)
    return list(found.values_list("pk", flat=True))


def removed_until(organization: Organization) -> datetime | None:
    """Before when requests have no details any more; None if none were ever removed."""
    with scope(organization=organization):
        progress = DetailRemoval.objects.filter(organization=organization)
        found = progress.values_list("done_until", flat=True).first()
    return None if found == BEGINNING else found


def remove_details(organization: Organization, *, now: datetime | None = None, seconds: float = 60) -> bool:
    """Remove the details of requests older than the organization keeps them.

    Works for about ``seconds`` and returns whether all is done; the next call goes on where it ended. Raises
    ``DatabaseError`` if a row is locked for long; what was done before stays done.
    """
    days = kept_days(organization)
    if days is None:
        return True
    first = first_day_kept(days, organization.time_zone, now or datetime.now(tz=UTC))
    limit = midnight(first, organization.time_zone)
    deadline = monotonic() + seconds
    with scope(organization=organization):
        DetailRemoval.objects.get_or_create(organization=organization, defaults={"done_until": BEGINNING})
        while not _remove_batch(organization, limit):
            if monotonic() >= deadline:
                return False
    return True


@transaction.atomic
def _remove_batch(organization: Organization, limit: datetime) -> bool:
    """One batch more; whether it was the last."""
    with connection.cursor() as cursor:
        cursor.execute(PATIENCE)
        # Who inserts an older request waits for this row, and whoever was first is seen by the other.
        progress = DetailRemoval.objects.select_for_update().get(organization=organization)
        if progress.done_until >= limit:
            return True
        parameters: dict[str, Any] = {
            "organization": organization.pk,
            "start": progress.done_until,
            "limit": limit,
            "batch": BATCH,
        }
        cursor.execute(_LAST_OF_BATCH, parameters)
        last = cursor.fetchone()
        end = limit if last is None else last[0] + timedelta(microseconds=1)
        cursor.execute(_REMOVE, {**parameters, "end": end})
        progress.done_until = end
        progress.requests += cursor.rowcount
        progress.save(update_fields=["done_until", "requests"])
        return last is None
