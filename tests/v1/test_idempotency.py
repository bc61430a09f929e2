"""The same Idempotency-Key and body: the first answer, charged once."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from django.conf import settings
from redis import Redis

from billing.services.quotas import set_quota
from gateway.v1.errors import Conflict, Unavailable
from gateway.v1.exchange import Exchange
from gateway.v1.facts import Facts
from gateway.v1.idempotency import Claim, IdempotencyKeys, Kept, Recorder
from tenants.services.keys import create_key
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_faults import grouped
from tests.whole.test_leaks import Caller, connected, message

# 3 tokens in at 2.00 and 10 out at 8.00 US dollars per million.
CHARGE = Decimal("0.000086")


def ask(tenant: Tenant, key: str, words: str = "one two three", **more: Any) -> httpx.Response:
    path = more.pop("path", "/v1/chat/completions")
    body = {"model": "sim-small", "messages": [{"role": "user", "content": words}], **more}
    with tenant.http() as http:
        return http.post(path, json=body, headers={"Idempotency-Key": key})


def test_the_same_again_is_the_first_answer_and_charged_once(tenant: Tenant, slug: str) -> None:
    sdk = tenant.client()
    asked: dict[str, Any] = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": "one two three"}],
        "user": slug,
        "extra_headers": {"Idempotency-Key": "a"},
    }
    first = sdk.chat.completions.with_raw_response.create(**asked)
    again = sdk.chat.completions.with_raw_response.create(**asked)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-weir-deployment"] == first.headers["x-weir-deployment"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(tenant.stack.simulator.wait_for_end(slug)) == 1
    charged, replay = events(tenant)
    assert (charged.end_reason, charged.charge) == ("completed", CHARGE)
    assert (replay.end_reason, replay.charge, replay.cost, replay.usage_source) == ("replay", 0, 0, "none")
    assert (replay.status, replay.model_group, replay.attempts) == (200, "sim-small", [])
    assert replay.tags == {"weir.replay_of": charged.request_id}


def test_a_stream_is_given_again_whole(tenant: Tenant) -> None:
    first = ask(tenant, "a", stream=True)
    again = ask(tenant, "a", stream=True)
    assert again.content == first.content
    assert again.content.endswith(b"data: [DONE]\n\n")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert [(event.charge, event.streamed) for event in events(tenant)] == [(CHARGE, True), (0, True)]


def test_a_translated_answer_is_given_again_with_its_id(tenant: Tenant) -> None:
    first = ask(tenant, "a", path="/v1/responses", input="one two three")
    again = ask(tenant, "a", path="/v1/responses", input="one two three")
    assert again.json()["id"] == first.json()["id"]
    assert [event.endpoint for event in events(tenant)] == ["responses", "responses"]


@pytest.mark.parametrize("another", [{"words": "four"}, {"path": "/v1/completions", "prompt": "one"}])
def test_another_request_with_the_same_key_is_a_conflict(tenant: Tenant, another: dict[str, Any]) -> None:
    ask(tenant, "a")
    refused = ask(tenant, "a", **another)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "idempotency_conflict"
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert refused.headers["x-should-retry"] == "false"
    assert [event.charge for event in events(tenant)] == [CHARGE, 0]


def test_keys_of_two_api_keys_have_nothing_to_do_with_each_other(tenant: Tenant) -> None:
    _, secret = create_key(acting_user=None, team=tenant.team, name="other")
    other = Tenant(tenant.stack, tenant.organization, tenant.team, tenant.owner, tenant.key, secret)
    ask(tenant, "a")
    assert ask(other, "a", "four five").status_code == 200
    assert {event.end_reason for event in events(tenant)} == {"completed"}


def test_a_duplicate_waits_until_the_first_has_ended(tenant: Tenant, slug: str) -> None:
    words = "words=20 pace_ms=100"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, tenant, "a", words, user=slug, stream=True)
        wait_until(lambda: bool(tenant.stack.simulator.log(slug)))
        refused = ask(tenant, "a", words, user=slug, stream=True)
        assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
        assert refused.json()["error"]["code"] == "idempotency_in_progress"
        assert "x-should-retry" not in refused.headers
        whole = first.result().content
    again: list[bytes] = []

    def replayed() -> bool:
        again.append(ask(tenant, "a", words, user=slug, stream=True).content)
        return again[-1] == whole

    wait_until(replayed)
    assert len(tenant.stack.simulator.wait_for_end(slug)) == 1


def test_an_answer_that_failed_is_not_kept(tenant: Tenant, slug: str) -> None:
    grouped(tenant.stack, tenant, slug, "sim-500-once")
    first = ask(tenant, "a", f"case={slug}", model=slug)
    assert first.status_code == 502
    assert ask(tenant, "a", f"case={slug}", model=slug).status_code == 200


def test_a_client_that_left_gets_its_whole_answer_when_it_asks_again(tenant: Tenant, slug: str) -> None:
    # Longer than ABANDONED_SECONDS, at which a provider is stopped otherwise.
    body = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": "words=60 pace_ms=100"}],
        "stream": True,
        "user": slug,
    }
    raw = message(Caller("", tenant.secret, 0), json.dumps(body).encode())
    with connected(tenant.stack) as client:
        client.sendall(raw.replace(b"\r\n", b"\r\nIdempotency-Key: a\r\n", 1))
        wait_until(lambda: bool(tenant.stack.simulator.log(slug)))
        client.recv(100)
    tenant.stack.simulator.wait_for_end(slug)
    with tenant.http() as http:

        def again() -> httpx.Response:
            return http.post(
                "/v1/chat/completions", content=json.dumps(body), headers={"Idempotency-Key": "a"}
            )

        wait_until(lambda: again().status_code == 200)
        assert again().content.endswith(b"data: [DONE]\n\n")
    first, *others = events(tenant)
    assert (first.end_reason, first.usage_source, first.output_tokens) == ("client_gone", "reported", 60)
    assert sum(event.charge for event in others) == 0
    assert len(tenant.stack.simulator.wait_for_end(slug)) == 1


def test_giving_an_answer_again_takes_one_of_the_requests_per_minute(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, quotas=[("key", "requests_per_minute", "2", "")])
    assert [ask(tenant, "a").status_code for _ in range(3)] == [200, 200, 429]


def test_a_key_that_is_none_is_refused(tenant: Tenant) -> None:
    for key in ("", "x" * 256):
        refused = ask(tenant, key)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_the_sdk_raises_a_conflict(tenant: Tenant) -> None:
    ask(tenant, "a")
    with pytest.raises(openai.ConflictError):
        tenant.client(max_retries=2).chat.completions.create(
            model="sim-small",
            messages=[{"role": "user", "content": "four"}],
            extra_headers={"Idempotency-Key": "a"},
        )
    assert len(events(tenant)) == 2


def test_what_is_kept_cannot_be_read_and_expires(tenant: Tenant) -> None:
    text = ask(tenant, "secret name", "one two").json()["choices"][0]["message"]["content"]
    with Redis.from_url(tenant.stack.environment["REDIS_URL"]) as client:
        (name,) = client.scan_iter(f"weir:once:{tenant.key.pk}:*")
        assert b"secret" not in name
        value = client.get(name)
        assert isinstance(value, bytes)
        assert text.encode() not in value
        ttl = client.pttl(name)
        assert isinstance(ttl, int)
        assert 0 < ttl <= 24 * 3_600_000


# --- The keys alone ------------------------------------------------------------------------------


def principal() -> Any:
    return SimpleNamespace(key_id=uuid4().int)


def take(keys: IdempotencyKeys, of: Any, body: bytes = b"{}") -> Any:
    return keys.take(of, b"a", "/v1/x", body, "req_1")


def test_an_answer_that_is_too_large_to_keep_is_not_charged_twice(settings: Any) -> None:
    settings.IDEMPOTENCY_MAX_BYTES = 5

    async def play() -> tuple[Any, Any]:
        async def send(message: Any) -> None:
            """Nobody listens."""

        exchange = Exchange("chat.completions", facts=Facts("chat.completions", {}, "m"), whole=True)
        recorder = Recorder(send, exchange)
        keys, who = IdempotencyKeys(settings.REDIS_URL), principal()
        recorder.claim = await take(keys, who)
        await recorder({"type": "http.response.start", "status": 200, "headers": []})
        await recorder({"type": "http.response.body", "body": b"123", "more_body": True})
        await recorder({"type": "http.response.body", "body": b"456"})
        found = await take(keys, who), await take(keys, who, b"another")
        await keys.close()
        return found

    again, another = asyncio.run(play())
    assert isinstance(again, Conflict)
    assert isinstance(another, Conflict)
    assert (again.code, another.code) == ("idempotency_answer_gone", "idempotency_conflict")


def test_an_answer_is_kept_to_the_last_byte_with_its_headers() -> None:
    answer = Kept("req_1", "m", True, [(b"content-type", b"audio/mpeg")], bytes(range(256)) + b"\n\n")

    async def play() -> Any:
        keys, who = IdempotencyKeys(settings.REDIS_URL), principal()
        await (await take(keys, who)).keep(answer)
        found = await take(keys, who)
        await keys.close()
        return found

    assert asyncio.run(play()) == answer


def test_a_key_that_was_let_go_can_be_taken_again_and_an_old_claim_changes_nothing() -> None:
    async def play() -> tuple[Any, Any]:
        keys, who = IdempotencyKeys(settings.REDIS_URL), principal()
        first = await take(keys, who)
        await first.release()
        second: Any = await keys.take(who, b"a", "/v1/x", b"{}", "req_2")
        # As if the first had gone on although its time was over.
        await first.keep(Kept("req_1", "m", False, [], b""))
        running = await take(keys, who)
        await second.release()
        await keys.close()
        return second, running

    second, running = asyncio.run(play())
    assert isinstance(second, Claim)
    assert isinstance(running, Conflict)
    assert running.code == "idempotency_in_progress"


def test_without_redis_a_request_with_a_key_is_refused() -> None:
    async def play() -> Any:
        keys = IdempotencyKeys("redis://127.0.0.1:1/0")
        try:
            return await take(keys, principal())
        finally:
            await keys.close()

    with pytest.raises(Unavailable, match="Nothing was asked or charged"):
        asyncio.run(play())


def test_an_answer_given_again_counts_against_no_budget(tenant: Tenant) -> None:
    ask(tenant, "a")
    events(tenant)
    set_quota(
        acting_user=None,
        scope="key",
        target=tenant.key,
        metric="budget",
        limit=Decimal("0.0000001"),
        period="day",
    )
    wait_until(lambda: ask(tenant, str(uuid4()), "four").status_code == 429)
    assert ask(tenant, "a").status_code == 200
