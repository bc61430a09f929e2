"""`manage.py simulator`: run the simulated provider."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from routing.simulator import serve
from routing.simulator.server import add_arguments


class Command(BaseCommand):
    """Serve the simulated provider until stopped."""

    help = "Run a simulated provider that speaks the OpenAI protocol and needs no account."
    requires_system_checks: list[str] = []  # it uses neither the database nor the settings

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add --host, --port, --log and --require-key."""
        add_arguments(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM."""
        serve(options["host"], options["port"], options["log"], require_key=options["require_key"])
