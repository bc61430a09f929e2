"""From attempt to attempt: each kind of timeout, budgets, several credentials, fallback groups."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from typing import Any, cast

import httpx
import openai
import orjson
import pytest
from django.db import transaction

from routing.credentials import encrypt
from routing.models import Credential, GroupDeployment, Provider
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model
from tests.v1.test_faults import ASK, grouped

REFUSED = {
    "on_error": "sim-500",
    "on_context_window": "sim-400-context",
    "on_content_filter": "sim-400-filter",
}


def ask(tenant: Tenant, model: str, times: int) -> list[httpx.Response]:
    """So many requests, one after the other to one worker."""
    body = {"model": model, "messages": ASK}
    with tenant.http() as http:
        return [http.post("/v1/chat/completions", json=body) for _ in range(times)]


def reasons(tenant: Tenant) -> list[str]:
    """Why each attempt of the only request ended."""
    (event,) = events(tenant)
    return [attempt["reason"] for attempt in event.attempts]


def provided(
    stack: Stack, tenant: Tenant, slug: str, url: str, *others: str, model: str = "sim-small", **settings: Any
) -> str:
    """A group whose first deployment is at ``url``, known to a worker; ``settings`` are the provider's."""
    with transaction.atomic():
        secrets = settings.pop("secrets", ())
        provider = Provider.objects.create(name=slug, kind="simulator", base_url=url, **settings)
        for secret in secrets:
            Credential.objects.create(provider=provider, ciphertext=encrypt(secret))
        group = stack.group(slug, *others)
        first = stack.deployment(f"{slug}-first", model, provider=slug)
        GroupDeployment.objects.filter(group=group).update(priority=9)
        GroupDeployment.objects.create(group=group, deployment=first, priority=0)
    with tenant.http() as http:
        wait_for_model(http, slug)
    sleep(0.1)
    return slug


@contextmanager
def busy_port() -> Iterator[int]:
    """A port whose owner takes no more connections: who connects waits."""
    with ExitStack() as open_sockets:
        server = open_sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            one = open_sockets.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_a_connection_that_takes_too_long_moves_on(stack: Stack, tenant: Tenant, slug: str) -> None:
    with busy_port() as port:
        name = provided(stack, tenant, slug, f"http://127.0.0.1:{port}/v1", "sim-small", connect_timeout=0.3)
        (answer,) = ask(tenant, name, 1)
    assert answer.status_code == 200
    assert reasons(tenant) == ["timeout_connect", "ok"]


def test_an_answer_that_takes_too_long_in_all_ends_though_it_never_pauses(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = provided(stack, tenant, slug, stack.simulator.base_url, total_timeout=1)
    asked: Any = [{"role": "user", "content": "words=1000 pace_ms=20"}]
    stream = tenant.client().chat.completions.create(model=name, messages=asked, stream=True)
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(stream)
    assert reasons(tenant) == ["timeout_total"]


def test_a_request_is_tried_five_times_and_no_more(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, *["sim-500"] * 5, "sim-small")
    (answer,) = ask(tenant, name, 1)
    assert answer.status_code == 502
    assert len(reasons(tenant)) == 5


class _Choosy(BaseHTTPRequestHandler):
    """A provider that refuses all credentials but one, and notes with which it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # the library's name
        server = cast("_Provider", self.server)
        self.rfile.read(int(self.headers["content-length"]))
        secret = self.headers["authorization"].removeprefix("Bearer ")
        server.asked.append(secret)
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }
        good = secret == "good"
        body = orjson.dumps(answer if good else {"error": {"message": "no", "type": "error"}})
        self.send_response(200 if good else server.status)
        if server.status == 429:
            self.send_header("retry-after", "40")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Say nothing."""


class _Provider(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Choosy)
        self.status = status
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def choosy(status: int) -> Iterator[_Provider]:
    """A provider that answers this status to all credentials but ``good``."""
    with _Provider(status) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_credential_that_is_refused_or_limited_is_left_alone_and_the_other_one_serves(
    stack: Stack, tenant: Tenant, slug: str, status: int
) -> None:
    with choosy(status) as provider:
        name = provided(stack, tenant, slug, provider.url, secrets=("bad", "good"))
        answers = ask(tenant, name, 30)
    assert {answer.status_code for answer in answers} == {200}
    # That a coin never falls on the bad one in thirty times has a chance of one in a billion.
    assert (provider.asked.count("bad"), provider.asked.count("good")) == (1, 30)
    assert [answer.headers["x-weir-attempts"] for answer in answers].count("2") == 1


def test_while_the_only_credential_rests_nobody_is_asked_and_the_providers_wish_is_told(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    with choosy(429) as provider:
        name = provided(stack, tenant, slug, provider.url, secrets=("bad",))
        first, *later = ask(tenant, name, 5)
    assert provider.asked == ["bad"]
    assert (first.status_code, first.headers["retry-after"]) == (429, "40")
    assert {answer.status_code for answer in later} == {429}
    assert all(1 <= int(answer.headers["retry-after"]) <= 40 for answer in later)


@pytest.mark.parametrize("why", REFUSED)
def test_the_group_named_for_a_failure_answers(stack: Stack, tenant: Tenant, slug: str, why: str) -> None:
    name = grouped(stack, tenant, slug, REFUSED[why], fallbacks={why: ["sim-small"]})
    (answer,) = ask(tenant, name, 1)
    assert (answer.status_code, answer.json()["model"]) == (200, "sim-small")
    (event,) = events(tenant)
    assert (len(event.attempts), event.model_group) == (2, "sim-small")


@pytest.mark.parametrize("why", REFUSED)
def test_a_fallback_that_the_key_may_not_use_is_never_asked(stack: Stack, slug: str, why: str) -> None:
    tenant = stack.tenant(slug, model_groups=[slug])
    name = grouped(stack, tenant, slug, REFUSED[why], fallbacks={why: ["sim-small"]})
    (answer,) = ask(tenant, name, 1)
    assert answer.status_code == (502 if why == "on_error" else 400)
    assert len(reasons(tenant)) == 1
