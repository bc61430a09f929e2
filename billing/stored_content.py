"""Requests and answers that organizations have stored: who finds them, and how long they stay."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Sum
from django_scopes import scope

from billing import retention
from billing.calendars import midnight
from billing.models import ContentLoss, RequestContent
from tenants.models import Organization

# Rows of one transaction.
BATCH = 500
_DELETE = """
DELETE FROM billing_requestcontent WHERE id IN (
    SELECT id FROM billing_requestcontent WHERE organization_id = %(organization)s AND started_at < %(limit)s
    ORDER BY started_at LIMIT %(batch)s
)
"""


def kept_days(organization: Organization) -> int:
    """For how many days content is kept: what was chosen for it, and never longer than details."""
    details = retention.kept_days(organization)
    return organization.content_days if details is None else min(organization.content_days, details)


def stored_content(organization: Organization, request_id: str) -> RequestContent | None:
    """What is stored of a request."""
    with scope(organization=organization):
        return RequestContent.objects.filter(organization=organization, request_id=request_id).first()


def is_stored(organization: Organization, request_id: str = "") -> bool:
    """Whether anything is stored of a request, or of any."""
    with scope(organization=organization):
        found = RequestContent.objects.filter(organization=organization)
        return (found.filter(request_id=request_id) if request_id else found).exists()


def lost_since(organization: Organization, since: datetime) -> int:
    """How many requests since the day (UTC) of ``since`` should have been stored and were not."""
    with scope(organization=organization):
        found = ContentLoss.objects.filter(organization=organization, day__gte=since.astimezone(UTC).date())
        return found.aggregate(all=Sum("requests"))["all"] or 0


def waiting() -> list[int]:
    """The organizations of which anything is stored. To be called outside of scopes."""
    stored = RequestContent.objects.filter(organization=OuterRef("pk"))
    return list(Organization.objects.filter(Exists(stored)).order_by("pk").values_list("pk", flat=True))


def remove_content(organization: Organization, *, now: datetime | None = None, seconds: float = 60) -> bool:
    """Remove what is stored of requests before the days it is kept.

    Works for about ``seconds`` and returns whether all is done.
    """
    first = retention.first_day_kept(
        kept_days(organization), organization.time_zone, now or datetime.now(tz=UTC)
    )
    parameters: dict[str, Any] = {
        "organization": organization.pk,
        "limit": midnight(first, organization.time_zone),
        "batch": BATCH,
    }
    deadline = time.monotonic() + seconds
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(retention.PATIENCE)
            cursor.execute(_DELETE, parameters)
            if cursor.rowcount < BATCH:
                return True
        if time.monotonic() >= deadline:
            return False
