"""SIGTERM under load: streams finish, new requests are sent elsewhere, what takes too long is cut honestly."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.simulator.server import wait_until
from tests.stack import Stack, running_stack
from tests.v1.conftest import events


@pytest.mark.usefixtures("committed")
def test_a_stream_finishes_while_new_requests_are_sent_elsewhere(tmp_path: Path, slug: str) -> None:
    with running_stack(tmp_path) as stack:
        tenant = stack.tenant(slug)
        with (
            tenant.http() as idle,
            tenant.http() as http,
            http.stream("POST", "/v1/chat/completions", json=slow(100)) as answer,
        ):
            assert idle.get("/healthz").status_code == 200
            lines = answer.iter_lines()
            next(lines)
            end_of(stack)
            wait_until(lambda: httpx.get(f"{stack.url}/healthz").status_code == 503)
            # Over a connection that was open before, and over a new one.
            for refused in (idle.get("/v1/models"), httpx.get(f"{stack.url}/v1/models")):
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "gateway_stopping"
                assert refused.headers["retry-after"] == "1"
                assert refused.headers["connection"] == "close"
            assert [line for line in lines if line][-1] == "data: [DONE]"
        (event,) = events(tenant)
        assert event.end_reason == "completed"
        ended(stack)


@pytest.mark.usefixtures("committed")
def test_a_stream_that_takes_too_long_ends_with_an_error(
    tmp_path: Path, slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHUTDOWN_SECONDS", "0.2")
    with running_stack(tmp_path) as stack:
        tenant = stack.tenant(slug)
        with (
            tenant.http() as http,
            http.stream("POST", "/v1/chat/completions", json=slow(2000)) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            end_of(stack)
            seen = [line for line in lines if line]
        assert '"code":"gateway_stopping"' in seen[-1]
        ended(stack)
        (event,) = events(tenant)
        assert (event.end_reason, event.charge) == ("interrupted", 0)


@pytest.mark.usefixtures("committed")
def test_requests_are_served_until_a_balancer_has_noticed(
    tmp_path: Path, slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHUTDOWN_DELAY_SECONDS", "2")
    with running_stack(tmp_path) as stack:
        tenant = stack.tenant(slug)
        end_of(stack)
        wait_until(lambda: httpx.get(f"{stack.url}/healthz").status_code == 503)
        with tenant.http() as http:
            served = http.post("/v1/chat/completions", json={**slow(1), "stream": False})
        assert (served.status_code, served.headers["connection"]) == (200, "close")
        ended(stack)


def slow(words: int) -> dict[str, object]:
    ask = f"words={words} pace_ms=20"
    return {"model": "sim-small", "messages": [{"role": "user", "content": ask}], "stream": True}


def end_of(stack: Stack) -> None:
    assert stack.server is not None
    stack.server.terminate()


def ended(stack: Stack) -> None:
    server = stack.server
    assert server is not None
    wait_until(lambda: server.poll() is not None)
