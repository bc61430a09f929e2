"""`manage.py export`: write the database as a configuration file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway.configuration.export import export


class Command(BaseCommand):
    """Write providers, deployments, model groups, plans and organizations, without secrets."""

    help = "Write the database as a configuration file for `apply`, without secrets."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the optional FILE."""
        parser.add_argument(
            "file", nargs="?", metavar="FILE", help="where to write it; standard output if left out"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Write the file."""
        text = export()
        if options["file"] is None:
            self.stdout.write(text, ending="")
            return
        try:
            Path(options["file"]).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be written: {error.strerror}.") from None
