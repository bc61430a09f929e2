"""The files that come every month: which are due, asking for them, and looking whether they are there.

Each schedule has one run a month, made in the transaction that asks for the file; so however often and on
however many workers this looks, a month's file is asked for once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import cast

from django.db import transaction
from django_scopes import scope

from billing.calendars import period_bounds, zone
from billing.exports.sheets import Format
from billing.models import Schedule, ScheduleRun, Statement
from billing.services.exports import TooMany, What, request_export
from billing.statements.making import SETTLING
from tenants.models import Organization

# A month whose statement is not there this long after its end has none.
NO_STATEMENT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Month:
    """A month of an organization's calendar: its days, both included, and its end in UTC."""

    first: date
    last: date
    end: datetime


def last_month(organization: Organization, now: datetime) -> Month:
    """The newest month of ``organization`` whose usage is in at ``now``."""
    end, _ = period_bounds("month", now - SETTLING, organization.time_zone)
    last = (end - timedelta(microseconds=1)).astimezone(zone(organization.time_zone)).date()
    return Month(last.replace(day=1), last, end)


def waiting(now: datetime) -> list[int]:
    """The ids of organizations that have a file to be asked for, looked after or mailed."""
    found: set[int] = set()
    for schedule in Schedule.objects.filter(organization__suspended_at__isnull=True).select_related(
        "organization"
    ):
        if schedule.organization_id in found:
            continue
        month = last_month(schedule.organization, now)
        due = schedule.created_at < month.end
        runs = ScheduleRun.objects.filter(schedule=schedule)
        if (due and not runs.filter(month=month.first).exists()) or runs.filter(
            state__in=("making", "mailing"), next_at__lte=now
        ).exists():
            found.add(schedule.organization_id)
    return sorted(found)


def begin_due(organization: Organization, now: datetime) -> int:
    """Ask for every file of ``organization`` that is due and not asked for; returns how many. What meets too
    many others waits for the next look."""
    month, begun = last_month(organization, now), 0
    with scope(organization=organization):
        schedules = list(
            Schedule.objects.filter(created_at__lt=month.end).exclude(runs__month=month.first).order_by("pk")
        )
        for schedule in schedules:
            try:
                begun += _begin(organization, schedule, month, now)
            except TooMany:
                break
    return begun


@transaction.atomic
def _begin(organization: Organization, schedule: Schedule, month: Month, now: datetime) -> bool:
    """Make the run of a month, and ask for its file; False where another worker did, or it is removed."""
    if not Schedule.objects.select_for_update().filter(pk=schedule.pk).exists():
        return False
    run, made = ScheduleRun.objects.get_or_create(
        schedule=schedule, month=month.first, defaults={"next_at": now}
    )
    if not made:
        return False
    if schedule.what != "statement":
        run.export = request_export(
            acting_user=None,
            organization=organization,
            what=cast(What, schedule.what),
            by=schedule.by,
            format=cast(Format, schedule.format),
            first=month.first,
            last=month.last,
        )
        run.save(update_fields=["export"])
    return True


def look_after(organization: Organization, now: datetime) -> None:
    """Move on the runs of ``organization`` whose file is there, or will never be."""
    with scope(organization=organization):
        for run in ScheduleRun.objects.filter(state="making").select_related("schedule", "export"):
            changes = _of_statement(run, now) if run.schedule.what == "statement" else _of_export(run)
            if changes:
                ScheduleRun.objects.filter(pk=run.pk, state="making").update(**changes)


def _of_export(run: ScheduleRun) -> dict[str, object]:
    if run.export is None:
        return {"state": "failed", "problem": "The file was removed before it was sent."}
    if run.export.state == "failed":
        return {"state": "failed", "problem": run.export.problem or "The file could not be made."}
    return {"state": "mailing"} if run.export.state == "done" else {}


def _of_statement(run: ScheduleRun, now: datetime) -> dict[str, object]:
    statement = Statement.objects.filter(organization=run.schedule.organization_id, month=run.month).first()
    if statement is not None:
        return {"state": "mailing", "statement": statement}
    if now - run.began_at >= NO_STATEMENT:
        return {"state": "nothing", "problem": "Nothing was posted in this month, so it has no statement."}
    return {}
