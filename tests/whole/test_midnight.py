"""A budget's day ends at the organization's local midnight, through /v1 and by the real clock.

The clock is left alone: the test makes time zones whose midnight is seconds away, on a day of their own
on which clocks are changed.
"""

from __future__ import annotations

import struct
import time
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
from django_scopes import scope

from billing.models import Budget
from tenants.models import Organization
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance

DAY, HOUR = 86_400, 3600
# To be refused in before midnight comes.
SECONDS_LEFT = 10


def write_zone(path: Path, midnight: int, forward: int) -> None:
    """A zone file (RFC 9636, version 1): local midnight is at ``midnight``, seconds since 1970, and five hours
    before clocks went ``forward`` by so many seconds."""
    after = -midnight % DAY
    if after > DAY // 2:
        after -= DAY
    before = after - forward
    head = struct.pack(">4s16x6l", b"TZif", 0, 0, 0, 1, 2, 8)
    kinds = struct.pack(">lBB", before, 0, 0) + struct.pack(">lBB", after, 1, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + struct.pack(">lB", midnight - 5 * HOUR, 1) + kinds + b"OLD\0NEW\0")


@contextmanager
def known_here(directory: Path) -> Iterator[None]:
    """This process finds the zones in ``directory`` too, as the stack's do."""
    zoneinfo.reset_tzpath([str(directory), *zoneinfo.TZPATH])
    try:
        yield
    finally:
        zoneinfo.reset_tzpath()


def ask(tenant: Tenant) -> httpx.Response:
    body = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 10,
    }
    with tenant.http() as http:
        return http.post("/v1/chat/completions", json=body)


def refused(tenant: Tenant, words: str) -> bool:
    """Whether a request is refused in these words."""
    return words in ask(tenant).text


def test_a_day_ends_at_local_midnight_also_when_clocks_are_changed(stack: Stack, slug: str) -> None:
    # A request reserves 0.000264 and is charged 0.000086: two fit at most.
    changes = {f"{slug}-spring": HOUR, f"{slug}-autumn": -HOUR, f"{slug}-other": 0}
    tenants = {name: stack.tenant(name, quotas=[("key", "budget", "0.00035", "day")]) for name in changes}
    directory = stack.data_dir / "zones"
    with known_here(directory):
        midnight = int(time.time()) + SECONDS_LEFT
        moment = datetime.fromtimestamp(midnight, UTC)
        for name, forward in changes.items():
            write_zone(directory / "Weir" / name, midnight, forward)
            Organization.objects.filter(slug=name).update(time_zone=f"Weir/{name}")
        resets = f"It resets at {moment:%Y-%m-%dT%H:%M:%SZ}."
        for tenant in tenants.values():
            wait_until(partial(refused, tenant, resets), SECONDS_LEFT)
        assert time.time() < midnight, "The machine was too slow for this test."
        time.sleep(midnight - time.time())
        assert {name: ask(tenant).status_code for name, tenant in tenants.items()} == dict.fromkeys(
            tenants, 200
        )
        for name, tenant in tenants.items():
            with scope(organization=tenant.organization):
                days = Budget.objects.filter(quota__isnull=False, period_end__gte=moment).order_by(
                    "period_start"
                )
                first, second = days
            assert first.period_end is not None
            assert (first.period_end, second.period_start) == (moment, moment)
            assert second.period_end == moment + timedelta(days=1)
            assert first.period_end - first.period_start == timedelta(days=1, seconds=-changes[name])
            books_balance(tenant)
            with scope(organization=tenant.organization):
                assert all(day.spent > 0 for day in days.all())
        # The zone is known only where this stack runs.
        Organization.objects.filter(slug__in=tenants).update(time_zone="UTC")
