"""Setting and removing the files that come every month."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from django.db import transaction
from django_scopes import scope

from billing.exports.sheets import FORMATS
from billing.models import Schedule, ScheduleRecipient
from billing.reports import DIMENSIONS
from tenants.models import Membership, Organization, User
from tenants.permissions import Permission, Role, allows
from tenants.services import audit

What = Literal["statement", "usage", "focus", "report"]
STATEMENT_FORMATS = ("pdf", "csv")
# Files an organization may have a month.
MOST = 12


class BadSchedule(ValueError):
    """A schedule that cannot be; the message is for the person who asked."""


def _check(what: str, format_: str, by: str, recipients: Collection[Membership]) -> None:
    if what not in ("statement", "usage", "focus", "report"):
        raise BadSchedule(f"what: “{what[:40]}” cannot be sent.")
    if what == "statement" and format_ not in STATEMENT_FORMATS:
        raise BadSchedule("format: a statement comes as PDF or CSV.")
    if what != "statement" and format_ not in FORMATS:
        raise BadSchedule("format: an export comes as CSV, XLSX or JSONL.")
    if (what == "report") != (by in DIMENSIONS and by != "deployment"):
        raise BadSchedule("by: a report, and nothing else, is divided by something.")
    if not recipients:
        raise BadSchedule("Choose at least one person who gets it.")
    for each in recipients:
        if not allows(Role(each.role), Permission.EXPORT_USAGE):
            raise BadSchedule(f"{each.user.email} may not export.")


@transaction.atomic
def set_schedule(
    *,
    acting_user: User | None,
    organization: Organization,
    what: str,
    format: str,  # noqa: A002  # the name of the field
    by: str = "",
    recipients: Collection[Membership],
) -> Schedule:
    """Have a file made for every month, and a link to it mailed to ``recipients``, who replace those of
    before. Raises ``BadSchedule``."""
    _check(what, format, by, recipients)
    with scope(organization=organization):
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        schedule, made = Schedule.objects.get_or_create(
            organization=organization, what=what, by=by, format=format, defaults={"created_by": acting_user}
        )
        if made and Schedule.objects.count() > MOST:
            raise BadSchedule(f"At most {MOST} files come every month. Remove one first.")
        wanted = {each.pk: each for each in recipients}
        before = set(schedule.recipients.values_list("membership_id", flat=True))
        if not made and before == set(wanted):
            return schedule
        ScheduleRecipient.objects.filter(schedule=schedule).exclude(membership__in=wanted).delete()
        ScheduleRecipient.objects.bulk_create(
            ScheduleRecipient(schedule=schedule, membership=each)
            for pk, each in wanted.items()
            if pk not in before
        )
        audit.record(
            acting_user=acting_user,
            verb="created" if made else "changed",
            target=schedule,
            organization=organization,
            detail={
                "what": what,
                "by": by,
                "format": format,
                "to": sorted(each.user.email for each in wanted.values()),
            },
        )
    return schedule


@transaction.atomic
def remove_schedule(*, acting_user: User | None, schedule: Schedule) -> None:
    """End ``schedule``. Files it brought stay until they expire; what is under way is not mailed."""
    organization = schedule.organization
    with scope(organization=organization):
        audit.record(
            acting_user=acting_user,
            verb="removed",
            target=schedule,
            organization=organization,
            detail={"what": schedule.what, "by": schedule.by, "format": schedule.format},
        )
        Schedule.objects.filter(pk=schedule.pk).delete()
