"""``manage.py reconcile``: do the books balance?"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from billing import reconcile
from billing.money import plain
from billing.reconcile import MOST_REPORTED, Difference

HEADINGS = ("Organization", "What", "Where", "Expected", "Found")


def table(differences: list[Difference]) -> str:
    """The differences as columns of text."""
    rows = [HEADINGS, *((d.organization, d.what, d.where, d.expected, d.found) for d in differences)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


class Command(BaseCommand):
    help = (
        "Compare this host's journal, usage events, rollups, counters, ledger and statements. Rollups and"
        " postings that merely lag are brought up to date first. Exit status 1 if something differs; a"
        " report is stored either way."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--settle",
            action="store_true",
            help="first recompute rollups that differ from their events, and post what the ledger lacks",
        )

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002  # Django's signature
        reconcile.bring_up_to_date(settle=options["settle"])
        comparison = reconcile.compare(settings.WEIR_DATA_DIR / "journal")
        reconcile.record(comparison)
        if comparison.waiting:
            self.stdout.write(f"{comparison.waiting} hours are still being brought up to date; left out.")
        if comparison.differences:
            shown = comparison.differences[:MOST_REPORTED]
            self.stdout.write(table(shown))
            self.stdout.write(f"{len(comparison.differences)} differences.")
            raise SystemExit(1)
        totals = comparison.totals
        self.stdout.write(
            f"Books balanced: {totals.events} events, charge {plain(totals.charge)}, cost {plain(totals.cost)}"
        )
