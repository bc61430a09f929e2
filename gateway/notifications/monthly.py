"""Mailing what comes every month: a link, and the figures to check the file by; never the file itself."""

from __future__ import annotations

import smtplib
from datetime import datetime

from django.conf import settings
from django.core import mail
from django.db import transaction
from django.urls import reverse
from django.utils.timezone import localtime
from django_scopes import scope

from billing.calendars import zone
from billing.exports import monthly
from billing.models import Export, ScheduleRecipient, ScheduleRun, Statement
from billing.money import plain
from gateway.notifications.sending import CLAIM, FIRST_PAUSE, MOST_ATTEMPTS, TIMEOUT_SECONDS, NotSent
from tenants.models import Organization
from tenants.permissions import ROLE_PERMISSIONS, Permission

EXPORTERS = [role.value for role, granted in ROLE_PERMISSIONS.items() if Permission.EXPORT_USAGE in granted]


def title_of(what: str, by: str) -> str:
    """What a file is called."""
    if what == "report":
        return f"Report by {by.replace('_', ' ').replace('member', 'key owner')}"
    return {"statement": "Statement", "usage": "Usage", "focus": "Usage as FOCUS"}[what]


def go_on(organization: Organization, now: datetime) -> None:
    """Do all that is due at ``now`` for what ``organization`` gets every month."""
    monthly.begin_due(organization, now)
    monthly.look_after(organization, now)
    with scope(organization=organization):
        for run in _claimed(now):
            try:
                _mail(organization, run)
            except NotSent as error:
                _failed(run, str(error), now)
            else:
                ScheduleRun.objects.filter(pk=run.pk, state="mailing").update(
                    state="sent", sent_at=now, attempts=run.attempts + 1, problem=""
                )


def _claimed(now: datetime) -> list[ScheduleRun]:
    """The runs to be mailed, each given to this caller alone for a while."""
    with transaction.atomic():
        due = list(
            ScheduleRun.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(state="mailing", next_at__lte=now)
            .select_related("schedule", "export", "statement")
            .order_by("pk")
        )
        ScheduleRun.objects.filter(pk__in=[each.pk for each in due]).update(next_at=now + CLAIM)
    return due


def _failed(run: ScheduleRun, problem: str, now: datetime) -> None:
    attempts = run.attempts + 1
    ScheduleRun.objects.filter(pk=run.pk, state="mailing").update(
        attempts=attempts,
        problem=problem[:200],
        state="failed" if attempts >= MOST_ATTEMPTS else "mailing",
        next_at=now + FIRST_PAUSE * 4 ** (attempts - 1),
    )


def _mail(organization: Organization, run: ScheduleRun) -> None:
    """One attempt. Raises ``NotSent``."""
    people = ScheduleRecipient.objects.filter(
        schedule=run.schedule, membership__role__in=EXPORTERS, membership__user__is_active=True
    )
    addresses = sorted(people.values_list("membership__user__email", flat=True))
    if not addresses:
        raise NotSent("None of the people chosen may export any more.")
    schedule = run.schedule
    if run.statement is not None:
        link, figures = _statement(organization, run.statement, schedule.format)
    elif run.export is not None:
        link, figures = _export(organization, run.export)
    else:
        raise NotSent("The file was removed before it was sent.")
    month = f"{run.month:%B %Y}"
    title = f"{title_of(schedule.what, schedule.by)}, {schedule.format.upper()}"
    exports = reverse("console:exports", args=[organization.slug])
    why = (
        f"You get this because a member of {organization.name} chose you under Exports, Every month: "
        f"{settings.PUBLIC_URL}{exports}#monthly"
    )
    lines = [
        f"{title}: {organization.name}, {month}.",
        "",
        f"{settings.PUBLIC_URL}{link}",
        "",
        *figures,
        "",
        why,
    ]
    try:
        with mail.get_connection(timeout=TIMEOUT_SECONDS) as connection:
            # Nobody learns who else gets it. A name may hold what no header does.
            mail.EmailMessage(
                " ".join(f"{title} of {organization.name} for {month}".split())[:200],
                "\n".join(lines),
                bcc=addresses,
                connection=connection,
            ).send()
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(f"The mail server did not take it ({type(error).__name__}).") from None


def _export(organization: Organization, export: Export) -> tuple[str, list[str]]:
    """The address of the file, and what it must add up to."""
    if export.charge is None or export.expires_at is None:
        raise NotSent("The file is not there.")
    until = localtime(export.expires_at, zone(organization.time_zone))
    figures = [
        f"Requests: {export.requests:,}, rows: {export.rows:,}",
        f"Sum: {plain(export.charge)} US dollars, "
        + (
            f"equal to the {export.control_of}."
            if export.agrees
            else f"but the {export.control_of} has {plain(export.control or export.charge * 0)}. {export.note}"
        ),
        f"SHA-256: {export.sha256}",
        f"The link asks you to sign in, and works until {until:%-d %B %Y, %H:%M} ({organization.time_zone}).",
    ]
    return reverse("console:export_file", args=[organization.slug, export.reference]), figures


def _statement(organization: Organization, statement: Statement, format_: str) -> tuple[str, list[str]]:
    figures = [
        f"Statement {statement.number}",
        f"Opening balance: {plain(statement.opening)} US dollars",
        f"Closing balance: {plain(statement.closing)} US dollars",
        "The link asks you to sign in.",
    ]
    return reverse(f"console:statement_{format_}", args=[organization.slug, statement.number]), figures
