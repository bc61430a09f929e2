"""Bad input: each fault its own clear error in OpenAI's shape, never a 500, and nothing stays reserved."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest

from tenants.services.keys import create_key, pause_key, resume_key, revoke_key, rotate_key
from tests.stack import COST, Stack, Tenant, wait_for_workers
from tests.v1.conftest import events

GOOD: dict[str, Any] = {"model": "sim-small", "messages": [{"role": "user", "content": "hi"}]}


def refused(answer: httpx.Response, status: int, code: str | None, param: str | None = None) -> str:
    """Check an error answer whole; returns its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    return str(error["message"])


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "missing_body", None),
        (b"{not json", "invalid_json", None),
        (b"[1]", "invalid_type", None),
        (b"\xff\xfe", "invalid_json", None),
        (b"{}", "missing_required_parameter", "model"),
        (b'{"model": 7}', "invalid_type", "model"),
        (b'{"model": "sim-small"}', "missing_required_parameter", "messages"),
        (b'{"model": "sim-small", "messages": []}', "empty_array", "messages"),
        (b'{"model": "sim-small", "messages": "hi"}', "invalid_type", "messages"),
        (b'{"model": "sim-small", "messages": [7]}', "invalid_type", "messages[0]"),
        (
            b'{"model": "sim-small", "messages": [{"role": "user", "content": 7}]}',
            "invalid_type",
            "messages[0].content",
        ),
    ],
)
def test_a_body_that_is_no_chat_request_is_a_400(
    tenant: Tenant, body: bytes, code: str, param: str | None
) -> None:
    with tenant.http() as http:
        refused(http.post("/v1/chat/completions", content=body), 400, code, param)


@pytest.mark.parametrize(
    ("member", "value", "code"),
    [
        ("stream", "yes", "invalid_type"),
        ("max_tokens", 0, "integer_below_min_value"),
        ("max_tokens", "7", "invalid_type"),
        ("max_tokens", 2**40, "integer_above_max_value"),
        ("n", 0, "integer_below_min_value"),
        ("n", 1000, "integer_above_max_value"),
        ("stream_options", [], "invalid_type"),
    ],
)
def test_a_parameter_of_a_wrong_kind_is_named(tenant: Tenant, member: str, value: object, code: str) -> None:
    with tenant.http() as http:
        refused(http.post("/v1/chat/completions", json={**GOOD, member: value}), 400, code, member)


def test_a_body_over_the_limit_is_a_413(tenant: Tenant) -> None:
    with tenant.http() as http:
        big = {**GOOD, "messages": [{"role": "user", "content": "x" * 20_000_000}]}
        refused(http.post("/v1/chat/completions", json=big), 413, "request_too_large")


def test_a_body_over_the_limit_without_a_length_is_a_413(tenant: Tenant) -> None:
    with tenant.http() as http:
        pieces = (b"x" * 1_000_000 for _ in range(20))
        refused(http.post("/v1/chat/completions", content=pieces), 413, "request_too_large")


def test_an_unknown_model_is_a_404_as_openai_words_it(tenant: Tenant) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        tenant.client().chat.completions.create(model="gpt-nothing", messages=GOOD["messages"])
    assert caught.value.code == "model_not_found"
    assert "`gpt-nothing` does not exist or you do not have access to it" in str(caught.value)


def test_a_key_that_was_taken_for_a_model_is_not_written_down(tenant: Tenant) -> None:
    with pytest.raises(openai.NotFoundError):
        tenant.client().chat.completions.create(model=tenant.secret, messages=GOOD["messages"])
    (event,) = events(tenant)
    assert event.model_group == "sk-…"


def test_no_key_is_a_401(stack: Stack) -> None:
    refused(httpx.post(f"{stack.url}/v1/chat/completions", json=GOOD), 401, "missing_api_key")


def test_a_wrong_key_is_a_401_and_is_not_repeated_whole(tenant: Tenant) -> None:
    wrong = "sk-weir-" + "A" * 43
    with pytest.raises(openai.AuthenticationError) as caught:
        tenant.client(wrong).models.list()
    assert caught.value.code == "invalid_api_key"
    assert wrong not in str(caught.value)


def test_a_revoked_key_is_a_401(tenant: Tenant) -> None:
    key, secret = create_key(acting_user=None, team=tenant.team, name="short")
    revoke_key(acting_user=None, key=key)
    with pytest.raises(openai.AuthenticationError):
        tenant.client(secret).models.list()


def test_a_paused_key_is_a_401_that_says_so_and_answers_again_when_it_is_resumed(tenant: Tenant) -> None:
    key, secret = create_key(acting_user=None, team=tenant.team, name="resting")
    with tenant.http(secret) as http:
        assert http.get("/v1/models").status_code == 200
        pause_key(acting_user=None, key=key)
        wait_for_workers()
        refused(http.get("/v1/models"), 401, "paused_api_key")
        resume_key(acting_user=None, key=key)
        wait_for_workers()
        assert http.get("/v1/models").status_code == 200


def test_pausing_a_key_pauses_the_old_secret_of_its_rotation_too(tenant: Tenant) -> None:
    key, old = create_key(acting_user=None, team=tenant.team, name="turning")
    key, new = rotate_key(acting_user=None, key=key, overlap=timedelta(hours=1))
    pause_key(acting_user=None, key=key)
    wait_for_workers()
    for secret in (old, new):
        with tenant.http(secret) as http:
            refused(http.get("/v1/models"), 401, "paused_api_key")


def test_a_key_from_another_network_is_a_403(tenant: Tenant) -> None:
    _, secret = create_key(acting_user=None, team=tenant.team, name="far", allowed_ips=["203.0.113.0/24"])
    with tenant.http(secret) as http:
        refused(http.get("/v1/models"), 403, "ip_not_allowed")


def test_a_model_the_key_may_not_use_is_a_403_and_is_not_listed(tenant: Tenant) -> None:
    _, secret = create_key(acting_user=None, team=tenant.team, name="narrow", model_groups=["sim-embed"])
    with tenant.http(secret) as http:
        refused(http.post("/v1/chat/completions", json=GOOD), 403, "model_not_allowed", "model")
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["sim-embed"]
        refused(http.get("/v1/models/sim-small"), 404, "model_not_found", "model")


def test_a_model_the_organization_may_not_use_does_not_exist(stack: Stack, slug: str) -> None:
    other = stack.tenant(slug, model_groups=["sim-embed"])
    with other.http() as http:
        refused(http.post("/v1/chat/completions", json=GOOD), 404, "model_not_found", "model")


def test_a_deployment_without_a_cost_is_not_served(tenant: Tenant, stack: Stack, slug: str) -> None:
    from routing.models import GroupDeployment, ModelGroup

    group = ModelGroup.objects.create(name=slug)
    GroupDeployment.objects.create(group=group, deployment=stack.deployment(slug, "sim-small", cost=None))
    with tenant.http() as http:
        wait_for_model(http, slug)
        answer = http.post("/v1/chat/completions", json={**GOOD, "model": slug})
        refused(answer, 404, "model_not_priced", "model")
    assert stack.simulator.log(slug) == []


def test_a_price_without_output_serves_embeddings_only(tenant: Tenant, stack: Stack, slug: str) -> None:
    stack.group(slug, "sim-small", price={"input": COST["input"]})
    with tenant.http() as http:
        wait_for_model(http, slug)
        refused(
            http.post("/v1/chat/completions", json={**GOOD, "model": slug}), 404, "model_not_priced", "model"
        )


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/chat/completions/", "/v1/assistants"])
def test_an_unknown_address_is_a_404(tenant: Tenant, path: str) -> None:
    with tenant.http() as http:
        refused(http.post(path, json=GOOD), 404, "unknown_url")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("DELETE", "/v1/models"), ("PUT", "/v1/embeddings")]
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(tenant: Tenant, method: str, path: str) -> None:
    with tenant.http() as http:
        answer = http.request(method, path)
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] in {"POST", "GET"}


def test_bad_requests_are_logged_and_cost_nothing(tenant: Tenant) -> None:
    with tenant.http() as http:
        http.post("/v1/chat/completions", content=b"{")
        http.post("/v1/chat/completions", json={**GOOD, "model": "nope"})
    broken, unknown = events(tenant)
    assert (broken.status, broken.end_reason, broken.error_code, broken.charge) == (
        400,
        "invalid",
        "invalid_json",
        0,
    )
    assert (unknown.status, unknown.model_group, unknown.error_code) == (404, "nope", "model_not_found")


def wait_for_model(http: httpx.Client, name: str) -> None:
    """Wait until a new model group, and whatever else was written before, has reached every worker."""
    from tests.simulator.server import wait_until
    from tests.stack import wait_for_workers

    wait_for_workers()
    wait_until(lambda: http.get(f"/v1/models/{name}").status_code == 200)


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/responses", "/elsewhere"])
def test_a_websocket_is_told_that_there_is_no_such_address(stack: Stack, path: str) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    answer = httpx.get(f"{stack.url}{path}", headers=upgrade)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


def test_realtime_by_plain_http_is_an_address_that_is_not_there(tenant: Tenant) -> None:
    with tenant.http() as http:
        refused(http.get("/v1/realtime"), 404, "unknown_url")
