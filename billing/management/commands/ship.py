"""``manage.py ship``: moves the usage journal to PostgreSQL until it is told to stop."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from billing import journal, settlement
from billing.shipper import Shipper, ShipperRunning


def connection_parameters() -> dict[str, Any]:
    """Django's own database as psycopg.connect takes it."""
    parameters = connection.get_connection_params()
    return {name: value for name, value in parameters.items() if name not in {"cursor_factory", "context"}}


class Command(BaseCommand):
    help = "Move the usage journal to PostgreSQL, until SIGTERM or SIGINT; then ship once more and end."
    # Usage must reach the books even where the console is broken.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--directory", type=Path, help="the journal (default: journal in WEIR_DATA_DIR)")
        parser.add_argument("--once", action="store_true", help="ship what is there, and end")
        parser.add_argument(
            "--abandon",
            type=UUID,
            metavar="WORKER",
            help="only return the leases of a worker that is dead and whose journal is lost with its disk",
        )

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002  # Django's signature
        directory = options["directory"] or settings.WEIR_DATA_DIR / "journal"
        if worker := options["abandon"]:
            self._abandon(directory, worker)
            return
        try:
            shipper = Shipper(directory, connection_parameters())
        except ShipperRunning as error:
            raise CommandError(str(error)) from None
        try:
            if options["once"]:
                self.stdout.write(f"{shipper.ship_once()} events shipped.")
                return
            stop = threading.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            shipper.run(stop, settings.SHIP_INTERVAL_SECONDS)
        finally:
            shipper.close()

    def _abandon(self, directory: Path, worker: UUID) -> None:
        if journal.alive_path(directory, worker).exists():
            raise CommandError("This worker has a journal here; the shipper returns its leases by itself.")
        with psycopg.connect(**connection_parameters(), autocommit=True) as own:
            settlement.return_leases(own, worker)
        self.stdout.write(f"The leases of worker {worker} are returned.")
