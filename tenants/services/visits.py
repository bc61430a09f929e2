"""Visits: operators in a tenant's pages, for a reason, for a while, in the tenant's audit log."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from tenants.models import Membership, Organization, User, Visit
from tenants.services import audit, rows

LONGEST = timedelta(minutes=60)


class VisitError(ValueError):
    """A visit that cannot be; the message says why."""


@transaction.atomic
def start_visit(*, acting_user: User, organization: Organization, reason: str, length: timedelta) -> Visit:
    """Let the operator ``acting_user`` read the pages of ``organization`` for ``length``, at most an hour.

    A visit that is still open ends first. Raises ``VisitError``, ``InvalidRow``.
    """
    if not acting_user.is_staff:
        raise VisitError("Only operators visit organizations.")
    if not reason.strip():
        raise VisitError("reason: say why; the organization reads it in its audit log.")
    if not timedelta(0) < length <= LONGEST:
        raise VisitError(f"minutes: between 1 and {LONGEST // timedelta(minutes=1)}.")
    locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if locked.suspended_at is not None:
        raise VisitError("It is suspended, so its pages do not exist. Resume it first.")
    if Membership.objects.filter(organization=locked, user=acting_user).exists():
        raise VisitError("You are a member of it and need no visit.")
    now = timezone.now()
    _end(acting_user, Visit.objects.filter(organization=locked, operator=acting_user), now)
    visit = Visit(
        organization=locked,
        operator=acting_user,
        reason=reason.strip(),
        started_at=now,
        ends_at=now + length,
    )
    rows.check(visit)
    visit.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="started",
        target=visit,
        organization=locked,
        detail={"reason": visit.reason, "until": visit.ends_at},
    )
    return visit


@transaction.atomic
def end_visit(*, acting_user: User, organization: Organization) -> bool:
    """End the visit of ``acting_user`` to ``organization``; whether one was open."""
    visits = Visit.objects.filter(organization=organization, operator=acting_user)
    return _end(acting_user, visits, timezone.now())


@transaction.atomic
def close_visits(at: datetime) -> int:
    """Write down the end of each visit whose time was over at ``at``; how many there were."""
    return sum(_end(None, Visit.objects.filter(pk=visit), at) for visit in _overdue(at))


def _overdue(at: datetime) -> list[int]:
    return list(Visit.objects.filter(ended_at__isnull=True, ends_at__lte=at).values_list("pk", flat=True))


def _end(acting_user: User | None, visits: QuerySet[Visit], at: datetime) -> bool:
    """End the open one of ``visits``, at the latest when its time is over."""
    visit = (
        visits.select_for_update(of=("self",))
        .select_related("operator", "organization")
        .filter(ended_at__isnull=True)
        .first()
    )
    if visit is None:
        return False
    visit.ended_at = min(at, visit.ends_at)
    visit.save(update_fields=["ended_at"])
    audit.record(
        acting_user=acting_user,
        verb="ended",
        target=visit,
        organization=visit.organization,
        detail={"started": visit.started_at, "ended": visit.ended_at},
    )
    return True
