"""A change reaches each of two workers without a restart, and fails no request on its way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import httpx
import pytest
from django.db import transaction

from routing.models import Deployment, GroupDeployment, ModelGroup
from tenants.services.keys import create_key, pause_key, resume_key, revoke_key
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant, wait_for_workers

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
    wait_until(lambda: [ask(url, secret, "sim-small").status_code for url in two_servers] == [401, 401])


def test_a_paused_key_is_refused_by_both_workers_until_it_is_resumed(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    for change, status in ((pause_key, 401), (resume_key, 200)):
        change(acting_user=None, key=tenant.key)
        wait_until(
            lambda: {ask(url, tenant.secret, "sim-small").status_code for url in two_servers} == {status}  # noqa: B023 - it is over within the turn
        )


def test_a_switched_deployment_answers_on_both_workers(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    group = stack.group(slug, "sim-small", "sim-large")
    wait_until(lambda: answering(two_servers, tenant, slug) == ["sim-small", "sim-small"])
    second = Deployment.objects.get(name=f"{slug}-1-sim-large")
    GroupDeployment.objects.filter(group=group).exclude(deployment=second).update(weight=0)
    wait_until(lambda: answering(two_servers, tenant, slug) == ["sim-large", "sim-large"])


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
    wait_until(
        lambda: [ask(url, tenant.secret, "sim-small").status_code for url in two_servers] == [429, 429]
    )


def test_a_blocked_end_user_is_refused_by_both_workers_until_unblocked(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    from billing.services.end_users import block_end_user, unblock_end_user

    tenant = stack.tenant(slug)

    def statuses() -> list[int]:
        return [
            httpx.post(
                f"{url}/v1/chat/completions",
                json={"model": "sim-small", "user": "mallory", **ASK},
                headers={"Authorization": f"Bearer {tenant.secret}"},
            ).status_code
            for url in two_servers
        ]

    assert statuses() == [200, 200]
    block_end_user(acting_user=None, organization=tenant.organization, end_user="mallory")
    wait_until(lambda: statuses() == [403, 403])
    unblock_end_user(acting_user=None, organization=tenant.organization, end_user="mallory")
    wait_until(lambda: statuses() == [200, 200])


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer under load: by which worker, when it was asked for, and what it was."""

    url: str
    began: float
    status: int
    model: str


@contextmanager
def load(urls: list[str], tenant: Tenant, model: str) -> Iterator[list[Seen]]:
    """Two clients at each worker that ask all the time; yields what they see, while it grows."""
    seen: list[Seen] = []
    over = Event()

    def client(url: str) -> None:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {tenant.secret}"}) as http:
            while not over.is_set():
                began = time.monotonic()
                answer = http.post("/v1/chat/completions", json={"model": model, **ASK})
                seen.append(Seen(url, began, answer.status_code, answer.json().get("model", "")))
                time.sleep(0.01)

    with ThreadPoolExecutor(2 * len(urls)) as pool:
        running = [pool.submit(client, url) for url in urls * 2]
        try:
            yield seen
        finally:
            over.set()
        for each in running:
            each.result()


def known_to_all(seen: list[Seen], urls: list[str], model: str, since: float) -> float:
    """Wait until ``model`` has answered at each worker after ``since``; returns the moment when it had."""
    wait_until(
        lambda: all(
            any(each.url == url and each.began > since and each.model == model for each in seen)
            for url in urls
        )
    )
    return time.monotonic()


def wait_for_more(seen: list[Seen], urls: list[str], requests: int, since: float) -> None:
    """Wait until each worker has answered so many requests that began after ``since``."""
    wait_until(
        lambda: all(sum(each.url == url and each.began > since for each in seen) >= requests for url in urls)
    )


def test_changes_under_load_arrive_and_fail_no_request(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    stack.group(f"{slug}-other", "sim-fast")
    group = stack.group(slug, "sim-small", "sim-large")
    wait_until(lambda: answering(two_servers, tenant, slug) == ["sim-small", "sim-small"])
    with load(two_servers, tenant, slug) as seen:
        wait_for_more(seen, two_servers, 10, 0)
        changed = time.monotonic()
        GroupDeployment.objects.filter(group=group, priority=0).update(weight=0)
        drained = known_to_all(seen, two_servers, "sim-large", changed)
        wait_for_more(seen, two_servers, 20, drained)
        other = time.monotonic()
        ModelGroup.objects.filter(pk=group.pk).update(fallbacks={"on_error": [f"{slug}-other"]})
        # Then only the new fallback can answer, and a worker must know of it by then.
        wait_for_workers()
        Deployment.objects.filter(name=f"{slug}-1-sim-large").update(model="sim-500")
        broken = known_to_all(seen, two_servers, "sim-fast", other)
        wait_for_more(seen, two_servers, 20, broken)
    assert {each.status for each in seen} == {200}
    assert {each.model for each in seen if drained < each.began < other} == {"sim-large"}
    assert {each.model for each in seen if each.began > broken} == {"sim-fast"}


def test_weights_that_change_under_load_hold_on_both_workers_and_fail_no_request(
    two_servers: list[str], stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    group = stack.group(slug, "sim-small", "sim-large", strategy="weighted")
    members = GroupDeployment.objects.filter(group=group)
    members.filter(priority=0).update(weight=99)
    # The group may have been read in between, with both at 1.
    wait_for_workers()
    with load(two_servers, tenant, slug) as seen:
        wait_for_more(seen, two_servers, 30, 0)
        changed = time.monotonic()
        with transaction.atomic():
            members.filter(priority=0).update(weight=1)
            members.filter(priority=1).update(weight=99)

        def mostly_large(url: str) -> bool:
            last = [each.model for each in seen if each.url == url][-20:]
            return last.count("sim-large") > 10

        wait_until(lambda: all(mostly_large(url) for url in two_servers))
        known = time.monotonic()
        wait_for_more(seen, two_servers, 30, known)
    assert {each.status for each in seen} == {200}
    for url in two_servers:
        before = [each.model for each in seen if each.url == url and each.began < changed]
        after = [each.model for each in seen if each.url == url and each.began > known]
        # 99 of 100 go there; that a fifth of thirty does not has a chance of one in a million.
        assert before.count("sim-small") > 0.8 * len(before)
        assert after.count("sim-large") > 0.8 * len(after)


def answering(urls: list[str], tenant: Tenant, group: str) -> list[str]:
    """The provider's model that answers at each address, or "" where the group is not known yet."""
    return [ask(url, tenant.secret, group).json().get("model", "") for url in urls]
