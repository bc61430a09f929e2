"""One export in a process of its own: how much memory it adds, and what it adds up to.

Run as ``python -m gateway.bench.exporting --slug acme --first 2026-03-01 --last 2026-03-31 --way streamed``
beside a database with usage; prints JSON. Only Linux tells a process's highest memory (``/proc``).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

# What the console streams, and files made in the background.
WAYS = ("streamed", "usage.csv", "usage.jsonl", "usage.xlsx", "focus.csv")
STATUS = Path("/proc/self/status")
COLUMN = {"charge", "BilledCost"}


def kilobytes(name: str) -> int:
    """A figure of this process: VmRSS (memory), VmHWM (its highest since the last reset)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


class Adding:
    """Adds up a CSV that comes in pieces of whole lines; keeps none of it."""

    def __init__(self) -> None:
        self.rows, self.sum, self.place = 0, Decimal(0), -1

    def take(self, piece: bytes) -> None:
        """Count the lines of ``piece``."""
        for cells in csv.reader(io.StringIO(piece.decode(), newline="")):
            if self.place < 0:
                self.place = next(number for number, name in enumerate(cells) if name in COLUMN)
            else:
                self.rows += 1
                self.sum += Decimal(cells[self.place])


async def _drained(pieces: AsyncIterator[bytes]) -> Adding:
    found = Adding()
    async for piece in pieces:
        found.take(piece)
    return found


def export(slug: str, first: date, last: date, way: str) -> dict[str, Any]:
    """Export the usage of the days from ``first`` to ``last`` in one of ``WAYS``."""
    from django_scopes import scopes_disabled

    from billing.access import local_range
    from billing.exports.making import make_due
    from billing.models import Export
    from billing.services.exports import request_export
    from billing.usage_export import streamed_export
    from tenants.models import Organization

    with scopes_disabled():
        organization = Organization.objects.get(slug=slug)
    if way == "streamed":
        found = asyncio.run(
            _drained(
                streamed_export(
                    organization, *local_range(organization, first, last), "csv", provider_cost=False
                )
            )
        )
        return {"rows": found.rows, "sum": str(found.sum)}
    what, _, format_ = way.partition(".")
    asked = request_export(
        acting_user=None,
        organization=organization,
        what=what,  # type: ignore[arg-type]  # one of WAYS
        format=format_,  # type: ignore[arg-type]  # as above
        first=first,
        last=last,
    )
    make_due()
    with scopes_disabled():
        made = Export.objects.get(pk=asked.pk)
    return {
        "rows": made.rows,
        "sum": str(made.charge),
        "control": str(made.control),
        "of": made.control_of,
        "bytes": made.size,
        "sha256": made.sha256,
    }


def main() -> int:
    """Export nothing first, so that all code is loaded; then measure."""
    parser = argparse.ArgumentParser(prog="exporting")
    parser.add_argument("--slug", required=True)
    parser.add_argument("--first", required=True, type=date.fromisoformat)
    parser.add_argument("--last", required=True, type=date.fromisoformat)
    parser.add_argument("--way", required=True, choices=WAYS)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
    import django

    django.setup()
    empty = options.first - timedelta(days=3650)
    export(options.slug, empty, empty, options.way)
    # Makes the highest memory the present one (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before, began = kilobytes("VmRSS"), time.monotonic()
    found = export(options.slug, options.first, options.last, options.way)
    found["seconds"] = round(time.monotonic() - began, 1)
    found["added_mb"] = round((kilobytes("VmHWM") - before) / 1024, 1)
    print(json.dumps(found))  # noqa: T201  # a program's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
