"""``manage.py bench``: the gateway, a bare proxy and no proxy at all, measured in one run."""

from __future__ import annotations

import json
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway import embedded
from gateway.bench.comparison import FULL, QUICK, BenchError, Comparison, PeerError, compare, prepared
from gateway.bench.table import Cell, table
from gateway.bench.workloads import WORKLOADS, Workload

# Above this many waiting programs for each core, the figures say little.
BUSY = 0.3


class Command(BaseCommand):
    """Measures and prints."""

    help = (
        "Measure /v1 with authentication, quota, budget and journal on, next to Envoy (or nginx) and to the"
        " provider called directly. Exit status 1 if any answer was wrong."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        names = [workload.name for workload in WORKLOADS]
        parser.add_argument(
            "--quick", action="store_true", help="a few hundred requests: a trial, no figures"
        )
        parser.add_argument("--only", nargs="+", choices=names, default=[], help="only these workloads")
        parser.add_argument("--json", type=Path, help="also write everything that was measured to this file")
        parser.add_argument(
            "--profile",
            action="store_true",
            help="afterwards show which functions take the time, and measure a tenant without limits too",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run it. Raises ``CommandError``."""
        # The default would leave every program running.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            with prepared(settings.WEIR_DATA_DIR, QUICK if options["quick"] else FULL) as comparison:
                self.measure(comparison, options)
        except (BenchError, PeerError, embedded.ServiceError) as error:
            raise CommandError(str(error)) from error

    def measure(self, comparison: Comparison, options: dict[str, Any]) -> None:
        """Measure with everything running, and print."""
        machine = comparison.machine()
        began = datetime.now(UTC)
        self.introduce(machine)
        floor = comparison.floor.name if comparison.floor else None

        def say(workload: Workload, cells: Sequence[Cell]) -> None:
            self.stdout.write("\n" + "\n".join(table(workload, cells, floor)))

        cells = compare(comparison, say, names=options["only"], unlimited=options["profile"])
        profiles: dict[str, list[str]] = {}
        if options["profile"]:
            profiles = self.profiles(comparison, cells)
        count, charged = comparison.check_books()
        self.stdout.write(f"\nBooks: {count:,} requests answered and accounted for, ${charged:f} charged.")
        if options["json"] is not None:
            found = {
                "at": began.isoformat(timespec="seconds"),
                "quick": options["quick"],
                "machine": machine,
                "cells": [asdict(cell) for cell in cells],
                "requests": count,
                "charged": f"{charged:f}",
                "profiles": profiles,
            }
            options["json"].write_text(json.dumps(found, indent=2) + "\n")

    def introduce(self, machine: dict[str, Any]) -> None:
        """Say what stands against what."""
        self.stdout.write(
            f"{machine['system']}, {machine['cores']} cores, Python {machine['python']}; {machine['pinning']}.\n"
            "Weir: one server process, with authentication, requests-per-minute quota, team budget, wallet and"
            " journal on.\n"
            "Where 'core busy' is far below 100%, provider and load on the other core were the limit: requests/s"
            " then\nsay little, CPU us a request say what a core can carry."
        )
        if machine["floor"] is None:
            self.stdout.write("No floor: neither Envoy (requirements/bench.txt) nor nginx is installed.")
        else:
            self.stdout.write(f"Floor: {machine['floor']}, one worker, which only passes on.")
        if machine["load_average_before"] > BUSY * machine["cores"]:
            self.stdout.write(
                self.style.WARNING(
                    f"The machine was busy before (load average {machine['load_average_before']:.1f});"
                    " repeat this when it is quiet."
                )
            )

    def profiles(self, comparison: Comparison, cells: Sequence[Cell]) -> dict[str, list[str]]:
        """Print where the time goes: by thread as measured above, by function under a profiler."""
        found = {}
        for workload in WORKLOADS:
            measured = [cell for cell in cells if cell.workload == workload.name]
            if not measured or workload.name == "steady":
                continue
            for cell in measured[1:]:
                self.stdout.write("\n" + threads(cell))
            found[workload.name] = comparison.profile(workload)
            self.stdout.write(f"\n{workload.title}, under cProfile (which makes Python calls dearer)")
            self.stdout.write("\n".join(found[workload.name]))
        return found


def threads(cell: Cell) -> str:
    """CPU of one cell by thread and how much of it is the kernel's, in microseconds a request."""
    report = cell.report
    shares = {**report.thread_seconds, "of all that in the kernel": report.kernel_seconds}
    shown = ", ".join(
        f"{name} {value / report.requests * 1e6:,.0f}" for name, value in shares.items() if value
    )
    return f"{cell.workload}, {cell.peer}, CPU us a request: {shown}"
