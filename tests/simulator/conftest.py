from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.simulator.server import RunningSimulator, running_simulator


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("simulator") / "requests.jsonl") as running:
        yield running


@pytest.fixture
def sdk(simulator: RunningSimulator) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK without its own retries, so that a test sees each answer."""
    with openai.OpenAI(base_url=simulator.base_url, api_key="sk-any", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def http(simulator: RunningSimulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=simulator.url, timeout=20) as client:
        yield client


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """A user of this test alone, to find its lines in the log."""
    return f"user-{request.node.name}"
