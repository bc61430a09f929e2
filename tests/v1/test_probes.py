"""Background probes: who is left alone comes back without a customer's request, at the operator's cost."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from billing.models import TaskRun
from gateway.celery import app
from gateway.probes import Tally, probe_due
from gateway.tasks import probe
from gateway.v1.board import read_board
from gateway.v1.worker import database_dsn
from routing.credentials import encrypt
from routing.models import Credential, Deployment, GroupDeployment, Provider
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model
from tests.v1.test_faults import grouped
from tests.v1.test_health import answers, answers_of_all_workers, asked

# Every pause ends within this, so that a test need not wait for it.
ANY_PAUSE = 1000.0


def posted(deployment: Deployment) -> dict[str, str]:
    """What is posted of a deployment's circuits: why, by name."""
    notices = asyncio.run(read_board(os.environ["REDIS_URL"]))
    assert notices is not None
    return {notice.key[1]: notice.why for notice in notices if notice.key[0] == deployment.pk}


def probes(stack: Stack, model: str) -> list[dict[str, Any]]:
    """What the provider got from probes for a model."""
    return [
        line
        for line in stack.simulator.log()
        if line["event"] == "arrive"
        and line["model"] == model
        and (line["request_id"] or "").startswith("probe_")
    ]


def probed(ahead: float = ANY_PAUSE) -> Tally:
    return asyncio.run(probe_due(os.environ["REDIS_URL"], database_dsn(), ahead))


def probe_until(holds: Callable[[], bool], look: Callable[[], object] = probed) -> None:
    """Probe until something holds; a customer's probe may have the claim for a while."""

    def probed_and_holds() -> bool:
        look()
        return holds()

    wait_until(probed_and_holds)


def broken_down(stack: Stack, tenant: Tenant, slug: str, model: str = "sim-503") -> Deployment:
    """A lone deployment whose circuit all know to be open."""
    name = grouped(stack, tenant, slug, model)
    answers(tenant, name, slug, 30, 4)
    deployment = Deployment.objects.get(name__startswith=slug)
    wait_until(lambda: bool(posted(deployment)))
    return deployment


def now_has(deployment: Deployment, model: str) -> str:
    """Give it another model at the provider, whose name no other test uses. The simulator finds no fault in it."""
    name = f"{model}-{deployment.pk}"
    Deployment.objects.filter(pk=deployment.pk).update(model=name)
    return name


def test_a_lone_deployment_comes_back_without_a_customers_request(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    deployment = broken_down(stack, tenant, slug)
    customers = len(asked(stack, slug))
    model = now_has(deployment, "sim-small")
    probe_until(lambda: not posted(deployment), look=probe)
    assert len(probes(stack, model)) == 1
    assert len(asked(stack, slug)) == customers
    # Once both workers have read it, and the new model, every customer is served.
    wait_until(lambda: {each.status_code for each in answers_of_all_workers(tenant, slug, slug)} == {200})
    assert Counter(each.status_code for each in answers(tenant, slug, slug, 20, 2)) == {200: 20}


def test_a_probe_that_fails_makes_the_pause_longer_and_is_nobodys_usage(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    deployment = broken_down(stack, tenant, slug)
    recorded = len(events(tenant))

    def openings() -> int:
        found = asyncio.run(read_board(os.environ["REDIS_URL"])) or []
        return next(each.openings for each in found if each.key == (deployment.pk, ""))

    before = openings()
    probe_until(lambda: openings() > before)
    assert len(events(tenant)) == recorded


def test_one_probe_at_a_time_whoever_asks(stack: Stack, tenant: Tenant, slug: str) -> None:
    model = now_has(broken_down(stack, tenant, slug), "sim-small")

    async def together() -> None:
        await asyncio.gather(
            *(probe_due(os.environ["REDIS_URL"], database_dsn(), ANY_PAUSE) for _ in range(5))
        )

    probe_until(lambda: bool(probes(stack, model)), look=lambda: asyncio.run(together()))
    assert len(probes(stack, model)) == 1


def test_what_probes_cost_is_summed_up_in_the_tasks_run(stack: Stack, tenant: Tenant, slug: str) -> None:
    deployment = broken_down(stack, tenant, slug)
    now_has(deployment, "sim-small")
    probe_until(lambda: not posted(deployment), look=probe)
    detail = TaskRun.objects.get(name="probe").detail
    assert detail is not None
    assert detail["probes"] >= detail["recovered"] >= 1
    # At 1 and 4 US dollars a million.
    expected = Decimal(detail["input_tokens"] + 4 * detail["output_tokens"]) / 1_000_000
    assert Decimal(detail["cost"]) == expected > 0


def test_sums_of_rounds_add_up() -> None:
    first = Tally(2, 1, 10, 3, Decimal("0.000022")).plus({})
    assert Tally(1, 0, 5, 1, Decimal("0.000009")).plus(first) == {
        "probes": 3,
        "recovered": 1,
        "input_tokens": 15,
        "output_tokens": 4,
        "cost": "0.000031",
    }


def test_a_deployment_that_answers_embeddings_is_probed_by_an_embedding(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-embed")
    deployment = Deployment.objects.get(name__startswith=slug)
    with tenant.http() as http:

        def embed(count: int) -> set[int]:
            ask = {"model": name, "input": "hello", "user": slug}
            return {http.post("/v1/embeddings", json=ask).status_code for _ in range(count)}

        assert embed(8) == {200}
        Deployment.objects.filter(pk=deployment.pk).update(model="sim-503")
        wait_until(lambda: embed(10) == {503})
    wait_until(lambda: bool(posted(deployment)))
    model = now_has(deployment, "sim-embed")
    probe_until(lambda: not posted(deployment))
    assert [line["path"] for line in probes(stack, model)] == ["/v1/embeddings"]


def test_a_refused_credential_is_probed_and_a_rate_limit_is_not(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    limited = broken_down(stack, tenant, slug, "sim-429")
    assert set(posted(limited).values()) == {"rate_limited"}
    rested = now_has(limited, "sim-small")
    other = f"{slug}-key"
    provider = Provider.objects.create(name=other, kind="simulator", base_url=stack.simulator.base_url)
    Credential.objects.create(provider=provider, ciphertext=encrypt("bad"))
    refused = stack.deployment(f"{other}-0", "sim-small", provider=other)
    GroupDeployment.objects.create(group=stack.group(other), deployment=refused)
    with tenant.http() as http:
        wait_for_model(http, other)
    answers(tenant, other, slug, 8, 2)
    wait_until(lambda: "credential" in posted(refused).values())
    model = now_has(refused, "sim-small")
    probe_until(lambda: bool(probes(stack, model)))
    assert probes(stack, rested) == []


def test_what_is_drained_is_not_probed(stack: Stack, tenant: Tenant, slug: str) -> None:
    deployment = broken_down(stack, tenant, slug)
    GroupDeployment.objects.filter(deployment=deployment).update(weight=0)
    model = now_has(deployment, "sim-small")
    # By then no customer's probe has the claim any more.
    time.sleep(2)
    probed()
    assert probes(stack, model) == []


@pytest.mark.django_db
def test_without_redis_nobody_is_probed_and_nothing_fails() -> None:
    tally = asyncio.run(probe_due("redis://127.0.0.1:1/0", database_dsn(), ANY_PAUSE))
    assert tally.probes == 0


def test_probes_are_on_the_clock() -> None:
    assert app.conf.beat_schedule["probes"]["schedule"] == 2.0
