"""Recorded-like bytes of every provider, over real sockets and through the whole gateway, to the OpenAI SDK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import openai
import pytest
from pytest_django.plugin import DjangoDbBlocker

from routing.models import GroupDeployment, ModelGroup, Provider
from tests.conftest import COPIES, committing
from tests.dialects.corpus import REPLAYS
from tests.dialects.player import Player, Recording, running_player
from tests.dialects.shapes import Replay, lines
from tests.stack import Stack, Tenant
from tests.v1.conftest import events, tenant
from tests.v1.test_errors import wait_for_model

__all__ = ("tenant",)

ASK: list[Any] = [{"role": "user", "content": "hi"}]
PLAIN = (
    b'\n\n\n{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Yes","reasoning_content":"Hm"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)
NO_MONEY = b'{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"},"choices":null}'
JSON = "application/json"

# name -> (kind, recording)
OTHERS = {
    "blank-lines-before-the-answer": ("deepseek", Recording(PLAIN, content_type=JSON)),
    "no-money-with-status-200": ("minimax", Recording(NO_MONEY, content_type=JSON)),
    "no-money-with-status-400": (
        "qwen",
        Recording(b'{"error":{"message":"Access denied","code":"Arrearage"}}', 400, JSON),
    ),
    "an-error-as-octets": (
        "deepseek",
        Recording(b'{"error":{"message":"No tool output found."}}', 400, "application/octet-stream"),
    ),
    "a-page-of-a-proxy": ("generic", Recording(b"<html>sk-secret123 Bad Gateway</html>", 502, "text/html")),
    "nothing": ("generic", Recording(b"", 500, "")),
    "too-long": (
        "xai",
        Recording(
            b'{"code":"Client specified an invalid argument","error":"This model\'s maximum prompt length is 131072 '
            b'but the request contains 179111 tokens."}',
            400,
            JSON,
        ),
    ),
    "an-event-stream-that-is-a-json-error": (
        "openrouter",
        Recording(
            b'{"error":{"message":"Insufficient credits","code":402}}', content_type="text/event-stream"
        ),
    ),
    "a-late-end-of-the-response": (
        "generic",
        Recording(next(replay.raw for replay in REPLAYS if replay.name == "openai-text"), linger=0.1),
    ),
    "ollama-plain": ("ollama", Recording(PLAIN, content_type=JSON)),
    "ollama-one-choice-of-two": (
        "ollama",
        Recording(
            lines({"id": "c1", "choices": [{"index": 0, "delta": {"content": "A"}, "finish_reason": "stop"}]})
        ),
    ),
}


@dataclass
class Played:
    """The player behind the gateway: each recording is a model."""

    player: Player
    prefix: str

    def model(self, name: str) -> str:
        """The model that plays a recording."""
        return f"{self.prefix}-{name}"


@pytest.fixture(scope="module")
def played(stack: Stack, django_db_blocker: DjangoDbBlocker) -> Iterator[Played]:
    # They are chats: who speaks more than that has no more here.
    recordings = {
        replay.name: (replay.kind, Recording(replay.raw, missing="/responses")) for replay in REPLAYS
    } | OTHERS
    # Each is asked once: a provider that failed may not be asked again soon.
    recordings |= {f"{name}-streamed": recording for name, recording in OTHERS.items()}
    prefix = f"replay-{uuid4().hex[:6]}"
    with running_player({name: made for name, (_, made) in recordings.items()}) as player:
        with committing(django_db_blocker, COPIES["stack"]):
            for name, (kind, _) in recordings.items():
                model = f"{prefix}-{name}"
                Provider.objects.create(name=model, kind=kind, base_url=player.base_url(name))
                group: ModelGroup = stack.group(model)
                deployment = stack.deployment(model, "their-model", provider=model)
                GroupDeployment.objects.create(group=group, deployment=deployment)
        yield Played(player, prefix)


@pytest.fixture
def client(played: Played, tenant: Tenant) -> openai.OpenAI:
    with tenant.http() as http:
        wait_for_model(http, played.model(list(OTHERS)[-1]))
    return tenant.client()


@pytest.mark.parametrize(
    "replay", [replay for replay in REPLAYS if replay.error is None], ids=lambda r: r.name
)
def test_a_whole_stream_reaches_the_sdk(
    played: Played, client: openai.OpenAI, tenant: Tenant, replay: Replay
) -> None:
    with client.chat.completions.stream(
        model=played.model(replay.name), messages=ASK, stream_options={"include_usage": True}
    ) as stream:
        for _ in stream:
            pass
        answer = stream.current_completion_snapshot
    choice = answer.choices[0]
    assert (choice.message.content or "") == replay.text
    assert ((choice.message.model_extra or {}).get("reasoning_content") or "") == replay.reasoning
    assert [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []] == [
        call[1:] for call in replay.tools
    ]
    assert choice.finish_reason == replay.finish
    assert answer.usage is not None
    (event,) = events(tenant)
    assert (event.end_reason, event.status) == ("completed", 200)
    assert event.output_tokens == answer.usage.completion_tokens
    if replay.usage is None:
        assert event.usage_source == "counted"
    else:
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == replay.usage
        assert event.usage_source == "reported"


@pytest.mark.parametrize(
    "replay", [replay for replay in REPLAYS if replay.error is not None], ids=lambda r: r.name
)
def test_a_stream_that_failed_never_looks_complete(
    played: Played, client: openai.OpenAI, tenant: Tenant, replay: Replay
) -> None:
    ask = {"model": played.model(replay.name), "messages": ASK, "stream": True}
    with tenant.http() as http:
        body = http.post("/v1/chat/completions", json=ask).text
    assert "[DONE]" not in body
    assert '"error":{' in body
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=played.model(replay.name), messages=ASK, stream=True))
    first, second = events(tenant)
    expected = "cut" if replay.text else "provider_error"
    assert first.end_reason == expected
    # Between the two, a provider without money may be known to every worker, and is not asked again.
    assert second.end_reason in (expected, "refused")


def test_blank_lines_before_a_plain_answer_are_nothing(played: Played, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=played.model("blank-lines-before-the-answer"), messages=ASK)
    assert answer.choices[0].message.content == "Yes"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("no-money-with-status-200", 502, "provider_error"),
        ("no-money-with-status-400", 502, "provider_error"),
        ("an-error-as-octets", 400, None),
        ("a-page-of-a-proxy", 502, "provider_error"),
        ("nothing", 502, "provider_error"),
        ("too-long", 400, "context_length_exceeded"),
        ("an-event-stream-that-is-a-json-error", 502, "provider_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_any_shape_is_one_of_ours(
    played: Played, client: openai.OpenAI, name: str, status: int, code: str | None, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        model = played.model(f"{name}-streamed" if stream else name)
        client.chat.completions.create(model=model, messages=ASK, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "sk-secret" not in caught.value.response.text


def test_a_client_is_told_what_its_provider_could_not_be_sent(played: Played, client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model=played.model("ollama-plain"), messages=ASK, user="u", max_completion_tokens=7
    )
    assert answer.headers["x-weir-dropped-params"] == "user"
    assert played.player.asked["ollama-plain"] == {"model": "their-model", "messages": ASK, "max_tokens": 7}


def test_a_provider_that_is_not_told_of_choices_owes_only_one(played: Played, client: openai.OpenAI) -> None:
    model = played.model("ollama-one-choice-of-two")
    chunks = list(client.chat.completions.create(model=model, messages=ASK, n=2, stream=True))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["A"]


def test_a_response_that_ends_late_is_no_client_that_left(
    played: Played, client: openai.OpenAI, tenant: Tenant
) -> None:
    model = played.model("a-late-end-of-the-response")
    list(client.chat.completions.create(model=model, messages=ASK, stream=True))
    (event,) = events(tenant)
    assert (event.end_reason, event.status) == ("completed", 200)
