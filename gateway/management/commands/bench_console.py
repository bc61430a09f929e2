"""``manage.py bench_console``: how long each page of the console takes beside ten million events."""

from __future__ import annotations

import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

WORDS = ("events", "keys", "members", "most", "repeats")


class Command(BaseCommand):
    """Measures on a scratch database."""

    help = (
        "Fill a scratch database with two months of usage of one organization, then ask for every page of the"
        " console as its owner. Ten million events need about 15 GB of disk for the time of the run. Exit status"
        " 1 if a page takes too long."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--events", type=int, default=10_000_000)
        parser.add_argument("--keys", type=int, default=10_000)
        parser.add_argument("--members", type=int, default=2_000)
        parser.add_argument("--most", type=int, default=300, help="milliseconds that a page may take")
        parser.add_argument("--repeats", type=int, default=5)
        parser.add_argument("--only", default="", help="only pages with this word in their name")
        parser.add_argument(
            "--keep",
            type=Path,
            metavar="DIR",
            help="have the database in this directory and leave it there; one that is there is measured as it is",
        )
        parser.add_argument("--json", type=Path, help="also write the figures to this file")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run it as a program that chooses its database before Django is set up."""
        command = [sys.executable, "-m", "gateway.bench.console", f"--data-dir={settings.WEIR_DATA_DIR}"]
        command += [f"--{word}={options[word]}" for word in (*WORDS, "only")]
        for name in ("json", "keep"):
            if options[name] is not None:
                command.append(f"--{name}={options[name].resolve()}")
        with subprocess.Popen(command, cwd=settings.BASE_DIR) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            code = process.wait()
        if code:
            raise SystemExit(code)
