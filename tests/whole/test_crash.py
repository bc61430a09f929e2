"""SIGKILL of the server in the middle of many requests: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command
from django_scopes import scope

from billing.models import Budget, Lease, UsageEvent
from tests.simulator.server import wait_until
from tests.stack import Stack, running_stack


@pytest.fixture
def own_stack(_committing: None, tmp_path: Path) -> Iterator[Stack]:
    """A stack that this test may kill."""
    with running_stack(tmp_path) as running:
        yield running


def test_every_request_that_reached_the_provider_has_exactly_one_event(own_stack: Stack, slug: str) -> None:
    tenant = own_stack.tenant(
        slug, quotas=[("team", "budget", "5", "day"), ("key", "concurrency", "100", "")]
    )
    halfway = threading.Event()

    def ask(number: int) -> None:
        body = {
            "model": "sim-small",
            "messages": [{"role": "user", "content": f"words={20 + number} pace_ms=50"}],
            "stream": number % 2 == 0,
            "user": slug,
        }
        with tenant.http() as http:
            try:
                with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    for _ in answer.iter_bytes():
                        pass
            except httpx.HTTPError:
                # Its server was killed.
                halfway.wait()

    with ThreadPoolExecutor(50) as pool:
        running = [pool.submit(ask, number) for number in range(50)]
        wait_until(lambda: len(arrivals(own_stack, slug)) == 50)
        own_stack.kill_server()
        halfway.set()
        for each in running:
            each.result()
    own_stack.start_server()

    reached = {line["request_id"] for line in arrivals(own_stack, slug)}
    assert len(reached) == 50

    def counted() -> bool:
        with scope(organization=tenant.organization):
            return UsageEvent.objects.count() >= len(reached)

    wait_until(counted)
    with scope(organization=tenant.organization):
        events = list(UsageEvent.objects.all())
        assert sorted(event.request_id for event in events) == sorted(reached)
        interrupted = [event for event in events if event.end_reason == "interrupted"]
        assert interrupted
        assert all(event.charge == 0 and event.cost > 0 for event in interrupted)
        # What the dead workers had leased came back.
        wait_until(lambda: not Lease.objects.filter(remaining__gt=0).exists())
        assert not Budget.objects.filter(held__gt=0).exists()
    call_command("reconcile")


def arrivals(stack: Stack, user: str) -> list[dict[str, str]]:
    """What the provider says arrived of this user."""
    return [line for line in stack.simulator.log(user) if line["event"] == "arrive"]
