"""Every page of the console beside millions of events: milliseconds at the server, queries, and weight.

Run as ``python -m gateway.bench.console`` on a scratch database (``manage.py bench_console`` does so).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateway.bench.ingest import say

if TYPE_CHECKING:
    from django.urls import URLResolver

    from gateway.bench.large import Large

# What a page cannot be opened without.
NEEDED = {"end_user": "id=customer-7"}
# What people ask a page beside opening it: query strings by the page's name.
ASKED = {
    "costs": (
        *(f"by={by}" for by in ("member", "end_user", "key", "team", "model", "day", "month")),
        "compare=before",
        "by=key&compare=before",
        "team=team-3",
        "key={key}",
        "by=model&end_user=customer-7",
        "from={last_month}&to={last_day}",
    ),
    "end_users": ("q=customer-12", "standing=blocked", "standing=limited", "sort=name", "sort=requests"),
    "keys": ("q=key-77", "team=team-3", "state=all", "q=nothing"),
    "members": ("q=person-77",),
    "quotas": ("edit=team-{team}", "edit=key-{key}", "q=key-40"),
    "requests": (
        "status=failed",
        "status=429",
        "team=team-3",
        "key={key}",
        "end_user=customer-7",
        "model=model-2",
        "charge=0.0006",
        "id=nothing",
        "from={last_month}&to={last_day}",
    ),
    "ledger": ("kind=usage", "kind=top_up", "from={last_month}&to={last_day}"),
    "audit": ("q=thing 77", "kind=quota", "q=nothing"),
}


@dataclass(frozen=True, slots=True)
class Timed:
    """One page: milliseconds until the whole answer is made, how many of them this process and PostgreSQL's
    for it were computing (at least, which other programs hardly change; None where the system does not
    tell), its queries, and its size in bytes, also as it travels."""

    page: str
    median: float
    worst: float
    cpu: float | None
    queries: int
    size: int
    packed: int


def pages(resolver: URLResolver) -> Iterator[tuple[str, set[str]]]:
    """Every address of the console that is a page: its name and the words in it."""
    from django.urls import URLPattern

    from gateway.management.commands.shots import NO_PAGE

    for entry in resolver.url_patterns:
        if not isinstance(entry, URLPattern):
            yield from pages(entry)
        elif entry.name and entry.name not in NO_PAGE:
            yield entry.name, set(entry.pattern.converters)


def addresses(large: Large) -> Iterator[tuple[str, str]]:
    """What is asked for, by the name it has in the table. Raises KeyError for a page of an object that
    ``gateway.bench.large`` does not know."""
    from django.urls import get_resolver, reverse

    from gateway.bench.month import MONTH

    last_day = (MONTH.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    values: dict[str, Any] = {"last_month": MONTH, "last_day": last_day}
    values |= {name: value for name, value in large.objects.items() if isinstance(value, int)}
    seen = set()
    for name, words in pages(get_resolver("gateway.console.urls")):
        if name in seen:
            continue
        seen.add(name)
        of = {word: _object(large, name, word) for word in words}
        address = _reversed(reverse, name, of, large)
        yield name, f"{address}?{NEEDED[name]}" if name in NEEDED else address
        for question in ASKED.get(name, ()):
            filled = question.format(**values)
            yield f"{name}?{filled}", f"{address}?{quote(filled, safe='=&')}"


def _object(large: Large, name: str, word: str) -> Any:
    found = large.objects[word]
    return found[name] if isinstance(found, dict) else found


def _reversed(reverse: Any, name: str, of: dict[str, Any], large: Large) -> str:
    """The address, with the organization where there is one in it."""
    from django.urls import NoReverseMatch

    try:
        return str(reverse(f"console:{name}", kwargs={**of, "organization": large.objects["organization"]}))
    except NoReverseMatch:
        return str(reverse(f"console:{name}", kwargs=of))


def ask(large: Large, name: str, address: str, repeats: int) -> Timed:
    """Open one page ``repeats`` times. The first of them finds what the run before it left in memory, as
    anybody's does. Raises RuntimeError for an answer that is no page."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(headers={"accept-encoding": "gzip"})
    client.force_login(large.owner, backend="django.contrib.auth.backends.ModelBackend")
    took, computed = [], []
    for _ in range(repeats):
        began, before = time.perf_counter(), _computed()
        response = client.get(address)
        body = response.content
        took.append((time.perf_counter() - began) * 1000)
        computed.append(_computed() - before)
        if response.status_code >= 500:
            raise RuntimeError(f"{address} answered {response.status_code}.")
    with CaptureQueriesContext(connection) as queries:
        client.get(address)
    note = "" if response.status_code == 200 else f" ({response.status_code})"
    median, worst = round(statistics.median(took), 1), round(max(took), 1)
    cpu = None if isnan(computed[0]) else round(min(computed), 1)
    packed = response.headers.get("Content-Encoding") == "gzip"
    size = len(gzip.decompress(body) if packed else body)
    return Timed(f"{name}{note}", median, worst, cpu, len(queries), size, len(body))


def _computed() -> float:
    """Milliseconds of CPU that this process and the PostgreSQL process of its connection have used; nan
    where that cannot be known."""
    from django.db import connection

    connection.ensure_connection()
    try:
        used = Path(f"/proc/{connection.connection.info.backend_pid}/schedstat").read_text().split()[0]
    except OSError:
        return nan
    return time.process_time() * 1000 + int(used) / 1_000_000


def main() -> int:
    """Build, ask, print; 1 if a page's median is over the most that it may take."""
    parser = argparse.ArgumentParser(prog="bench_console")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=2_000)
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    options = parser.parse_args()
    from gateway.drills.ground import prepared

    with prepared(options.data_dir, 0, durable=False, keep=options.keep) as ground:
        from django.conf import settings
        from django_scopes import scopes_disabled

        from gateway.bench import large

        settings.ALLOWED_HOSTS = ["*"]
        began, known = time.monotonic(), ground.directory / "large.json"
        with scopes_disabled():
            if known.exists():
                built = large.found(json.loads(known.read_text()))
            else:
                built = large.build(options.events, options.keys, options.members, say)
                known.write_text(json.dumps(built.objects))
        say(f"built in {time.monotonic() - began:.0f} s")
        say(f"load average {os.getloadavg()[0]:.1f} before the pages")
        found = list(table(built, options))
        say(f"load average {os.getloadavg()[0]:.1f} after them")
    slow = [each.page for each in found if each.median > options.most]
    if options.json is not None:
        about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "events": options.events}
        figures = about | {"pages": [asdict(each) for each in found]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    say(f"over {options.most} ms: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


def table(large: Large, options: argparse.Namespace) -> Iterator[Timed]:
    """Ask for every page and print its line."""
    say(f"{'page':<44} {'median ms':>9} {'worst':>8} {'CPU ms':>8} {'queries':>8} {'KB':>7} {'packed':>7}")
    for name, address in addresses(large):
        if options.only not in name:
            continue
        timed = ask(large, name, address, options.repeats)
        sizes = f"{timed.size / 1024:>7.0f} {timed.packed / 1024:>7.0f}"
        cpu = f"{'':>8}" if timed.cpu is None else f"{timed.cpu:>8.1f}"
        say(f"{timed.page:<44} {timed.median:>9.1f} {timed.worst:>8.1f} {cpu} {timed.queries:>8} {sizes}")
        yield timed


if __name__ == "__main__":
    sys.exit(main())
