"""``manage.py drill``: tries to break the money or an answer, and says whether it held."""

from __future__ import annotations

import signal
import subprocess
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

# The drills, and which options each has besides those of all.
OPTIONS = {
    "never-over": ("rounds", "clients", "only"),
    "never-lost": ("rounds", "seconds", "seed"),
    "sixteen": ("scale",),
    "lone": (),
    "outages": ("redis_seconds", "postgres_seconds"),
}


class Command(BaseCommand):
    """Runs one drill on databases of its own."""

    help = (
        "Try to overspend limits (never-over), to lose requests by killing programs (never-lost), or to get"
        " a dishonest answer out of failing providers (sixteen), or to hammer the only one (lone), on scratch"
        " databases. Exit status 1 if something broke."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("drill", choices=list(OPTIONS))
        parser.add_argument("--rounds", type=int, default=1)
        parser.add_argument("--workers", type=int, default=4, help="worker processes of the server")
        parser.add_argument(
            "--relaxed", action="store_true", help="PostgreSQL with fsync and synchronous_commit off"
        )
        parser.add_argument("--clients", type=int, default=200, help="never-over: how many ask at a time")
        parser.add_argument("--only", default="", help="never-over: scenarios whose name has this word")
        parser.add_argument(
            "--seconds", type=float, default=10.0, help="never-lost: length of a round's load"
        )
        parser.add_argument("--seed", type=int, default=0, help="never-lost: other moments to kill at")
        parser.add_argument(
            "--scale", type=float, default=1.0, help="sixteen: of every time; 0.1 is ten times as fast"
        )

        parser.add_argument(
            "--redis-seconds", type=float, default=90.0, help="outages: how long Redis is frozen; 0: not"
        )
        parser.add_argument(
            "--postgres-seconds",
            type=float,
            default=60.0,
            help="outages: how long PostgreSQL is stopped; 0: not",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run it as a program that chooses its database before Django is set up."""
        drill = options["drill"]
        words = ["workers", *OPTIONS[drill]]
        command = [sys.executable, "-m", "gateway.drills", drill, f"--data-dir={settings.WEIR_DATA_DIR}"]
        command += [f"--{word.replace('_', '-')}={options[word]}" for word in words]
        command += ["--relaxed"] if options["relaxed"] else []
        with subprocess.Popen(command, cwd=settings.BASE_DIR) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            code = process.wait()
        if code:
            raise SystemExit(code)
