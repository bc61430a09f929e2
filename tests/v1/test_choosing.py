"""What a caller can say about where its request goes, and what it is told about where it went."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import openai
import orjson
import pytest
from django.db import transaction

from billing.services.quotas import set_quota
from gateway.v1.facts import chat_facts
from routing.models import Deployment, GroupDeployment
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model
from tests.v1.test_faults import ASK, grouped


def ask(tenant: Tenant, model: str, **headers: str) -> httpx.Response:
    """One request of at most ten tokens of answer."""
    with tenant.http() as http:
        return http.post(
            "/v1/chat/completions",
            json={"model": model, "messages": ASK, "max_tokens": 10},
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


def test_a_ceiling_below_the_worst_case_is_refused_with_both_amounts(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-small")
    answer = ask(tenant, name, x_weir_max_cost="0.0001")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "max_cost_exceeded"
    size = len(answer.request.content)
    # At most a token a byte at $2.00, and ten tokens at $8.00 per million.
    most = (size * Decimal(2) + 10 * Decimal(8)) / 1_000_000
    assert f"is $0.0001, and the cheapest deployment for it may cost up to ${most:f}." in error["message"]
    assert ask(tenant, name, x_weir_max_cost="0.01").status_code == 200


@pytest.mark.parametrize("value", ["", "cheap", "-1", "1e3", "NaN", "0,05"])
def test_a_ceiling_that_is_no_amount_is_refused_by_name(tenant: Tenant, value: str) -> None:
    answer = ask(tenant, "sim-small", x_weir_max_cost=value)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Weir-Max-Cost"


def test_a_region_is_kept_to_over_fallbacks(stack: Stack, tenant: Tenant, slug: str) -> None:
    other = f"{slug}-us"
    stack.group(other, "sim-small")
    Deployment.objects.filter(name__startswith=other).update(region="us")
    group = stack.group(slug, "sim-500", fallbacks={"on_error": [other]})
    Deployment.objects.filter(groups__group=group).update(region="eu")
    with tenant.http() as http:
        wait_for_model(http, slug)
    assert ask(tenant, slug).status_code == 200
    assert ask(tenant, slug, x_weir_region="eu").status_code == 502
    refused = ask(tenant, other, x_weir_region="eu")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "region_unavailable")
    assert ask(tenant, other, x_weir_region="EU!").json()["error"]["param"] == "X-Weir-Region"


def test_an_organization_restricted_to_a_region_never_leaves_it(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, regions=["eu"])
    name = grouped(stack, tenant, slug, "sim-small")
    for headers in ({}, {"x_weir_region": "us"}):
        assert ask(tenant, name, **headers).json()["error"]["code"] == "region_unavailable"
    Deployment.objects.filter(name__startswith=slug).update(region="eu")
    tenant_us = stack.tenant(f"{slug}-us", regions=["us"])
    wait_until(lambda: ask(tenant, name).status_code == 200)
    assert ask(tenant_us, name).status_code == 400


def test_a_deployment_asked_for_by_name_answers_and_has_no_fallback(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-small", "sim-500", "sim-large")
    answer = ask(tenant, f"{name}/{slug}-2-sim-large")
    assert answer.headers["x-weir-deployment"] == f"{slug}-2-sim-large"
    assert ask(tenant, f"{name}/{slug}-1-sim-500").status_code == 502
    first, second = events(tenant)
    assert (first.model_group, first.deployment) == (name, f"{slug}-2-sim-large")
    assert [attempt["deployment"] for attempt in second.attempts] == [f"{slug}-1-sim-500"]


def test_a_quota_on_the_group_binds_a_deployment_asked_for_by_name(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    name = grouped(stack, tenant, slug, "sim-small")
    set_quota(
        acting_user=None,
        scope="key",
        target=tenant.key,
        metric="requests_per_minute",
        limit=Decimal(1),
        model_group=name,
    )
    wait_until(lambda: 429 in {ask(tenant, f"{name}/{slug}-0-sim-small").status_code for _ in range(4)})


def test_a_deployment_that_is_not_to_be_asked_for_by_name_is_not_found(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    group = stack.group(slug, "sim-small", "sim-large")
    stack.group(f"{slug}-closed", "sim-fast", pin=False)
    GroupDeployment.objects.filter(group=group, priority=1).update(weight=0)
    with tenant.http() as http:
        wait_for_model(http, f"{slug}-closed")
    models = {
        "of another group": f"{slug}/sim-small-0-sim-small",
        "nowhere": f"{slug}/nothing",
        "drained": f"{slug}/{slug}-1-sim-large",
        "closed": f"{slug}-closed/{slug}-closed-0-sim-fast",
    }
    said = {why: ask(tenant, model) for why, model in models.items()}
    assert {answer.status_code for answer in said.values()} == {404}
    assert {answer.json()["error"]["code"] for answer in said.values()} == {"model_not_found"}
    assert "drained" in said["drained"].json()["error"]["message"]


def test_a_key_that_may_not_use_the_group_may_not_ask_for_its_deployments(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, model_groups=["sim-embed"])
    with pytest.raises(openai.NotFoundError):
        tenant.client().chat.completions.create(model="sim-small/sim-small-0-sim-small", messages=ASK)


@pytest.mark.parametrize("stream", [False, True])
def test_headers_that_an_organization_hides_are_not_sent(stack: Stack, slug: str, stream: bool) -> None:
    tenant = stack.tenant(slug, hidden_headers=["x-request-id", "x-weir-deployment"])
    completions: Any = tenant.client().chat.completions
    answer = completions.with_raw_response.create(model="sim-small", messages=ASK, stream=stream)
    names = {name.lower() for name in answer.headers}
    assert not names & {"x-request-id", "x-weir-deployment"}
    assert "x-weir-attempts" in names
    refused = ask(tenant, "nothing")
    assert refused.status_code == 404
    assert "x-request-id" not in refused.headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("models", [("sim-small",), ("sim-500", "sim-large")])
def test_the_answers_model_is_the_one_that_really_answered(
    stack: Stack, tenant: Tenant, slug: str, models: tuple[str, ...], stream: bool
) -> None:
    name = grouped(stack, tenant, slug, *models)
    answer: Any = tenant.client().chat.completions.create(model=name, messages=ASK, stream=stream)
    assert {each.model for each in answer} == {models[-1]} if stream else answer.model == models[-1]


def test_a_ceiling_of_the_group_counts_without_the_header(stack: Stack, tenant: Tenant, slug: str) -> None:
    stack.group(slug, "sim-small", max_cost=Decimal("0.000001"))
    with tenant.http() as http:
        wait_for_model(http, slug)
    assert ask(tenant, slug).json()["error"]["code"] == "max_cost_exceeded"


AUDIO = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("needed", "first", "said"),
    [
        ({"stream": True}, ["tools", "no_streaming"], ["tools"]),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, ["audio"], ["vision"]),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, ["vision"], ["tools"]),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
            ["tools"],
            ["json_schema"],
        ),
    ],
    ids=["stream", "image", "tools", "schema"],
)
def test_a_request_goes_to_who_can_do_what_it_needs(
    stack: Stack, tenant: Tenant, slug: str, needed: dict[str, Any], first: list[str], said: list[str]
) -> None:
    with transaction.atomic():
        stack.group(slug, "sim-small", "sim-large")
        places = Deployment.objects.filter(name__startswith=slug)
        places.filter(model="sim-small").update(capabilities=first)
        places.filter(model="sim-large").update(capabilities=said)
    with tenant.http() as http:
        wait_for_model(http, slug)
        body = {"model": slug, "messages": ASK, "max_tokens": 10}
        plain = http.post("/v1/chat/completions", json=body)
        answer = http.post("/v1/chat/completions", json={**body, **needed})
    assert plain.headers["x-weir-deployment"] == f"{slug}-0-sim-small"
    assert answer.headers["x-weir-deployment"] == f"{slug}-1-sim-large"


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({}, set()),
        ({"stream": True}, {"streaming"}),
        ({"messages": [{"role": "user", "content": [AUDIO]}]}, {"audio"}),
        (
            {"messages": [{"role": "user", "content": [AUDIO, IMAGE]}], "stream": True},
            {"audio", "vision", "streaming"},
        ),
        ({"modalities": ["text", "audio"]}, {"audio"}),
    ],
)
def test_what_a_chat_needs(more: dict[str, Any], needs: set[str]) -> None:
    assert chat_facts(orjson.dumps({"model": "m", "messages": ASK, **more}), "").needs == needs
