"""However a request ends, its concurrency slot and its reservations are given back."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django_scopes import scope
from redis import Redis

from billing.models import Budget, Lease
from billing.services.quotas import set_quota
from routing.models import GroupDeployment, ModelGroup, Provider
from routing.simulator.behaviour import FAULTS
from tenants.services.keys import create_key
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance
from tests.v1.test_errors import wait_for_model

ASK: list[Any] = [{"role": "user", "content": "one two three"}]
# Of a stream's answer: nothing, within the first header, within the headers, within the first events, later.
OFFSETS = (0, 5, 60, 400, 1000, 4000)


@dataclass(frozen=True)
class Caller:
    """A key with a concurrency limit of its own, so that what leaks has a name."""

    name: str
    secret: str
    slots: int


def callers(tenant: Tenant, names: list[str], slots: int = 5) -> list[Caller]:
    made = []
    for name in names:
        key, secret = create_key(acting_user=None, team=tenant.team, name=name)
        limit = set_quota(acting_user=None, scope="key", target=key, metric="concurrency", limit=slots)
        set_quota(acting_user=None, scope="key", target=key, metric="budget", limit=Decimal(5), period="day")
        made.append(Caller(name, secret, limit.pk))
    return made


def taken(stack: Stack, people: list[Caller]) -> dict[str, int]:
    """Slots in use by caller, of those who use any."""
    with Redis.from_url(stack.environment["REDIS_URL"]) as client:
        counted = {
            person.name: sum(client.zcard(key) for key in client.scan_iter(f"weir:limit:c:{person.slots}:*"))
            for person in people
        }
    return {name: count for name, count in counted.items() if count}


def nothing_stays(stack: Stack, tenant: Tenant, people: list[Caller]) -> None:
    """Slots are free at once, money returns when workers have had it idle for a moment."""
    with suppress(AssertionError):
        wait_until(lambda: not taken(stack, people), 15)
    assert taken(stack, people) == {}

    def held() -> list[str]:
        with scope(organization=tenant.organization):
            rows = [str(budget) for budget in Budget.objects.filter(held__gt=0)]
            return rows + [str(lease) for lease in Lease.objects.filter(remaining__gt=0)]

    with suppress(AssertionError):
        wait_until(lambda: not held(), 20)
    assert held() == []
    stack.settled()
    books_balance(tenant)


def groups_of_faults(stack: Stack, tenant: Tenant, slug: str) -> None:
    """A model group for each fault, over a provider that only it uses: none rests because of another."""
    for fault in FAULTS:
        name = f"{slug}-{fault}"
        provider = Provider.objects.create(
            name=name,
            kind="simulator",
            base_url=stack.simulator.base_url,
            first_token_timeout=2,
            idle_timeout=2,
        )
        group = ModelGroup.objects.create(name=name)
        deployment = stack.deployment(name, f"sim-{fault}", provider=provider.name)
        GroupDeployment.objects.create(group=group, deployment=deployment)
    with tenant.http() as http:
        wait_for_model(http, name)


def test_a_slot_and_money_are_held_while_a_request_is_under_way(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    people = callers(tenant, ["slow"])
    ask = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": "words=200 pace_ms=20"}],
        "stream": True,
    }
    with (
        tenant.http(people[0].secret) as http,
        http.stream("POST", "/v1/chat/completions", json=ask) as answer,
    ):
        # Kept: an iterator that nobody holds would close the stream.
        pieces = answer.iter_bytes()
        next(pieces)
        assert taken(stack, people) == {"slow": 1}
        with scope(organization=tenant.organization):
            assert Budget.objects.filter(held__gt=0).exists()
            assert Lease.objects.filter(remaining__gt=0).exists()
    nothing_stays(stack, tenant, people)


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_leaks_whatever_the_provider_does(stack: Stack, slug: str, stream: bool) -> None:
    tenant = stack.tenant(slug)
    groups_of_faults(stack, tenant, slug)
    people = callers(tenant, sorted(FAULTS))

    def ask(person: Caller) -> None:
        body = {
            "model": f"{slug}-{person.name}",
            "messages": ASK,
            "stream": stream,
            "user": f"{slug}-{person.name}",
        }
        with tenant.http(person.secret) as http, suppress(httpx.HTTPError):
            http.post("/v1/chat/completions", json=body)

    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(ask, people))
    # Every fault was really met.
    arrived = {line["user"] for line in stack.simulator.log() if (line["user"] or "").startswith(slug)}
    assert arrived == {f"{slug}-{fault}" for fault in FAULTS}
    nothing_stays(stack, tenant, people)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_nothing_leaks_wherever_the_client_leaves(stack: Stack, slug: str, stream: bool, reset: bool) -> None:
    tenant = stack.tenant(slug)
    people = callers(tenant, [f"after-{offset}" for offset in OFFSETS])

    def ask(person: Caller, offset: int) -> None:
        body = {
            "model": "sim-small",
            "messages": [{"role": "user", "content": "words=300 pace_ms=20"}],
            "stream": stream,
            "user": f"{slug}-{offset}",
        }
        with closing(connected(stack)) as client:
            client.sendall(message(person, json.dumps(body).encode()))
            wait_until(lambda: bool(stack.simulator.log(f"{slug}-{offset}")))
            # A plain answer comes at its end, and nobody waits for that here.
            read(client, offset if stream else 0)
            if reset:
                # Hang up with a reset instead of in good order.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(ask, people, OFFSETS))
    nothing_stays(stack, tenant, people)


def test_nothing_leaks_of_clients_that_never_wait(stack: Stack, slug: str) -> None:
    # They leave within the body, right behind it, and a moment later, wherever the gateway is by then.
    tenant = stack.tenant(slug)
    people = callers(tenant, ["half a body", "at once", "soon"])
    body = json.dumps({"model": "sim-small", "messages": ASK, "stream": True}).encode()

    def leave(number: int) -> None:
        person = people[number % 3]
        whole = message(person, body)
        with closing(connected(stack)) as client:
            client.sendall(whole[: len(whole) - len(body) // 2] if person.name == "half a body" else whole)
            if person.name == "soon":
                time.sleep(0.0005 * (number % 20))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(leave, range(180)))
    nothing_stays(stack, tenant, people)


def test_nothing_leaks_of_requests_that_are_refused(stack: Stack, slug: str) -> None:
    # Refused by money, after rate limits had been taken; by the model's name, before anything was.
    tenant = stack.tenant(slug, quotas=[("organization", "budget", "0.0000001", "day")])
    people = callers(tenant, ["poor", "lost"])
    with tenant.http(people[0].secret) as http:
        assert (
            http.post("/v1/chat/completions", json={"model": "sim-small", "messages": ASK}).status_code == 429
        )
    with tenant.http(people[1].secret) as http:
        assert (
            http.post("/v1/chat/completions", json={"model": "no-such", "messages": ASK}).status_code == 404
        )
        assert http.post("/v1/chat/completions", content=b"{").status_code == 400
    nothing_stays(stack, tenant, people)


def connected(stack: Stack) -> socket.socket:
    address = urlsplit(stack.url)
    assert address.hostname is not None
    assert address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=30)


def message(person: Caller, body: bytes) -> bytes:
    """A request as bytes, so that a test can leave at any of them."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {person.secret}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def read(client: socket.socket, count: int) -> None:
    """Read exactly ``count`` bytes; fewer only at the answer's end."""
    while count and (piece := client.recv(count)):
        count -= len(piece)
