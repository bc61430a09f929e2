"""An outage, a bad credential, a slow provider: who is asked, how often, and what the callers hear."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from routing.credentials import encrypt
from routing.models import Credential, Deployment, GroupDeployment, Provider
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.test_errors import wait_for_model
from tests.v1.test_faults import ASK, WAITS_3_S, grouped, unhurried


def asked(stack: Stack, slug: str) -> list[dict[str, Any]]:
    """What the provider got from the user ``slug``."""
    return [line for line in stack.simulator.log(slug) if line["event"] == "arrive"]


def answers(tenant: Tenant, model: str, slug: str, requests: int, abreast: int = 16) -> list[httpx.Response]:
    """So many requests, ``abreast`` at a time."""
    ask = {"model": model, "messages": ASK, "user": slug}
    with tenant.http() as http, ThreadPoolExecutor(abreast) as pool:
        return list(pool.map(lambda _: http.post("/v1/chat/completions", json=ask), range(requests)))


def answers_of_all_workers(tenant: Tenant, model: str, slug: str) -> list[httpx.Response]:
    """Requests over connections of their own, so many that every worker gets some: which one does is chance."""
    ask = {"model": model, "messages": ASK, "user": slug}
    with tenant.http() as http:
        return [
            http.post("/v1/chat/completions", json=ask, headers={"connection": "close"}) for _ in range(24)
        ]


def test_an_outage_of_the_only_deployment_costs_the_provider_little_and_every_caller_hears_why(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-503")
    heard = answers(tenant, name, slug, 1000)
    assert {answer.status_code for answer in heard} == {502, 503}
    # The first failures, up to 16 under way when the circuit opens, and a probe now and then.
    assert len(asked(stack, slug)) <= 60
    refused = [answer for answer in heard if answer.status_code == 503]
    assert all(1 <= int(answer.headers["retry-after"]) <= 24 for answer in refused)
    assert {answer.json()["error"]["code"] for answer in refused} == {"provider_unavailable"}
    assert "provider's fault" in refused[-1].json()["error"]["message"]


def test_a_recovered_deployment_serves_again(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-503")
    answers(tenant, name, slug, 20)
    Deployment.objects.filter(name__startswith=slug).update(model="sim-small")
    wait_until(lambda: {answer.status_code for answer in answers_of_all_workers(tenant, name, slug)} == {200})


def test_while_a_deployment_fails_its_fallback_answers_without_asking_it_first(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-503", "sim-small")
    heard = answers(tenant, name, slug, 200)
    assert {answer.status_code for answer in heard} == {200}
    failed = [line for line in asked(stack, slug) if line["model"] == "sim-503"]
    assert len(failed) <= 60
    assert Counter(answer.headers["x-weir-attempts"] for answer in heard)["1"] >= 140


def test_client_errors_never_open_the_circuit(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-400-context")
    heard = answers(tenant, name, slug, 60)
    assert {answer.json()["error"]["code"] for answer in heard} == {"context_length_exceeded"}
    assert len(asked(stack, slug)) == 60


def test_a_model_that_the_provider_does_not_know_is_left_alone_and_its_fallback_answers(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "gone", "sim-small")
    heard = answers(tenant, name, slug, 100, 4)
    assert {answer.status_code for answer in heard} == {200}
    # Five at each worker, those under way meanwhile, and a probe.
    assert len([line for line in asked(stack, slug) if line["model"] == "gone"]) <= 16


def test_without_a_fallback_the_caller_hears_that_the_model_is_not_known(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "gone")
    last = answers(tenant, name, slug, 40, 4)[-1]
    assert last.status_code == 503
    assert "does not know the model" in last.json()["error"]["message"]
    assert 1 <= int(last.headers["retry-after"]) <= 6
    assert len(asked(stack, slug)) <= 16


def test_embeddings_of_a_chat_model_close_it_for_nobodys_chat(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-small")
    with tenant.http() as http:
        for _ in range(30):
            http.post("/v1/embeddings", json={"model": name, "input": "hello", "user": slug})
    assert {answer.status_code for answer in answers(tenant, name, slug, 20, 2)} == {200}


def test_a_lasting_rate_limit_is_not_hammered_and_is_told_as_the_providers(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-429")
    heard = answers(tenant, name, slug, 300)
    assert {answer.json()["error"]["code"] for answer in heard} == {"provider_rate_limited"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in heard)
    assert len(asked(stack, slug)) <= 50


def test_a_refused_credential_goes_and_the_good_one_serves(stack: Stack, tenant: Tenant, slug: str) -> None:
    provider = Provider.objects.create(name=slug, kind="simulator", base_url=stack.simulator.base_url)
    for secret in ("good", "bad"):
        Credential.objects.create(provider=provider, ciphertext=encrypt(secret))
    group = stack.group(slug)
    GroupDeployment.objects.create(group=group, deployment=stack.deployment(slug, "sim-small", provider=slug))
    with tenant.http() as http:
        wait_for_model(http, slug)
    heard = answers(tenant, slug, slug, 100, 8)
    assert {answer.status_code for answer in heard} == {200}
    # With a bad one that stayed, half of them would have needed two.
    assert Counter(answer.headers["x-weir-attempts"] for answer in heard)["2"] <= 16


@pytest.mark.parametrize("stream", [False, True])
def test_a_callers_patience_leaves_time_for_the_fallback(
    stack: Stack, tenant: Tenant, slug: str, stream: bool
) -> None:
    name = unhurried(stack, tenant, slug, "sim-silence", "sim-small")
    client = tenant.client(timeout=30)
    answer: Any = client.chat.completions.create(
        model=name, messages=ASK, stream=stream, extra_headers=WAITS_3_S
    )
    last = list(answer)[-1] if stream else answer
    assert last.choices[0].finish_reason == "stop"


def test_without_a_fallback_the_caller_hears_of_the_silence_in_time(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = unhurried(stack, tenant, slug, "sim-silence")
    with pytest.raises(openai.InternalServerError) as caught:
        tenant.client(timeout=30).chat.completions.create(model=name, messages=ASK, extra_headers=WAITS_3_S)
    assert caught.value.code == "provider_timeout"


def test_a_connection_that_fails_is_tried_a_second_time_where_nobody_else_is_left(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    Provider.objects.create(name=slug, kind="simulator", base_url="http://127.0.0.1:9/v1")
    group = stack.group(slug)
    GroupDeployment.objects.create(group=group, deployment=stack.deployment(slug, "sim-small", provider=slug))
    with tenant.http() as http:
        wait_for_model(http, slug)
    (answer,) = answers(tenant, slug, slug, 1)
    assert answer.status_code == 502
    from tests.v1.conftest import events

    (event,) = events(tenant)
    first, second = event.attempts
    assert (first["reason"], second["reason"]) == ("connect", "connect")
    # After a pause of at least 50 ms.
    assert second["started_ms"] - first["started_ms"] >= 50
