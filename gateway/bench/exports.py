"""Exports of a million requests: seconds, memory, and whether the sums are those of report and ledger.

Run as ``python -m gateway.bench.exports`` on a scratch database (``manage.py bench_exports`` does so).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.bench.exporting import WAYS
from gateway.bench.ingest import say

MOST_ADDED_MB = 50
KEYS, MEMBERS = 200, 50


def measured(
    slug: str, first: str, last: str, way: str, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """What a process of its own says of one export."""
    command = [sys.executable, "-m", "gateway.bench.exporting", "--slug", slug, "--first", first]
    done = subprocess.run(
        [*command, "--last", last, "--way", way], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Fill, export in every way, print; 1 if a sum differs or memory grows."""
    parser = argparse.ArgumentParser(prog="bench_exports")
    parser.add_argument("--events", type=int, default=1_050_000)
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--data-dir", type=Path, required=True)
    options = parser.parse_args()
    from gateway.drills.ground import prepared

    with prepared(options.data_dir, 0, durable=False):
        from django_scopes import scopes_disabled

        with scopes_disabled():
            return 0 if _compare(options) else 1


def _compare(options: argparse.Namespace) -> bool:
    from billing import ledger, partitions, rollups
    from billing.access import local_range
    from billing.reports import totals_for
    from gateway.bench import month

    crowd = month.make_crowd(KEYS, MEMBERS)
    month.fill(options.events, KEYS, lambda done: say(f"filled {done:,} events"))
    while rollups.refresh():
        pass
    while ledger.post_usage():
        pass
    first, last = month.MONTH, partitions.after(month.MONTH) - timedelta(days=1)
    report = totals_for(crowd.organization, *local_range(crowd.organization, first, last))
    say(f"the report: {report.requests:,} requests, {report.charge} US dollars")
    good = True
    for way in options.ways:
        found = measured(crowd.organization.slug, str(first), str(last), way)
        sums = {Decimal(found["sum"]), Decimal(found.get("control", found["sum"]))}
        same = sums == {report.charge}
        good &= same and found["added_mb"] < MOST_ADDED_MB
        say(f"{way}: {json.dumps(found)} {'equal' if same else 'DIFFERENT'}")
    return good


if __name__ == "__main__":
    sys.exit(main())
