"""A blocked end user is refused before a provider, whatever the API, and nobody else is."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from billing.services.end_users import block_end_user, unblock_end_user
from tests.stack import Stack, Tenant, wait_for_workers
from tests.v1.conftest import events

GOOD: dict[str, Any] = {
    "model": "sim-small",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 5,
}


@pytest.fixture
def guarded(tenant: Tenant) -> Tenant:
    """An organization that has blocked mallory."""
    block_end_user(
        acting_user=None, organization=tenant.organization, end_user="mallory", reason="secret words"
    )
    wait_for_workers()
    return tenant


def test_a_blocked_end_user_gets_a_403_that_forbids_retries_and_costs_nothing(
    stack: Stack, guarded: Tenant
) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        guarded.client(max_retries=2).chat.completions.create(**GOOD, user="mallory")
    error = caught.value
    assert (error.code, error.type, error.param) == ("end_user_blocked", "permission_error", None)
    assert error.response.headers["x-should-retry"] == "false"
    assert f"blocked by organization {guarded.organization.slug}" in str(error)
    # The reason is for the organization's own people.
    assert "secret words" not in str(error)
    # One request: the SDK did not try again.
    (event,) = events(guarded)
    assert (event.status, event.end_reason, event.error_code) == (403, "refused", "end_user_blocked")
    assert (event.end_user, event.charge, event.attempts, event.budget_ids) == ("mallory", 0, [], [])
    assert event.tags["weir.refused_by"].startswith("This end user is blocked")
    assert stack.simulator.log("mallory") == []


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("chat/completions", {**GOOD, "safety_identifier": "mallory", "user": "ann"}, {}),
        ("chat/completions", {**GOOD, "user": "mallory", "stream": True}, {}),
        ("chat/completions", GOOD, {"X-End-User": "mallory"}),
        ("responses", {"model": "sim-small", "input": "hi", "safety_identifier": "mallory"}, {}),
        ("completions", {"model": "sim-small", "prompt": "hi", "user": "mallory"}, {}),
        ("embeddings", {"model": "sim-embed", "input": "hi", "user": "mallory"}, {}),
        ("messages", {**GOOD, "metadata": {"user_id": "mallory"}}, {}),
    ],
)
def test_every_way_to_name_an_end_user_is_refused(
    guarded: Tenant, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    with guarded.http() as http:
        answer = http.post(f"/v1/{path}", json=body, headers=headers)
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]["type"] == "permission_error"


def test_anthropics_sdk_sees_a_permission_error(guarded: Tenant) -> None:
    client = anthropic.Anthropic(base_url=guarded.stack.url, api_key=guarded.secret)
    with pytest.raises(anthropic.PermissionDeniedError, match="blocked by organization"):
        client.messages.create(**GOOD, metadata={"user_id": "mallory"})


def test_nobody_else_is_refused(stack: Stack, guarded: Tenant, slug: str) -> None:
    # Another end user, none at all, and one of the same name in another organization.
    other = stack.tenant(f"other-{slug[-6:]}")
    guarded.client().chat.completions.create(**GOOD, user="Mallory")
    guarded.client().chat.completions.create(**GOOD)
    other.client().chat.completions.create(**GOOD, user="mallory")


def test_an_unblocked_end_user_is_served_again(guarded: Tenant) -> None:
    unblock_end_user(acting_user=None, organization=guarded.organization, end_user="mallory")
    wait_for_workers()
    guarded.client().chat.completions.create(**GOOD, user="mallory")
