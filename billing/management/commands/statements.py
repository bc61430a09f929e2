"""``manage.py statements``: makes the monthly statements that are due."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone
from django_scopes import scopes_disabled

from billing.calendars import midnight
from billing.partitions import after
from billing.statements import making
from tenants.models import Organization


class Command(BaseCommand):
    help = "Make and lock the statements of every month that is over, or until --month; prints their numbers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--month", help="the last month to make, such as 2026-10")
        parser.add_argument("--organization", help="only this one, by its slug")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002  # Django's signature
        with scopes_disabled():
            chosen = Organization.objects.order_by("pk")
            if slug := options["organization"]:
                chosen = chosen.filter(slug=slug)
                if not chosen.exists():
                    raise CommandError(f"--organization: there is no {slug!r}.")
            month = _month(options["month"])
            making.bring_rollups_up_to_date()
            failed = 0
            for organization in chosen:
                failed += not self._make(organization, month)
        if failed:
            raise CommandError(f"{failed} organizations have no statement; see above.")

    def _make(self, organization: Organization, month: date | None) -> bool:
        now = timezone.now()
        if month is not None:
            # The end of the month in this organization's zone, if it is over.
            now = min(now, midnight(after(month), organization.time_zone) + making.SETTLING)
        try:
            for statement in making.make_through(organization, now):
                self.stdout.write(f"{statement.number}  {organization.slug}  {statement.closing:f}")
        except (DatabaseError, making.StatementDiffers) as error:
            self.stderr.write(f"{organization.slug}: {error}")
            return False
        return True


def _month(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise CommandError(f"--month: {text!r} is no month. Write it as 2026-10.") from None
