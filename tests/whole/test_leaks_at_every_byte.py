"""Wherever a stream ends, at any byte of it, its concurrency slot and its reservation are given back."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from billing.models import Price
from routing.models import Deployment, GroupDeployment, Provider
from tests.simulator.server import wait_until
from tests.stack import COST, Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model
from tests.whole.test_leaks import Caller, callers, connected, message, nothing_stays, read

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
)


def _event(content: str | None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    chunk = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None} | more]}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


EVENTS = (_event("one"), _event(" two"), _event(None, finish_reason="stop"), b"data: [DONE]\n\n")
STREAM = b"".join(EVENTS)
ANSWER = HEAD % len(STREAM) + STREAM
# What is near the end of each of the events in the client's answer.
ENDS = (b'"one"', b'" two"', b'"stop"', b"[DONE]")
# A circuit opens at the fifth fault in a row.
CUTS_OF_A_DEPLOYMENT = 4
AT_ONCE = 16
# Until a worker knows of a deployment.
TRIES = 50


@dataclass
class Sender:
    """A provider that is told by the request's ``user`` what to send: ``cut-N``: N bytes of the answer;
    ``pause-K-N``: K events of it, and the others once the client is ``gone``; ``slowly``: one by one."""

    url: str = ""
    met: set[str] = field(default_factory=set)
    gone: dict[str, threading.Event] = field(default_factory=dict)

    def answer(self, connection: socket.socket, user: str) -> None:
        self.met.add(user)
        how, *numbers = user.split("-")
        if how == "cut":
            connection.sendall(ANSWER[: int(numbers[0])])
        elif how == "pause":
            sent = len(ANSWER) - len(b"".join(EVENTS[int(numbers[0]) :]))
            connection.sendall(ANSWER[:sent])
            self.gone[user].wait(10)
            connection.sendall(ANSWER[sent:])
        else:
            connection.sendall(ANSWER[: -len(STREAM)])
            for each in EVENTS:
                connection.sendall(each)
                threading.Event().wait(0.05)


@contextmanager
def running_provider() -> Iterator[Sender]:
    provider = Sender()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked = b""
            while (found := re.search(rb'"user":"([\w-]+)"', asked)) is None:
                if not (piece := self.request.recv(65536)):
                    return
                asked += piece
            with suppress(OSError):
                provider.answer(self.request, found[1].decode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield provider
        server.shutdown()


@contextmanager
def offered(stack: Stack, tenant: Tenant, name: str, url: str, count: int) -> Iterator[None]:
    """A model group ``name`` with ``count`` deployments ``name-0``, ``name-1``, ..., to ask for one by one."""
    provider = Provider.objects.create(name=name, kind="simulator", base_url=url)
    group = stack.group(name)
    made = Deployment.objects.bulk_create(
        Deployment(name=f"{name}-{number}", provider=provider, model="m") for number in range(count)
    )
    now = datetime.now(UTC)
    Price.objects.bulk_create(Price(deployment=each, effective_from=now, **COST) for each in made)
    GroupDeployment.objects.bulk_create(GroupDeployment(group=group, deployment=each) for each in made)
    with tenant.http() as http:
        wait_for_model(http, name)
    yield
    # No other test need load them.
    group.delete()
    Deployment.objects.filter(provider=provider).delete()


def body_of(model: str, user: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 16,
        "user": user,
    }


def test_nothing_leaks_at_whichever_byte_the_provider_stops(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    people = callers(tenant, ["anybody"], slots=1000)
    offsets = range(len(ANSWER) + 1)

    with (
        running_provider() as provider,
        offered(stack, tenant, slug, provider.url, len(offsets) // CUTS_OF_A_DEPLOYMENT + 1),
        tenant.http(people[0].secret) as http,
    ):

        def ask(offset: int) -> str:
            model = f"{slug}/{slug}-{offset // CUTS_OF_A_DEPLOYMENT}"
            body = body_of(model, f"cut-{offset}")
            for _ in range(TRIES):
                answer = http.post("/v1/chat/completions", json=body).text
                # Not yet where it came to a worker that does not know of the deployment.
                if body["user"] in provider.met:
                    return answer
                time.sleep(0.1)
            raise AssertionError(answer)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(ask, offsets))
        nothing_stays(stack, tenant, people)
    assert ["[DONE]" in answer for answer in answers] == [offset == len(ANSWER) for offset in offsets]
    # Invalid is what named a deployment that a worker did not know yet.
    ends = {event.end_reason for event in events(tenant)} - {"invalid"}
    assert ends == {"completed", "cut", "provider_error"}


def leave(stack: Stack, provider: Sender, person: Caller, model: str, offset: int, ends: list[int]) -> None:
    """Read ``offset`` bytes of an answer and hang up, in good order or not, while more is to come if it can."""
    needed = sum(end < offset for end in ends[:-1]) + 1
    user = f"pause-{needed}-{offset}"
    gone = provider.gone[user] = threading.Event()
    # At once only where it comes to a worker that knows of the deployment.
    for _ in range(TRIES):
        if user in provider.met:
            break
        with closing(connected(stack)) as client:
            client.sendall(message(person, json.dumps(body_of(model, user)).encode()))
            client.settimeout(5)
            with suppress(TimeoutError, AssertionError):
                read(client, offset)
                wait_until(lambda: user in provider.met, 0.5)
            if offset % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    gone.set()


def test_nothing_leaks_at_whichever_byte_the_client_leaves(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    people = callers(tenant, ["anybody"], slots=1000)
    with running_provider() as provider, offered(stack, tenant, slug, provider.url, 1):
        whole = b""
        with closing(connected(stack)) as client:
            client.sendall(message(people[0], json.dumps(body_of(slug, "slowly")).encode()))
            while piece := client.recv(65536):
                whole += piece
        assert whole.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        # Where in the client's bytes each of the provider's events has been passed on, also where events
        # were read at once, without HTTP's own bytes between them.
        ends = [
            whole.index(b"\n\n", whole.index(end)) + 2 - number * len(b"\r\n5a\r\n")
            for number, end in enumerate(ENDS)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(
                pool.map(
                    lambda offset: leave(stack, provider, people[0], slug, offset, ends),
                    range(len(whole) + 1),
                )
            )
        nothing_stays(stack, tenant, people)
    assert {event.end_reason for event in events(tenant)} - {"invalid"} == {"completed", "client_gone"}
