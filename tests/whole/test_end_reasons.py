"""Each row of the table of ends in docs/accounting.md, played with a real provider, client and books."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from billing.models import UsageEvent
from billing.services.prices import set_price
from billing.services.quotas import set_quota
from gateway.v1.exchange import Exchange
from routing.models import GroupDeployment, Provider
from tests.simulator.server import wait_until
from tests.stack import COST, PRICE, Stack, Tenant
from tests.v1.conftest import books_balance, events
from tests.v1.test_errors import wait_for_model
from tests.whole.test_leaks import Caller, connected, message

ROWS = re.compile(r"^\| (?P<case>[^|`]+) \| `(?P<reason>\w+)` \|(?P<rest>.*)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    reason: str
    provider: str
    usage: str
    pays: str
    cost: str


def table() -> dict[str, Row]:
    page = (Path(__file__).resolve().parents[2] / "docs" / "accounting.md").read_text()
    section = page.split("## Who pays, by end reason")[1].split("\n## ")[0]
    return {
        found["case"]: Row(found["reason"], *(cell.strip() for cell in found["rest"].split("|")))
        for found in ROWS.finditer(section)
        if found["case"] != "case"
    }


TABLE = table()
Play = Callable[[Stack, Tenant, str], object]


def offered(stack: Stack, tenant: Tenant, name: str, *models: str, **options: Any) -> str:
    """A model group over a provider of its own, so that no other test's circuit is in the way."""
    provider = Provider.objects.create(name=name, kind="simulator", base_url=stack.simulator.base_url)
    for field in ("first_token_timeout", "idle_timeout"):
        if field in options:
            setattr(provider, field, options.pop(field))
    provider.save(update_fields=["first_token_timeout", "idle_timeout"])
    group = stack.group(name, price=None, **options)
    set_price(acting_user=None, model_group=group, **PRICE)
    for position, model in enumerate(models):
        deployment = stack.deployment(f"{name}-{position}", model, cost=None, provider=name)
        set_price(acting_user=None, deployment=deployment, **COST)
        GroupDeployment.objects.create(group=group, deployment=deployment, priority=position)
    with tenant.http() as http:
        wait_for_model(http, name)
    return name


def ask(
    words: str = "one two three",
    *models: str,
    leave: int | None = None,
    timeouts: tuple[float, float] = (60, 30),
) -> Play:
    """A request for ``words`` to ``models``; the client leaves when it has ``leave`` bytes of the answer.

    0: as soon as the provider has the request.
    """

    def play(stack: Stack, tenant: Tenant, slug: str) -> None:
        options: dict[str, Any] = dict(zip(("first_token_timeout", "idle_timeout"), timeouts, strict=True))
        model = offered(stack, tenant, slug, *(models or ("sim-small",)), **options)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": words}],
            "stream": True,
            "user": slug,
        }
        if leave is None:
            with tenant.http() as http:
                http.post("/v1/chat/completions", json=body)
            return
        with connected(stack) as client:
            client.sendall(message(Caller("", tenant.secret, 0), json.dumps(body).encode()))
            wait_until(lambda: bool(stack.simulator.log(slug)))
            left = leave
            while left > 0:
                left -= len(client.recv(4096))

    return play


def half_a_request(stack: Stack, tenant: Tenant, slug: str) -> None:
    body = json.dumps({"model": "sim-small", "messages": [], "user": slug}).encode()
    with connected(stack) as client:
        client.sendall(message(Caller("", tenant.secret, 0), body)[:-10])
        wait_until(lambda: tenant_is_known(stack, tenant))


def tenant_is_known(stack: Stack, tenant: Tenant) -> bool:
    # The worker that reads the body has authenticated by the time another request is answered.
    with tenant.http() as http:
        return http.get("/v1/models").status_code == 200


def without_money(stack: Stack, tenant: Tenant, slug: str) -> None:
    set_quota(
        acting_user=None,
        scope="organization",
        target=tenant.organization,
        metric="budget",
        limit=Decimal("0.0000001"),
        period="day",
    )
    ask()(stack, tenant, slug)


def unknown_model(stack: Stack, tenant: Tenant, slug: str) -> None:
    with tenant.http() as http:
        body = {"model": "no-such", "messages": [{"role": "user", "content": "hi"}], "user": slug}
        assert http.post("/v1/chat/completions", json=body).status_code == 404


def crash(stack: Stack, tenant: Tenant, slug: str) -> None:
    model = offered(stack, tenant, slug, "sim-small")
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "words=500 pace_ms=50"}],
        "stream": True,
        "user": slug,
    }
    with (
        suppress(httpx.HTTPError),
        tenant.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        pieces = answer.iter_bytes()
        next(pieces)
        stack.kill_server()
    stack.start_server()


# An answer ends in time within ABANDONED_SECONDS, four in tests.
PLAYS: dict[str, Play] = {
    "completed": ask(),
    "completed, without usage": ask("one two three", "sim-nousage"),
    "client gone before a provider was asked": half_a_request,
    "client gone before the first byte, the answer ends in time": ask(
        "first_s=2", "sim-first-token-slow", leave=0
    ),
    "client gone before the first byte, no answer in time": ask(
        "silence_s=30", "sim-silence", leave=0, timeouts=(8, 1)
    ),
    "client gone in mid-stream, the answer ends in time": ask("words=60 pace_ms=20", leave=900),
    "client gone in mid-stream, the answer is too long": ask("words=2000 pace_ms=20", leave=900),
    "provider error": ask("one two three", "sim-500"),
    "provider error with usage": ask("after=0", "sim-error-usage"),
    "timeout": ask("silence_s=30", "sim-silence", timeouts=(0.4, 0.4)),
    "cut": ask("one two three", "sim-cut"),
    "cut, with usage": ask("one two three", "sim-error-usage"),
    "refused": without_money,
    "invalid": unknown_model,
    "interrupted by a crash": crash,
}
# By the simulator's log: how the last call of the provider ended.
ENDS = {
    "finishes": {"done"},
    "is stopped": {"client_gone"},
    "ended it": {"error", "cut", "error_midstream"},
}
# Rows with a test of their own, elsewhere or below.
# (the replay's: tests/v1/test_idempotency.py; the hedge loser's: tests/v1/test_hedging.py; what is resumed:
# tests/v1/test_resume.py; what is not valid: tests/dialects/test_exactness.py).
ELSEWHERE = {
    *("defect of the gateway", "answered before, same Idempotency-Key"),
    *("hedge loser", "cut, resumed by another deployment"),
    *("answers that are not valid, and then one that is", "no answer that is valid"),
}


def test_every_row_of_the_table_has_a_test() -> None:
    assert set(TABLE) == set(PLAYS) | ELSEWHERE


@pytest.mark.parametrize("case", list(PLAYS))
def test_a_request_ends_as_its_row_says(stack: Stack, slug: str, case: str) -> None:
    row, tenant = TABLE[case], stack.tenant(slug)
    PLAYS[case](stack, tenant, slug)
    (event,) = wait_for_event(tenant)
    assert (event.end_reason, event.usage_source) == (row.reason, row.usage)
    if row.provider == "is not asked":
        assert stack.simulator.log(slug) == []
    else:
        assert stack.simulator.wait_for_end(slug)[-1]["end"] in ENDS[row.provider]
    given, taken = event.input_tokens, event.output_tokens
    worth = (given * PRICE["input"] + taken * PRICE["output"]) / 1_000_000
    assert event.charge == {"its usage": worth, "nothing": 0}[row.pays]
    wasted = sum(Decimal(attempt.get("wasted", "0")) for attempt in event.attempts)
    used = (given * COST["input"] + taken * COST["output"]) / 1_000_000
    assert event.cost == {"its usage": used, "nothing": 0, "wasted": wasted}[row.cost]
    assert (event.cost > 0) == (row.cost != "nothing")
    if row.usage == "reported":
        end = stack.simulator.wait_for_end(slug)[-1]
        assert (given, taken) == (end["prompt_tokens"], end["completion_tokens"])
    stack.settled()
    books_balance(tenant)


def wait_for_event(tenant: Tenant) -> list[UsageEvent]:
    """The events, once there is one: half a request has no beginning to wait for."""
    wait_until(lambda: bool(events(tenant)))
    return events(tenant)


def test_a_defect_of_the_gateway_costs_the_tenant_nothing() -> None:
    exchange = Exchange("chat.completions", sent=True)
    row = TABLE["defect of the gateway"]
    usage = exchange.ended(row.reason, 500)
    assert (usage.source, exchange.charge, exchange.cost) == ("none", Decimal(0), Decimal(0))
    assert (row.usage, row.pays, row.cost) == ("none", "nothing", "nothing")
