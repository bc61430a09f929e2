"""``manage.py export_usage``: the usage rows of one organization, as CSV or JSONL."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.access import local_range
from billing.usage_export import FORMATS, export
from tenants.models import Organization


def day(option: str, text: str) -> date:
    """The date in ``text``. Raises ``CommandError`` that names the option."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{option}: {text!r} is no date; write it as 2026-03-31.") from None


class Command(BaseCommand):
    """Exports usage with both the provider's cost and the tenant's charge; for operators."""

    help = (
        "Write one line for each request of an organization, oldest first. Days are those of the "
        "organization's time zone, and the day of --to is included. Amounts are exact US dollars."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--org", required=True, metavar="SLUG", help="the organization")
        parser.add_argument(
            "--from", required=True, dest="first", metavar="DATE", help="first day, such as 2026-03-01"
        )
        parser.add_argument("--to", required=True, dest="last", metavar="DATE", help="last day, included")
        parser.add_argument("--format", default="csv", choices=FORMATS, help="csv (the default) or jsonl")
        parser.add_argument(
            "--output", type=Path, metavar="FILE", help="where to write; without it, standard output"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Writes the export; a file appears under its name only when it is complete."""
        organization = Organization.objects.filter(slug=options["org"]).first()
        if organization is None:
            raise CommandError(f"--org: there is no organization {options['org']!r}.")
        first, last = day("--from", options["first"]), day("--to", options["last"])
        if last < first:
            raise CommandError("--to: the last day is before the first.")
        start, end = local_range(organization, first, last)
        pieces = export(organization, start, end, options["format"], provider_cost=True)
        output: Path | None = options["output"]
        if output is None:
            for piece in pieces:
                self.stdout.write(piece.decode(), ending="")
            return
        draft = output.with_name(f"{output.name}.part")
        try:
            with draft.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
            draft.replace(output)
        except BaseException as error:
            draft.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise CommandError(f"--output: {error}") from error
            raise
