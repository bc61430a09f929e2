"""`manage.py apply`: make the database match a configuration file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway.configuration.apply import apply_configuration, load
from gateway.configuration.changes import Outcome
from gateway.configuration.document import Document
from gateway.configuration.problems import ConfigurationError
from gateway.configuration.schema import Configuration


class Command(BaseCommand):
    """Apply a configuration file, all of it or nothing."""

    help = "Make the database match a configuration file. Applying it twice changes nothing."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add FILE, --plan, --prune and --yes."""
        parser.add_argument("file", metavar="FILE", help="a YAML file, or - for standard input")
        parser.add_argument("--plan", action="store_true", help="show what would change, and change nothing")
        parser.add_argument(
            "--prune",
            action="store_true",
            help="also remove what an earlier apply made and the file no longer names",
        )
        parser.add_argument("--yes", action="store_true", help="do not ask before removing")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Apply, or show. Raises CommandError with every problem of the file."""
        try:
            configuration, document = load(*_text(options["file"]), os.environ)
            prune = options["prune"]
            if options["plan"]:
                self._show(apply_configuration(configuration, document, prune=prune, plan=True), plan=True)
                return
            if prune and not self._agreed(configuration, document, yes=options["yes"]):
                self.stdout.write("Nothing was changed.")
                return
            self._show(apply_configuration(configuration, document, prune=prune))
        except ConfigurationError as error:
            count = len(error.problems)
            said = "1 problem" if count == 1 else f"{count} problems"
            raise CommandError(f"{error}\n{said}; nothing was applied.") from None

    def _agreed(self, configuration: Configuration, document: Document, *, yes: bool) -> bool:
        """Show what will be removed; at a terminal, ask."""
        outcome = apply_configuration(configuration, document, prune=True, plan=True)
        removals = [change for change in outcome.changes if change.sign == "-"]
        if not removals:
            return True
        self.stdout.write("To be removed:")
        for change in removals:
            self.stdout.write(f"  {change}")
        self.stdout.flush()
        if yes or not sys.stdin.isatty():
            return True
        return input("Go on? [y/N] ").strip().lower() in {"y", "yes"}

    def _show(self, outcome: Outcome, *, plan: bool = False) -> None:
        for change in outcome.changes:
            self.stdout.write(str(change))
        for note in outcome.notes:
            self.stdout.write(f"Note: {note}")
        if not outcome.changes:
            self.stdout.write("Nothing to change.")
            return
        counts = [
            (outcome.count("+"), "create"),
            (outcome.count("~"), "change"),
            (outcome.count("-"), "remove"),
        ]
        if plan:
            self.stdout.write("Plan: " + ", ".join(f"{count} to {verb}" for count, verb in counts) + ".")
            return
        self.stdout.write("Applied: " + ", ".join(f"{count} {verb}d" for count, verb in counts) + ".")
        if outcome.made:
            self.stdout.write("\nNew keys, shown this once:")
            for key in outcome.made:
                self.stdout.write(f"  {key.name}  {key.secret}")


def _text(file: str) -> tuple[str, str]:
    """The file's text, and its name in messages."""
    try:
        if file == "-":
            return sys.stdin.read(), "standard input"
        return Path(file).read_text(encoding="utf-8"), file
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not UTF-8 text.") from None
