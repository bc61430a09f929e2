"""``manage.py bench_exports``: a million requests as CSV, JSONL, XLSX and FOCUS, and the memory it takes."""

from __future__ import annotations

import signal
import subprocess
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Measures on a scratch database."""

    help = (
        "Fill a scratch database with a month of usage, and export it in every way, each in a process of its own."
        " Exit status 1 if a sum is not that of report and ledger, or memory grows by 50 MB."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--events", type=int, default=1_050_000, help="one in twenty is of other organizations"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run it as a program that chooses its database before Django is set up."""
        command = [sys.executable, "-m", "gateway.bench.exports", f"--data-dir={settings.WEIR_DATA_DIR}"]
        command.append(f"--events={options['events']}")
        with subprocess.Popen(command, cwd=settings.BASE_DIR) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            code = process.wait()
        if code:
            raise SystemExit(code)
