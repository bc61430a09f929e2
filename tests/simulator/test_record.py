"""The simulator's log: what arrived, how it ended, and nothing secret."""

import contextlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from routing.simulator import create_app
from tests.simulator.server import ROOT, RunningSimulator, running_simulator

HELLO = [{"role": "user", "content": "hello there"}]


def test_a_request_has_a_line_when_it_arrives_and_one_when_it_ends(
    http: httpx.Client, simulator: RunningSimulator, user: str
) -> None:
    http.post(
        "/v1/chat/completions",
        json={"model": "sim-words-4", "messages": HELLO, "user": user, "stream": True},
        headers={"x-request-id": "req-7"},
    )
    simulator.wait_for_end(user)
    arrive, end = simulator.log(user)
    common = {
        "path": "/v1/chat/completions",
        "model": "sim-words-4",
        "request_id": "req-7",
        "user": user,
        "stream": True,
    }
    assert {name: arrive[name] for name in common} == common
    assert {name: end[name] for name in common} == common
    assert (arrive["event"], end["event"]) == ("arrive", "end")
    assert arrive["n"] == end["n"]
    assert (end["status"], end["end"]) == (200, "done")
    assert (end["prompt_tokens"], end["completion_tokens"], end["words_sent"]) == (2, 4, 4)
    assert datetime.fromisoformat(end["at"]).tzinfo == UTC


def test_a_client_that_leaves_stops_the_stream_and_is_noted(
    http: httpx.Client, simulator: RunningSimulator, user: str
) -> None:
    body = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": "words=1000 pace_ms=20"}],
        "user": user,
        "stream": True,
    }
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        parts = response.iter_text()
        for _ in range(4):
            next(parts)
    (end,) = simulator.wait_for_end(user)
    assert end["end"] == "client_gone"
    assert 3 <= end["words_sent"] < 1000
    assert end["completion_tokens"] == end["words_sent"]


@pytest.mark.parametrize(
    ("model", "stream"),
    [
        ("sim-stall", True),
        ("sim-stall", False),
        ("sim-silence", True),
        ("sim-silence", False),
        ("sim-first-token-slow", True),
        ("sim-first-token-slow", False),
        ("sim-fast-60-1000ms", True),
    ],
)
def test_a_client_that_gives_up_waiting_is_noted(
    http: httpx.Client, simulator: RunningSimulator, user: str, model: str, stream: bool
) -> None:
    body = {"model": model, "messages": HELLO, "user": user, "stream": stream}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.4)
    (end,) = simulator.wait_for_end(user)
    assert end["end"] == "client_gone"


@pytest.mark.parametrize(
    ("model", "stream", "end", "status", "words"),
    [
        ("sim-cut", True, "cut", 200, 40),
        ("sim-cut", False, "cut", 200, 0),
        ("sim-truncated", True, "truncated", 200, 30),
        ("sim-error-midstream", True, "error_midstream", 200, 30),
        ("sim-reset", True, "reset", None, 0),
        ("sim-503", False, "error", 503, 0),
        ("sim-fast-9", True, "done", 200, 9),
    ],
)
def test_the_way_it_ended_is_noted(
    http: httpx.Client,
    simulator: RunningSimulator,
    user: str,
    model: str,
    stream: bool,
    end: str,
    status: int | None,
    words: int,
) -> None:
    body = {"model": model, "messages": HELLO, "user": user, "stream": stream}
    with contextlib.suppress(httpx.ReadError, httpx.RemoteProtocolError):
        http.post("/v1/chat/completions", json=body)
    (line,) = simulator.wait_for_end(user)
    assert (line["end"], line["status"], line["words_sent"]) == (end, status, words)


def test_neither_prompt_nor_key_is_written(
    http: httpx.Client, simulator: RunningSimulator, user: str
) -> None:
    http.post(
        "/v1/chat/completions",
        json={"model": "sim-small", "messages": [{"role": "user", "content": "xyzzy-prompt"}], "user": user},
        headers={"authorization": "Bearer xyzzy-key"},
    )
    simulator.wait_for_end(user)
    assert "xyzzy" not in simulator.log_path.read_text()
    assert "xyzzy" not in http.get("/_sim/log").text


def test_the_log_and_the_counts_can_be_asked_for(
    http: httpx.Client, simulator: RunningSimulator, user: str
) -> None:
    simulator.reset()
    for name in (user, "another"):
        http.post("/v1/chat/completions", json={"model": "sim-small", "messages": HELLO, "user": name})
    lines = http.get("/_sim/log", params={"user": user}).json()
    assert [line["event"] for line in lines] == ["arrive", "end"]
    stats = http.get("/_sim/stats").json()
    assert (stats["requests"], stats["active"]) == (2, 0)
    assert stats["by_model"] == {"sim-small": 2}
    assert stats["by_end"] == {"done": 2}
    simulator.reset()
    assert http.get("/_sim/log").json() == []


def test_the_log_survives_being_killed_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    for expected in (2, 4):
        with running_simulator(path) as running:
            body = {"model": "sim-small", "messages": HELLO}
            httpx.post(f"{running.base_url}/chat/completions", json=body).raise_for_status()
            running.wait_for_end(None, expected // 2)
            running.process.kill()
        assert len(path.read_text().splitlines()) == expected


def test_health_answers(http: httpx.Client) -> None:
    assert http.get("/_sim/health").json() == {"status": "ok"}


@pytest.mark.anyio
async def test_the_application_runs_under_any_asgi_client(anyio_backend: str) -> None:
    transport = httpx.ASGITransport(app=create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
        response = await client.post("/v1/chat/completions", json={"model": "sim-words-3", "messages": HELLO})
    assert response.json()["usage"]["total_tokens"] == 5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_management_command_serves(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "simulator", "--port", "0", "--log", str(tmp_path / "log")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        running = RunningSimulator(url, tmp_path / "log", process)
        assert httpx.get(f"{running.url}/_sim/health").json() == {"status": "ok"}
    finally:
        process.terminate()
        process.wait(timeout=10)
