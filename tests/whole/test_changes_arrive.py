"""A change reaches each of two workers within a second, without a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest
from django.db import transaction

from routing.models import Deployment, GroupDeployment, ModelGroup
from tenants.services.keys import create_key, revoke_key
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant

WITHIN = 1.0
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def two_servers(
    stack: Stack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[str]]:
    """Addresses of two workers, each a server of its own, so that a test knows which it asks."""
    directory = tmp_path_factory.mktemp("other")
    other = Stack(
        stack.url, directory, stack.simulator, {**stack.environment, "WEIR_DATA_DIR": str(directory)}, 1
    )
    from tests.stack import free_port

    servers = []
    for _ in range(2):
        each = Stack(f"http://127.0.0.1:{free_port()}", directory, stack.simulator, other.environment, 1)
        each.start_server()
        servers.append(each)
    other.start_shipper()
    yield [each.url for each in servers]
    for each in servers:
        each.stop()
    other.stop()


def ask(url: str, secret: str, model: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/chat/completions",
        json={"model": model, **ASK},
        headers={"Authorization": f"Bearer {secret}"},
    )


def test_a_revoked_key_is_refused_by_both_workers(two_servers: list[str], stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    key, secret = create_key(acting_user=None, team=tenant.team, name="short")
    # Both workers know the key.
    assert [ask(url, secret, "sim-small").status_code for url in two_servers] == [200, 200]
    revoke_key(acting_user=None, key=key)
    time.sleep(WITHIN)
    assert [ask(url, secret, "sim-small").status_code for url in two_servers] == [401, 401]


def test_a_switched_deployment_answers_on_both_workers(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    group = stack.group(slug, "sim-small", "sim-large")
    time.sleep(WITHIN)
    assert answering(two_servers, tenant, slug) == ["sim-small", "sim-small"]
    second = Deployment.objects.get(name=f"{slug}-1-sim-large")
    GroupDeployment.objects.filter(group=group).exclude(deployment=second).update(weight=0)
    time.sleep(WITHIN)
    assert answering(two_servers, tenant, slug) == ["sim-large", "sim-large"]


def test_a_new_quota_binds_on_both_workers(two_servers: list[str], stack: Stack, slug: str) -> None:
    from decimal import Decimal

    from billing.services.quotas import set_quota

    tenant = stack.tenant(slug)
    assert [ask(url, tenant.secret, "sim-small").status_code for url in two_servers] == [200, 200]
    set_quota(
        acting_user=None,
        scope="key",
        target=tenant.key,
        metric="budget",
        limit=Decimal("0.0000001"),
        period="day",
    )
    time.sleep(WITHIN)
    assert [ask(url, tenant.secret, "sim-small").status_code for url in two_servers] == [429, 429]


def test_changes_under_load_arrive_within_a_second_and_fail_no_request(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    stack.group(f"{slug}-other", "sim-fast")
    group = stack.group(slug, "sim-small", "sim-large")
    time.sleep(WITHIN)
    seen: list[tuple[float, int, str]] = []
    over = Event()

    def load(url: str) -> None:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {tenant.secret}"}) as http:
            while not over.is_set():
                began = time.monotonic()
                answer = http.post("/v1/chat/completions", json={"model": slug, **ASK})
                seen.append((began, answer.status_code, answer.json().get("model", "")))

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load, url) for url in two_servers * 2]
        try:
            time.sleep(WITHIN / 2)
            GroupDeployment.objects.filter(group=group, priority=0).update(weight=0)
            drained = time.monotonic() + WITHIN
            time.sleep(2 * WITHIN)
            ModelGroup.objects.filter(pk=group.pk).update(fallbacks={"on_error": [f"{slug}-other"]})
            time.sleep(WITHIN)
            # From here on only the new fallback can answer.
            breaking = time.monotonic()
            Deployment.objects.filter(name=f"{slug}-1-sim-large").update(model="sim-500")
            broken = time.monotonic() + WITHIN
            time.sleep(2 * WITHIN)
        finally:
            over.set()
        for each in running:
            each.result()
    assert {status for _, status, _ in seen} == {200}
    assert {model for began, _, model in seen if drained < began < breaking - WITHIN / 2} == {"sim-large"}
    assert {model for began, _, model in seen if began > broken} == {"sim-fast"}


def test_weights_that_change_under_load_hold_within_a_second_on_both_workers_and_fail_no_request(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    group = stack.group(slug, "sim-small", "sim-large", strategy="weighted")
    members = GroupDeployment.objects.filter(group=group)
    members.filter(priority=0).update(weight=99)
    time.sleep(WITHIN)
    seen: list[tuple[str, float, int, str]] = []
    over = Event()

    def load(url: str) -> None:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {tenant.secret}"}) as http:
            while not over.is_set():
                began = time.monotonic()
                answer = http.post("/v1/chat/completions", json={"model": slug, **ASK})
                seen.append((url, began, answer.status_code, answer.json().get("model", "")))
                time.sleep(0.01)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load, url) for url in two_servers * 2]
        try:
            time.sleep(WITHIN)
            with transaction.atomic():
                members.filter(priority=0).update(weight=1)
                members.filter(priority=1).update(weight=99)
            changed = time.monotonic()
            wait_until(lambda: all(_after(seen, url, changed + WITHIN) >= 20 for url in two_servers), 30)
        finally:
            over.set()
        for each in running:
            each.result()
    assert {status for *_, status, _ in seen} == {200}
    for url in two_servers:
        before = [model for at, began, _, model in seen if at == url and began < changed]
        after = [model for at, began, _, model in seen if at == url and began > changed + WITHIN]
        # 99 of 100 go there; that a fifth of twenty or more does not has a chance of one in ten thousand.
        assert before.count("sim-small") > 0.8 * len(before)
        assert after.count("sim-large") > 0.8 * len(after)


def _after(seen: list[tuple[str, float, int, str]], url: str, moment: float) -> int:
    """How many requests one worker got after a moment."""
    return sum(at == url and began > moment for at, began, *_ in seen)


def answering(urls: list[str], tenant: Tenant, group: str) -> list[str]:
    """The provider's model that answers at each address."""
    return [ask(url, tenant.secret, group).json()["model"] for url in urls]
