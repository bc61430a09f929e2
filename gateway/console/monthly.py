"""What comes every month by e-mail, as the page of exports shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Prefetch
from django.utils import timezone

from billing.calendars import period_bounds
from billing.models import Schedule, ScheduleRecipient, ScheduleRun
from billing.services.schedules import set_schedule
from billing.statements.making import SETTLING
from gateway.console.access import TenantRequest
from gateway.notifications.monthly import EXPORTERS, title_of
from tenants.access import TenantAccess
from tenants.models import Membership

WHATS = (("statement", "Statement"), ("usage", "Usage"), ("focus", "FOCUS 1.0"), ("report", "Report"))
FORMATS = (("csv", "CSV"), ("xlsx", "Excel (XLSX)"), ("jsonl", "JSONL"), ("pdf", "PDF"))


@dataclass(frozen=True, slots=True)
class Monthly:
    """A schedule as the page shows it, with what became of it for the newest month."""

    schedule: Schedule
    title: str
    to: list[str]
    latest: ScheduleRun | None


def shown(tenant: TenantAccess, problem: str = "", asked: Any = None) -> dict[str, Any]:
    """What the page needs; ``asked`` is a form that came back with a ``problem``."""
    runs = ScheduleRun.objects.order_by("-month").select_related("export", "statement")
    people = ScheduleRecipient.objects.select_related("membership__user").order_by("membership__user__email")
    schedules = Schedule.objects.order_by("pk").prefetch_related(
        Prefetch("runs", queryset=runs), Prefetch("recipients", queryset=people)
    )
    exporters = Membership.objects.filter(role__in=EXPORTERS).select_related("user").order_by("user__email")
    chosen = set(asked.getlist("to")) if asked else {str(tenant.membership.pk)}
    return {
        "monthly": [
            Monthly(
                schedule,
                f"{title_of(schedule.what, schedule.by)}, {schedule.format.upper()}",
                [each.membership.user.email for each in schedule.recipients.all()],
                next(iter(schedule.runs.all()), None),
            )
            for schedule in schedules
        ],
        "monthly_problem": problem,
        "monthly_next": next_time(tenant.organization.time_zone, timezone.now()),
        "monthly_whats": WHATS,
        "monthly_formats": FORMATS,
        "monthly_people": [(each, str(each.pk) in chosen) for each in exporters],
        "monthly_chosen": {
            "what": asked.get("what", "") if asked else "statement",
            "format": asked.get("format", "") if asked else "pdf",
            "by": asked.get("by", "") if asked else "team",
        },
    }


def next_time(time_zone: str, now: datetime) -> datetime:
    """When the next files are asked for: some hours into the first of the month."""
    _, end = period_bounds("month", now - SETTLING, time_zone)
    return (end or now) + SETTLING


def set_from(request: TenantRequest) -> None:
    """Do what the form of ``request`` says. Raises ``BadSchedule``."""
    wanted = [int(text) for text in request.POST.getlist("to") if text.isascii() and text.isdigit()]
    what = request.POST.get("what", "")
    set_schedule(
        acting_user=request.user,
        organization=request.tenant.organization,
        what=what,
        by=request.POST.get("by", "") if what == "report" else "",
        format=request.POST.get("format", ""),
        recipients=list(Membership.objects.filter(pk__in=wanted).select_related("user")),
    )
