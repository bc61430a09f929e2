"""llmock as the provider: it fails in its own ways, and judges the gateway as a client by its own report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from routing.models import Provider
from tests.simulator.server import wait_until
from tests.stack import Tenant, free_port
from tests.v1.conftest import events
from tests.v1.test_media import priced

LLMOCK = str(Path(sys.executable).parent / "llmock")
# Where llmock speaks each wire format.
PATHS = {"openai": "/v1", "anthropic": "/anthropic/v1", "gemini": "/gemini/v1beta"}
TEXT = "one two three four five six seven eight nine ten"
PASSING: dict[str, dict[str, Any]] = {
    **{f"status-{status}": {"type": "fail", "status": status} for status in (408, 409, 500, 502)},
    "slow": {"type": "delay", "seconds": 0.3},
    "slow-first-token": {"type": "slow_first_token", "seconds": 0.3},
}
BREAKS = [
    *((kind, dialect) for kind in ("truncate", "malformed") for dialect in PATHS),
    # The same in every format, since they are no part of it.
    *(("disconnect", "openai"), ("stall", "openai")),
]


@dataclass
class Llmock:
    """A running llmock. ``seen`` is how many calls it had judged before the test's."""

    url: str
    seen: int = 0

    def script(self, *behaviours: dict[str, Any]) -> None:
        """How the next answers are; after them all are ``TEXT``."""
        self.seen = self._verdict()["calls"]
        httpx.delete(f"{self.url}/_llmock/scenario").raise_for_status()
        reply = {"type": "reply", "text": TEXT, "times": None}
        script = {"behaviors": [*behaviours, reply]}
        httpx.post(f"{self.url}/_llmock/scenario", json=script).raise_for_status()

    def finds_no_fault(self) -> None:
        """Its verdict of what was asked since."""
        found = [each for each in self._verdict()["findings"] if each["call"] > self.seen]
        assert found == []

    def _verdict(self) -> dict[str, Any]:
        verdict: dict[str, Any] = httpx.get(f"{self.url}/_llmock/verdict").json()
        return verdict


@pytest.fixture(scope="module")
def llmock() -> Iterator[Llmock]:
    """A llmock for all these tests, whose report of them all finds no fault."""
    url = f"http://127.0.0.1:{free_port()}"
    port = url.rpartition(":")[2]
    # Paced, so that it sees whether somebody stops reading.
    pace = ["--stream-chunk-delay-ms", "20"]
    command = [LLMOCK, "serve", "--port", port, "--log-level", "warning", *pace]
    process = subprocess.Popen(command)
    try:

        def answers() -> bool:
            try:
                return httpx.get(f"{url}/_llmock/scenario").status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, 60)
        yield Llmock(url)
        report = [LLMOCK, "report", "--url", url, "--strict"]
        said = subprocess.run(report, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout
    finally:
        process.terminate()
        process.wait(20)


def served(tenant: Tenant, llmock: Llmock, slug: str, *models: str, dialect: str = "openai") -> str:
    """A model group with a deployment of each of llmock's models."""
    name = f"{slug}-m"
    url = llmock.url + PATHS[dialect]
    Provider.objects.create(name=name, kind=dialect, base_url=url, first_token_timeout=2, idle_timeout=1)
    return priced(tenant, slug, {"input": "1", "output": "1"}, *models, provider=name)


def ask(tenant: Tenant, model: str, *, stream: bool, **options: Any) -> str:
    """What the model says, to an app that asks once. Each test's request differs from all others'."""
    completions: Any = tenant.client(**options).chat.completions
    answer = completions.create(model=model, messages=[{"role": "user", "content": model}], stream=stream)
    if not stream:
        return str(answer.choices[0].message.content)
    return "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", list(PASSING))
def test_a_failure_that_may_pass_is_tried_again_at_the_other_deployment(
    tenant: Tenant, slug: str, llmock: Llmock, name: str, stream: bool
) -> None:
    model = served(tenant, llmock, slug, "gpt-4o", "gpt-4o")
    llmock.script(PASSING[name])
    assert ask(tenant, model, stream=stream) == TEXT
    llmock.finds_no_fault()


@pytest.mark.parametrize(("status", "stream"), [(429, False), (429, True), (503, True), (504, False)])
def test_whoever_is_told_when_to_come_again_comes_then(
    tenant: Tenant, slug: str, llmock: Llmock, status: int, stream: bool
) -> None:
    model = served(tenant, llmock, slug, "gpt-4o")
    llmock.script({"type": "fail", "status": status, "retry_after": 1})
    assert ask(tenant, model, stream=stream, max_retries=2) == TEXT
    llmock.finds_no_fault()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_request_that_was_refused_is_not_sent_again(
    tenant: Tenant, slug: str, llmock: Llmock, status: int, stream: bool
) -> None:
    model = served(tenant, llmock, slug, "gpt-4o")
    llmock.script({"type": "fail", "status": status, "times": 2})
    with pytest.raises(openai.APIStatusError) as caught:
        ask(tenant, model, stream=stream)
    assert caught.value.type
    llmock.finds_no_fault()


@pytest.mark.parametrize(("kind", "dialect"), BREAKS)
def test_a_stream_that_breaks_before_its_text_is_answered_by_the_other_deployment(
    tenant: Tenant, slug: str, llmock: Llmock, kind: str, dialect: str
) -> None:
    model = served(tenant, llmock, slug, "gpt-4o", "gpt-4o", dialect=dialect)
    llmock.script({"type": "stream_fault", "kind": kind, "after_chunks": 0, "stall_seconds": 4})
    assert ask(tenant, model, stream=True) == TEXT
    (event,) = events(tenant)
    assert (event.end_reason, len(event.attempts)) == ("completed", 2)
    if kind == "malformed":
        # llmock counts what follows as a try again only once it has noticed that nobody reads on.
        ask(tenant, model, stream=True)
    llmock.finds_no_fault()


@pytest.mark.parametrize(("kind", "dialect"), BREAKS)
def test_a_stream_that_breaks_in_its_text_is_an_error_and_can_be_asked_again(
    tenant: Tenant, slug: str, llmock: Llmock, kind: str, dialect: str
) -> None:
    model = served(tenant, llmock, slug, "gpt-4o", dialect=dialect)
    llmock.script({"type": "stream_fault", "kind": kind, "after_chunks": 5, "stall_seconds": 4})
    with pytest.raises(openai.APIError):
        ask(tenant, model, stream=True)
    # The client has a part of it, so it is the client who asks again.
    assert ask(tenant, model, stream=True) == TEXT
    llmock.finds_no_fault()
    broken, whole = events(tenant)
    assert (broken.end_reason, whole.end_reason) == ("cut", "completed")
    assert broken.charge > 0
