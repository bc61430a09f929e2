"""The same bytes of every provider, to the SDKs of the other two APIs: Responses and Messages."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic

from tests.dialects.corpus import REPLAYS
from tests.dialects.shapes import Replay
from tests.dialects.test_wire import Played, client, played
from tests.stack import Tenant
from tests.v1.conftest import events, tenant

__all__ = ("client", "played", "tenant")

WHOLE = [replay for replay in REPLAYS if replay.error is None]
# With text before the fault, so that the provider is not thought to be down.
BROKEN = [replay for replay in REPLAYS if replay.error is not None and replay.text]


@pytest.mark.parametrize("replay", WHOLE, ids=lambda replay: replay.name)
def test_a_whole_stream_is_a_response(
    played: Played, client: openai.OpenAI, tenant: Tenant, replay: Replay
) -> None:
    with client.responses.stream(model=played.model(replay.name), input="hi") as stream:
        answer: Any = None
        for told in stream:
            if told.type in ("response.completed", "response.incomplete"):
                answer = told.response
    assert answer is not None
    texts = [part for item in answer.output if item.type == "message" for part in item.content]
    assert "".join(getattr(part, "text", getattr(part, "refusal", "")) for part in texts) == replay.text
    thoughts = [
        part.text for item in answer.output if item.type == "reasoning" for part in item.content or ()
    ]
    assert "".join(thoughts) == replay.reasoning
    calls = [(item.name, item.arguments) for item in answer.output if item.type == "function_call"]
    assert calls == [call[1:] for call in replay.tools]
    assert answer.status == ("incomplete" if replay.finish in ("length", "content_filter") else "completed")
    (event,) = events(tenant)
    assert event.output_tokens == answer.usage.output_tokens
    if replay.usage is not None:
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == replay.usage


@pytest.mark.parametrize("replay", WHOLE, ids=lambda replay: replay.name)
def test_a_whole_stream_is_a_message(
    played: Played, client: openai.OpenAI, tenant: Tenant, replay: Replay
) -> None:
    sdk = Anthropic(base_url=tenant.stack.url, api_key=tenant.secret, max_retries=0, timeout=30)
    ask: Any = {"max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    with sdk.messages.stream(model=played.model(replay.name), **ask) as stream:
        answer = stream.get_final_message()
    assert "".join(block.text for block in answer.content if block.type == "text") == replay.text
    assert "".join(block.thinking for block in answer.content if block.type == "thinking") == replay.reasoning
    calls = [(block.name, block.input) for block in answer.content if block.type == "tool_use"]
    assert calls == [(name, json.loads(text)) for _, name, text in replay.tools]
    (event,) = events(tenant)
    assert event.output_tokens == answer.usage.output_tokens
    if replay.usage is not None:
        usage = answer.usage
        prompt = (
            usage.input_tokens
            + (usage.cache_read_input_tokens or 0)
            + (usage.cache_creation_input_tokens or 0)
        )
        assert (prompt, usage.output_tokens) == replay.usage


@pytest.mark.parametrize("replay", BROKEN, ids=lambda replay: replay.name)
def test_a_stream_that_failed_is_no_response_and_no_message(
    played: Played, client: openai.OpenAI, tenant: Tenant, replay: Replay
) -> None:
    model = played.model(replay.name)
    seen = []
    with pytest.raises(openai.APIError):
        for told in client.responses.create(model=model, input="hi", stream=True):
            seen.append(told.type)  # noqa: PERF401  # what came before the error counts
    assert seen[-1] == "response.failed"
    assert not {"response.completed", "response.incomplete"} & set(seen)
    sdk = Anthropic(base_url=tenant.stack.url, api_key=tenant.secret, max_retries=0, timeout=30)
    ask: Any = {"max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(anthropic.APIStatusError), sdk.messages.stream(model=model, **ask) as stream:
        stream.get_final_message()
    assert [event.end_reason for event in events(tenant)] == ["cut", "cut"]
