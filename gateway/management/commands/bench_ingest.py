"""``manage.py bench_ingest``: shipping, rollups and reports beside ten million events."""

from __future__ import annotations

import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Measures on a scratch database."""

    help = (
        "Fill a scratch database with a month of usage, then measure shipping, rollups and reports. Ten million"
        " events need about 15 GB of disk for the time of the run. Exit status 1 if the books differ."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--events", type=int, default=10_000_000, help="in the table before")
        parser.add_argument("--ship", type=int, default=200_000, help="events shipped")
        parser.add_argument("--busy-hour", type=int, default=1_000_000, help="requests in the hour under way")
        parser.add_argument("--keys", type=int, default=10_000)
        parser.add_argument("--members", type=int, default=2_000)
        parser.add_argument("--json", type=Path, help="also write the figures to this file")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run it as a program that chooses its database before Django is set up."""
        command = [sys.executable, "-m", "gateway.bench.ingest", f"--data-dir={settings.WEIR_DATA_DIR}"]
        words = ("events", "ship", "busy_hour", "keys", "members")
        command += [f"--{word.replace('_', '-')}={options[word]}" for word in words]
        if options["json"] is not None:
            command.append(f"--json={options['json'].resolve()}")
        with subprocess.Popen(command, cwd=settings.BASE_DIR) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            code = process.wait()
        if code:
            raise SystemExit(code)
