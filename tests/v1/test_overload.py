"""Too much at a time is refused at once; a server that is asked to stop finishes what it began."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.v1.capacity import Capacity
from gateway.v1.errors import Unavailable
from tests.simulator.server import wait_until
from tests.stack import Stack, running_stack
from tests.v1.conftest import events


def ask(words: int = 3, pace_ms: int = 0, **options: Any) -> dict[str, Any]:
    content = f"words={words} pace_ms={pace_ms}"
    return {"model": "sim-small", "messages": [{"role": "user", "content": content}], **options}


@pytest.fixture
def small(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A server of one worker that takes two requests and 4,000 bytes at a time."""
    monkeypatch.setenv("MAX_IN_FLIGHT", "2")
    monkeypatch.setenv("MAX_BUFFERED_BYTES", "4000")
    with running_stack(tmp_path, workers=1) as running:
        yield running


def test_beyond_the_cap_a_request_is_refused_at_once_and_the_others_go_on(small: Stack, slug: str) -> None:
    tenant = small.tenant(slug)
    with tenant.http() as http:
        slow = ask(100, 20, stream=True)
        with (
            http.stream("POST", "/v1/chat/completions", json=slow) as first,
            http.stream("POST", "/v1/chat/completions", json=slow) as second,
        ):
            # Kept, since a forgotten iterator hangs up.
            running = [first.iter_lines(), second.iter_lines()]
            assert all(next(lines) for lines in running)
            refused = http.post("/v1/chat/completions", json=ask())
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "gateway_overloaded"
            assert refused.headers["retry-after"] == "1"
        wait_until(lambda: http.post("/v1/chat/completions", json=ask()).status_code == 200)
        large = ask(metadata={"note": "x" * 5000})
        refused = http.post("/v1/chat/completions", json=large)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "gateway_overloaded")
        assert http.post("/v1/chat/completions", json=ask()).status_code == 200


def test_what_a_request_held_is_given_back_once() -> None:
    capacity = Capacity(1, 100)
    hold = capacity.take()
    hold.buffer(60)
    hold.buffer(100)
    with pytest.raises(Unavailable):
        capacity.take()
    hold.release()
    hold.release()
    assert (capacity.in_flight, capacity.buffered) == (0, 0)


def test_bytes_beyond_the_bound_are_given_back_too() -> None:
    capacity = Capacity(2, 100)
    hold = capacity.take()
    with pytest.raises(Unavailable):
        hold.buffer(101)
    hold.release()
    assert (capacity.in_flight, capacity.buffered) == (0, 0)


def test_a_running_stream_is_finished_after_the_server_was_asked_to_stop(
    stack: Stack, tmp_path: Path, slug: str
) -> None:
    with running_stack(tmp_path, workers=2) as running:
        tenant = running.tenant(slug)
        with (
            tenant.http() as http,
            http.stream("POST", "/v1/chat/completions", json=ask(60, 40, stream=True)) as answer,
        ):
            lines = answer.iter_lines()
            seen = [next(lines)]
            assert running.server is not None
            running.server.send_signal(signal.SIGTERM)
            seen += lines
        assert seen[-2:] == ["data: [DONE]", ""]
        assert len([line for line in seen if '"content"' in line]) >= 60
        running.server.wait(20)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/healthz")
        (event,) = events(tenant)
        assert (event.end_reason, event.output_tokens) == ("completed", 60)
