"""Usage at scale: how fast it comes in, is summed and is reported, beside millions of events.

Run as ``python -m gateway.bench.ingest`` on a scratch database (``manage.py bench_ingest`` does so).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

WORKERS = 4
REPEATS = 5
# Rows of a report that the console shows; the rest is one row.
SHOWN = 100


def arguments() -> argparse.ArgumentParser:
    """The options, as ``manage.py bench_ingest`` passes them on."""
    parser = argparse.ArgumentParser(prog="bench_ingest")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--ship", type=int, default=200_000)
    parser.add_argument("--busy-hour", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    return parser


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a program's output


def main() -> int:
    """Make the month, measure, print; 1 if what was shipped is not on the books."""
    options = arguments().parse_args()
    from gateway.drills.ground import prepared

    with prepared(options.data_dir, 0, durable=True) as ground:
        from django_scopes import scopes_disabled

        with scopes_disabled():
            found = measure(options, ground.directory)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["books"] == "balanced" else 1


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Every figure, by its name."""
    from gateway.bench import month

    found: dict[str, Any] = {}

    def keep(figures: dict[str, Any]) -> None:
        found.update(figures)
        for name, value in figures.items():
            say(f"{name:.<58} {value}")

    journal = directory / "bench-journal"
    began = time.monotonic()
    keep(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cores": os.cpu_count(),
            "load average before": round(os.getloadavg()[0], 2),
            "events in the month": options.events,
        }
    )
    crowd = month.make_crowd(options.keys, options.members)
    month.fill(options.events, options.keys, lambda done: say(f"filled {done:,} events"))
    keep({"filled in, s": round(time.monotonic() - began, 1)})
    keep(of_shipping(crowd, journal, options.ship))
    keep(of_rollups(crowd, journal))
    keep(of_spans())
    keep(of_reports(crowd))
    keep(of_a_busy_hour(crowd, journal, options.busy_hour))
    keep({"books": of_books(), "load average after": round(os.getloadavg()[0], 2)})
    return found


def _timed(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def write_journal(crowd: Any, directory: Path, events: int, start: datetime, lasting: timedelta) -> None:
    """The segments of ``WORKERS`` workers that served ``events`` requests from ``start`` on, and ended."""
    from billing.journal import JournalWriter
    from gateway.bench.month import END_USERS, MODELS

    dice = random.Random()  # noqa: S311  # variety, not secrets
    writers = [JournalWriter(directory, uuid4()) for _ in range(WORKERS)]
    for number in range(events):
        writer = writers[number % WORKERS]
        key = crowd.keys[int(len(crowd.keys) * dice.random() ** 2)]
        moment = start + lasting * number / events
        model = f"model-{number % MODELS}"
        begin = {
            "t": "begin",
            "request_id": f"req_{round(moment.timestamp() * 1000):012x}{dice.getrandbits(80):020x}",
            "started_at": moment.isoformat(timespec="microseconds"),
            "organization_id": key.organization_id,
            "team_id": key.team_id,
            "key_id": key.id,
            "member_id": key.owner_id,
            "end_user": f"customer-{int(END_USERS * dice.random() ** 2)}" if number % 10 > 3 else "",
            "model_group": model,
            "endpoint": "chat.completions",
            "streamed": number % 2 == 0,
            "deployment": f"{model}/first",
            "provider": "first",
            "provider_model": f"provider-{model}",
            "cost_price_id": 1,
            "charge_price_id": 2,
            "markup": "0",
            "budget_ids": [crowd.wallet.id],
            "tags": {},
        }
        writer.begin(begin | {"estimated_input_tokens": 40, "estimated_cost": "0.0001"})
        attempt = {"deployment": f"{model}/first", "provider": "first", "status": 200, "reason": ""}
        end = {
            "t": "end",
            "ended_at": (moment + timedelta(seconds=1.5)).isoformat(timespec="microseconds"),
            "status": 200,
            "end_reason": "completed",
            "error_code": "",
            "attempts": [attempt | {"started_ms": 1, "first_token_ms": 200, "duration_ms": 1500}],
            "input_tokens": 200 + number % 1000,
            "cached_input_tokens": 0,
            "cache_write_tokens": 0,
            "output_tokens": 50 + number % 300,
            "reasoning_tokens": 0,
            "usage_source": "reported",
            "cost": "0.000123456789",
            "charge": "0.000246913578",
            "first_token_ms": 200,
            "duration_ms": 1500,
        }
        writer.end(begin | end)
    for writer in writers:
        writer.close()


def last_days() -> datetime:
    """Where in the month the measured batches go: its last two days, as a gateway's requests do."""
    from billing import partitions
    from gateway.bench.month import MONTH

    after = partitions.after(MONTH)
    return datetime(after.year, after.month, 1, tzinfo=UTC) - timedelta(days=2)


def of_shipping(crowd: Any, journal: Path, events: int) -> dict[str, Any]:
    """Events a second from segments to committed rows, and the same rows by a plain COPY."""
    from django.db import connection

    from billing.management.commands.ship import connection_parameters
    from billing.shipper import Shipper

    say(f"writing the journal of {events:,} requests")
    write_journal(crowd, journal, events, last_days(), timedelta(days=1))
    shipper = Shipper(journal, connection_parameters())
    used = os.times()
    began = time.monotonic()
    shipped = shipper.ship_once()
    took = time.monotonic() - began
    now = os.times()
    cpu = now.user + now.system - used.user - used.system
    shipper.close()
    if shipped != events:
        raise RuntimeError(f"{shipped} of {events} events were shipped.")
    copied = copy_again(last_days(), events)
    with connection.cursor() as cursor:
        cursor.execute("SELECT spent FROM billing_budget WHERE id = %s", [crowd.wallet.id])
        spent = cursor.fetchone()[0]
    if spent != Decimal("0.000246913578") * events:
        raise RuntimeError(f"{spent} was charged for {events} events.")
    return {
        "shipped, events/s": round(shipped / took),
        "shipper's own CPU, us an event": round(cpu / shipped * 1e6, 1),
        "plain COPY of the same rows, rows/s": round(copied),
        "shipping / COPY": round(shipped / took / copied, 2),
    }


def copy_again(start: datetime, events: int) -> float:
    """Rows a second of COPY for the rows that were shipped, under other ids, taken back at the end."""
    import psycopg
    from psycopg import sql

    from billing.management.commands.ship import connection_parameters

    with psycopg.connect(**connection_parameters()) as own:
        names = own.execute(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 'billing_usageevent'::regclass AND attnum > 0"
            " AND NOT attisdropped ORDER BY attnum"
        ).fetchall()
        columns = [name for (name,) in names if name != "request_id"]
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        text = io.BytesIO()
        out = sql.SQL(
            "COPY (SELECT 'bench' || substr(request_id, 5), {} FROM billing_usageevent"
            " WHERE started_at >= {} AND budget_ids <> ARRAY[]::bigint[] LIMIT {}) TO STDOUT"
        ).format(listed, sql.Literal(start), sql.Literal(events))
        with own.cursor().copy(out) as copy:
            for block in copy:
                text.write(block)
        began = time.monotonic()
        into = sql.SQL("COPY billing_usageevent (request_id, {}) FROM STDIN").format(listed)
        with own.cursor() as cursor:
            with cursor.copy(into) as copy:
                copy.write(text.getvalue())
            rows = cursor.rowcount
        took = time.monotonic() - began
        own.rollback()
    return rows / took


def of_rollups(crowd: Any, journal: Path) -> dict[str, Any]:
    """Seconds for the whole month, and for what one batch changes."""
    from django.db import connection

    from billing import rollups
    from billing.management.commands.ship import connection_parameters
    from billing.shipper import Shipper

    say("summing the month")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT DISTINCT organization_id, hour FROM billing_dirtybucket) AS h"
        )
        hours = cursor.fetchone()[0]
    month = _timed(roll_up)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM billing_usagerollup")
        rows = cursor.fetchone()[0]
        cursor.execute("ANALYZE")
    took = []
    for number in range(REPEATS):
        start = last_days() + timedelta(days=1, hours=number)
        write_journal(crowd, journal, 500, start, timedelta(seconds=2))
        shipper = Shipper(journal, connection_parameters())
        shipper.ship_once()
        shipper.close()
        took.append(_timed(rollups.refresh))
    return {
        "hours in the month, of all organizations": hours,
        "rows of their rollups": rows,
        "month rolled up, s": round(month, 1),
        "rolled up after 500 late events of an hour, s": round(statistics.median(took), 3),
    }


def of_spans() -> dict[str, Any]:
    """Seconds for the days and months of everybody, and again after a late request."""
    from django.db import connection

    from billing import spans

    def build() -> None:
        while spans.refresh():
            pass

    say("summing days and months")
    found: dict[str, Any] = {"days and months summed, s": round(_timed(build), 1)}
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM billing_usagespansum")
        found["rows of their sums"] = cursor.fetchone()[0]
        cursor.execute(
            "INSERT INTO billing_dirtybucket (organization_id, hour)"
            " SELECT id, %s FROM tenants_organization WHERE slug = 'large'",
            [last_days()],
        )
        roll_up()
    found["a day and its month summed again, s"] = round(_timed(build), 2)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE billing_usagespansum")
    return found


def of_a_busy_hour(crowd: Any, journal: Path, events: int) -> dict[str, Any]:
    """Seconds to bring the rollups up to date after batches that come to an hour under way that already
    has ``events`` requests."""
    from billing import rollups
    from billing.management.commands.ship import connection_parameters
    from billing.shipper import Shipper
    from gateway.bench import month

    say(f"an hour of {events:,} requests")
    hour = (datetime.now(UTC) - timedelta(minutes=5)).replace(minute=0, second=0, microsecond=0)
    month.fill_hour(events, len(crowd.keys), hour)
    whole = _timed(roll_up)
    took = []
    for _ in range(REPEATS):
        write_journal(crowd, journal, 500, hour + timedelta(minutes=30), timedelta(seconds=2))
        shipper = Shipper(journal, connection_parameters())
        shipper.ship_once()
        shipper.close()
        took.append(_timed(rollups.refresh))
    return {
        "requests in an hour under way": events,
        "that hour rolled up from nothing, s": round(whole, 2),
        "rolled up after 500 more in two seconds, s": round(statistics.median(took), 3),
    }


def roll_up() -> None:
    """Refresh until nothing waits."""
    from billing import rollups

    while rollups.refresh():
        pass


def of_reports(crowd: Any) -> dict[str, Any]:
    """Milliseconds of each report over the month: the median of some repetitions."""
    from billing.access import local_range
    from billing.reports import Dimension, cost_report
    from gateway.bench.month import MONTH

    found: dict[str, Any] = {}
    first = MONTH
    last = (MONTH.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    bounds = local_range(crowd.organization, first, last)
    dimensions: tuple[Dimension, ...] = (
        *("team", "user", "member", "key"),
        *("model", "deployment", "end_user", "day"),
    )
    for by in dimensions:
        say(f"report by {by}")
        report = partial(cost_report, crowd.organization, by, *bounds, most=SHOWN)
        took = [_timed(report) for _ in range(REPEATS)]
        found[f"report by {by}, ms"] = round(statistics.median(took) * 1000)
    return found


def of_books() -> str:
    """Whether events and rollups are equal."""
    from billing import reconcile

    reconcile.bring_up_to_date()
    wrong = [each for each in reconcile.compare().differences if each.what.endswith("events and rollups")]
    return "balanced" if not wrong else f"{len(wrong)} differences: {wrong[0]}"


if __name__ == "__main__":
    sys.exit(main())
