"""Hedging: a second attempt at another deployment when the first is later than usual."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing.models import UsageEvent
from routing.models import Deployment, ModelGroup
from tests.simulator.server import wait_until
from tests.stack import COST, PRICE, Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_faults import grouped
from tests.whole.test_end_reasons import TABLE, Row
from tests.whole.test_leaks import Caller, connected, message

MILLION = 1_000_000
FIRST, SECOND = "-0-sim-small", "-1-sim-large"


def many(tenant: Tenant, body: dict[str, Any], times: int = 160) -> list[httpx.Response]:
    """So many requests over connections enough for both workers."""
    with tenant.http() as http, ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: http.post("/v1/chat/completions", json=body), range(times)))


def body_of(model: str, text: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def slowed(tenant: Tenant, name: str, *places: str) -> None:
    """Make the group's deployments slow, and wait until both workers know."""
    for place in places:
        Deployment.objects.filter(name=name + place).update(model="sim-first-token-slow")

        def known(place: str = place) -> bool:
            answers = many(tenant, body_of(f"{name}/{name}{place}", "first_s=0"), 16)
            return {answer.json().get("model") for answer in answers} == {"sim-first-token-slow"}

        wait_until(known)


def hedging(stack: Stack, tenant: Tenant, name: str, *places: str, stream: bool = False) -> str:
    """A group that hedges, of which the workers know how fast it usually is, and slow deployments since."""
    grouped(stack, tenant, name, "sim-small", "sim-large", hedge=True)
    assert {answer.status_code for answer in many(tenant, body_of(name, "one", stream=stream))} == {200}
    slowed(tenant, name, *places)
    return name


def twice(tenant: Tenant) -> list[UsageEvent]:
    """The events of requests that were hedged because of what they asked, not by chance before."""
    return [
        event
        for event in events(tenant)
        if len(event.attempts) == 2 and event.end_user == tenant.organization.slug
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_late_request_is_answered_by_another_deployment_and_the_tenant_pays_only_for_that(
    stack: Stack, tenant: Tenant, slug: str, stream: bool
) -> None:
    name = hedging(stack, tenant, slug, FIRST, stream=stream)
    # One of the workers may have been asked too little to hedge yet.
    answers = many(tenant, body_of(name, "one two first_s=2", stream=stream, user=slug), 16)
    assert {answer.status_code for answer in answers} == {200}
    assert "2" in {answer.headers["x-weir-attempts"] for answer in answers}
    event = twice(tenant)[0]
    loser, winner = event.attempts
    assert TABLE["hedge loser"] == Row(
        event.end_reason, "is stopped", event.usage_source, "its usage", "its usage, and wasted"
    )
    assert (loser["reason"], winner["reason"]) == ("hedge_loser", "ok")
    assert (event.end_reason, event.deployment) == ("completed", name + SECOND)
    assert event.charge == (3 * PRICE["input"] + 10 * PRICE["output"]) / MILLION
    # The prompt that the slow provider has is estimated, and the operator's.
    wasted = Decimal(loser["wasted"])
    assert wasted > 0
    assert event.cost == (3 * COST["input"] + 10 * COST["output"]) / MILLION + wasted
    if stream:
        # It had sent its headers, so it could be stopped at once.
        wait_until(
            lambda: "client_gone" in {line.get("end") for line in stack.simulator.log(slug) if "end" in line}
        )


def test_no_more_than_a_share_of_the_requests_is_sent_twice(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = hedging(stack, tenant, slug, FIRST)
    many(tenant, body_of(name, "one two first_s=0.3", user=slug), 60)
    # Each of two workers had saved up five at most, and one in twenty of 60 comes to it.
    assert 1 <= len(twice(tenant)) <= 13


def test_a_group_that_does_not_hedge_waits(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = hedging(stack, tenant, slug)
    ModelGroup.objects.filter(name=name).update(hedge=False)
    # What both workers learn after it tells that they have learned it.
    slowed(tenant, name, FIRST)
    answers = many(tenant, body_of(name, "one two first_s=0.5", user=slug), 16)
    assert {answer.headers["x-weir-attempts"] for answer in answers} == {"1"}


def test_a_client_that_leaves_while_two_are_asked_pays_for_one(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = hedging(stack, tenant, slug, FIRST, SECOND, stream=True)
    body = json.dumps(body_of(name, "one two first_s=20", stream=True, user=slug))
    people = [connected(stack) for _ in range(16)]
    for person in people:
        person.sendall(message(Caller("", tenant.secret, 0), body.encode()))
    wait_until(lambda: len([line for line in stack.simulator.log(slug) if line["event"] == "arrive"]) > 16)
    for person in people:
        with closing(person):
            pass
    wait_until(lambda: bool(twice(tenant)))
    event = twice(tenant)[0]
    assert (event.end_reason, event.usage_source) == ("client_gone", "estimated")
    assert [attempt["reason"] for attempt in event.attempts] == ["hedge_loser", "client_gone"]
    assert event.deployment == name + FIRST
    assert event.charge == event.input_tokens * PRICE["input"] / MILLION
    assert event.cost == 2 * event.input_tokens * COST["input"] / MILLION
