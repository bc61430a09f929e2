"""The Responses and Messages APIs of providers that have them, through the whole gateway: nothing is translated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import anthropic
import openai
import pytest
from anthropic import Anthropic
from django_scopes import scope
from pytest_django.plugin import DjangoDbBlocker

from gateway.models import StoredResponse
from routing.models import GroupDeployment, ModelGroup, Provider
from tests.clients.wire import SAY_CALL, gemini
from tests.conftest import COPIES, committing
from tests.dialects.anthropic_corpus import block, delta, end, start, stop
from tests.dialects.anthropic_corpus import events as stream_of
from tests.dialects.native_corpus import MODEL, RESPONSE_REPLAYS, TEXT_ANSWER, XAI_ANSWER
from tests.dialects.player import Recording, running_player
from tests.dialects.test_wire import JSON, PLAIN, Played
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance, events, tenant
from tests.v1.test_errors import wait_for_model

__all__ = ("tenant",)

MESSAGE = {
    "id": "msg_theirs",
    "type": "message",
    "role": "assistant",
    "model": "claude-theirs",
    "content": [{"type": "text", "text": "Yes", "citations": None}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 3,
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 100,
        "output_tokens": 2,
    },
}
HI: Any = [{"role": "user", "content": "hi"}]
OVERLOADED = (
    b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_011C"}'
)
UNREADABLE = (
    b'{"error":{"message":"The encrypted content for item rs_1 could not be verified.",'
    b'"type":"invalid_request_error","param":null,"code":"invalid_encrypted_content"}}'
)
UNABLE = (
    b'{"error":{"code":"OperationNotSupported","message":"The responses operation does not work with the '
    b'specified model, their-model. Please choose different model and try again."}}'
)
UNDECRYPTED = (
    b'{"code":"invalid-argument","error":"Could not decrypt the provided encrypted_content. Ensure the value '
    b'is the unmodified encrypted_content from a previous response."}'
)
LIMITED = (
    b'{"error":{"code":429,"message":"You exceeded your current quota, please check your plan.",'
    b'"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo",'
    b'"retryDelay":"34.4s"}]}}'
)
BEGUN = (start(), block(0, "text", text=""), delta(0, "text_delta", text="A"))
REPLAYS = {replay.name: replay.raw for replay in RESPONSE_REPLAYS}
# name -> (kind, recording)
RECORDINGS = {
    "message": ("anthropic", Recording(json.dumps(MESSAGE).encode(), content_type=JSON)),
    "count": ("anthropic", Recording(b'{"input_tokens": 2095}', content_type=JSON)),
    "no-count": ("anthropic", Recording(b"{}", 500, content_type=JSON)),
    "message-stream": ("anthropic", Recording(stream_of(*BEGUN, stop(0), *end("end_turn", 5)))),
    "message-cut": ("anthropic", Recording(stream_of(*BEGUN))),
    "message-overloaded": (
        "anthropic",
        Recording(
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            529,
            content_type=JSON,
        ),
    ),
    **{
        f"busy-{way}": ("anthropic", Recording(OVERLOADED, 529, JSON))
        for way in ("chat", "stream", "message")
    },
    **{f"limit-{way}": ("gemini", Recording(LIMITED, 429, JSON)) for way in ("chat", "stream", "message")},
    "signed": ("gemini", Recording(gemini(SAY_CALL, streamed=False), content_type=JSON)),
    "response": ("openai", Recording(json.dumps(TEXT_ANSWER).encode(), content_type=JSON)),
    "response-failed": (
        "openai",
        Recording(
            json.dumps(
                {**TEXT_ANSWER, "status": "failed", "error": {"code": "server_error", "message": "No"}}
            ).encode(),
            content_type=JSON,
        ),
    ),
    "response-stream": ("openai", Recording(REPLAYS["responses-thinking-and-text"])),
    "response-cut": ("openai", Recording(REPLAYS["responses-without-an-end"])),
    "response-broken": ("openai", Recording(REPLAYS["responses-failed-in-the-middle"])),
    "chat-alone": ("openai", Recording(PLAIN, content_type=JSON, missing="/responses")),
    "another-account": (
        "openai",
        Recording(PLAIN, content_type=JSON, missing="/responses", instead=(400, UNREADABLE)),
    ),
    "azure": ("azure", Recording(json.dumps(TEXT_ANSWER).encode(), content_type=JSON)),
    "azure-dated": ("azure", Recording(REPLAYS["responses-a-call"])),
    "azure-old": ("azure", Recording(PLAIN, content_type=JSON)),
    "azure-unable": (
        "azure",
        Recording(PLAIN, content_type=JSON, missing="/responses", instead=(400, UNABLE)),
    ),
    "xai": ("xai", Recording(json.dumps(XAI_ANSWER).encode(), content_type=JSON)),
    "xai-stream": ("xai", Recording(REPLAYS["responses-of-xai"])),
    "xai-another-account": (
        "xai",
        Recording(PLAIN, content_type=JSON, missing="/responses", instead=(400, UNDECRYPTED)),
    ),
    "chat": ("generic", Recording(PLAIN, content_type=JSON)),
}


# Those of Azure, behind the name of the recording.
ADDRESSES = {
    "azure": "/openai/v1",
    "azure-dated": "?api-version=2025-04-01-preview",
    "azure-old": "?api-version=2024-10-21",
}


@pytest.fixture(scope="module")
def played(stack: Stack, django_db_blocker: DjangoDbBlocker) -> Iterator[Played]:
    prefix = f"native-{uuid4().hex[:6]}"
    with running_player({name: made for name, (_, made) in RECORDINGS.items()}) as player:
        with committing(django_db_blocker, COPIES["stack"]):
            for name, (kind, _) in RECORDINGS.items():
                model = f"{prefix}-{name}"
                base_url = f"{player.url}/{name}{ADDRESSES[name]}" if name in ADDRESSES else None
                Provider.objects.create(name=model, kind=kind, base_url=base_url or player.base_url(name))
                deployment = stack.deployment(
                    model, MODEL if kind == "openai" else "their-model", provider=model
                )
                GroupDeployment.objects.create(group=stack.group(model), deployment=deployment)
            chat = GroupDeployment.objects.get(group__name=f"{prefix}-chat").deployment
            group = ModelGroup.objects.get(name=f"{prefix}-message-overloaded")
            GroupDeployment.objects.create(group=group, deployment=chat, priority=9)
        yield Played(player, prefix)


def wait_for(played: Played, tenant: Tenant) -> None:
    with tenant.http() as http:
        wait_for_model(http, played.model(list(RECORDINGS)[-1]))


@pytest.fixture
def sdk(played: Played, tenant: Tenant) -> openai.OpenAI:
    wait_for(played, tenant)
    return tenant.client()


@pytest.fixture
def claude(played: Played, tenant: Tenant) -> Anthropic:
    wait_for(played, tenant)
    return Anthropic(base_url=tenant.stack.url, api_key=tenant.secret, max_retries=0, timeout=30)


def test_a_message_is_sent_on_as_it_is_and_metered(played: Played, claude: Anthropic, tenant: Tenant) -> None:
    system: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    asked: Any = {"max_tokens": 20, "system": system, "messages": HI}
    raw = claude.messages.with_raw_response.create(
        model=played.model("message"), **asked, extra_body={"top_k": 5, "speed": "fast"}
    )
    assert json.loads(raw.text()) == MESSAGE
    # A faster answer has another price.
    assert raw.headers["x-weir-dropped-params"] == "speed"
    assert played.player.asked["message"] == {**asked, "model": "their-model", "top_k": 5}
    assert played.player.paths["message"] == "/message/v1/messages"
    (event,) = events(tenant)
    assert (event.endpoint, event.usage_source) == ("messages", "reported")
    used = event.input_tokens, event.cached_input_tokens, event.cache_write_tokens, event.output_tokens
    assert used == (3, 100, 10, 2)


def test_a_streamed_message_passes(played: Played, claude: Anthropic, tenant: Tenant) -> None:
    with claude.messages.stream(model=played.model("message-stream"), max_tokens=20, messages=HI) as stream:
        final = stream.get_final_message()
    assert (final.id, final.content[0].to_dict()["text"]) == ("msg_01", "A")
    assert played.player.asked["message-stream"]["stream"] is True
    (event,) = events(tenant)
    assert (event.input_tokens, event.output_tokens, event.usage_source) == (12, 5, "reported")


def test_tokens_are_counted_by_the_provider_itself(played: Played, claude: Anthropic, tenant: Tenant) -> None:
    found = claude.messages.count_tokens(model=played.model("count"), messages=HI, system="Be brief.")
    assert found.input_tokens == 2_095
    assert played.player.paths["count"] == "/count/v1/messages/count_tokens"
    assert played.player.asked["count"] == {"model": "their-model", "messages": HI, "system": "Be brief."}
    assert events(tenant) == []


def test_a_provider_that_cannot_count_leaves_an_estimate_and_stays_well(
    played: Played, claude: Anthropic
) -> None:
    for _ in range(6):
        # More failures than open a circuit.
        found = claude.messages.count_tokens(model=played.model("no-count"), messages=HI)
        assert 0 < found.input_tokens < 50
        assert played.player.paths.pop("no-count") == "/no-count/v1/messages/count_tokens"


def test_a_message_that_breaks_off_is_an_error_in_its_own_words(
    played: Played, claude: Anthropic, tenant: Tenant
) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="ended before it was complete"),
        claude.messages.stream(model=played.model("message-cut"), max_tokens=20, messages=HI) as stream,
    ):
        stream.get_final_message()
    (event,) = events(tenant)
    assert (event.end_reason, event.input_tokens, event.output_tokens) == ("cut", 12, 1)


def test_a_chat_provider_answers_for_one_that_is_overloaded(
    played: Played, claude: Anthropic, tenant: Tenant
) -> None:
    answer = claude.messages.create(model=played.model("message-overloaded"), max_tokens=20, messages=HI)
    assert [block.to_dict()["type"] for block in answer.content] == ["thinking", "text"]
    assert played.player.asked["chat"]["messages"] == HI
    (event,) = events(tenant)
    assert [attempt["reason"] for attempt in event.attempts] == ["overloaded", "ok"]


@pytest.mark.parametrize(
    "foreign",
    [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "thinking", "thinking": "Hm", "signature": "weir1:W10="},
        {"type": "tool_use", "id": "functions.get:0", "name": "get", "input": {}},
    ],
)
def test_what_another_model_thought_or_called_is_translated(
    played: Played, claude: Anthropic, foreign: dict[str, Any]
) -> None:
    result = {"type": "tool_result", "tool_use_id": "functions.get:0", "content": "1"}
    answered: Any = [result] if foreign["type"] == "tool_use" else "go on"
    said: Any = [*HI, {"role": "assistant", "content": [foreign, {"type": "text", "text": "Ho"}]}]
    asked: Any = [*said, {"role": "user", "content": answered}]
    claude.messages.create(model=played.model("message"), max_tokens=20, messages=asked)
    sent = json.dumps(played.player.asked["message"]["messages"])
    assert "Ho" in sent
    assert "Hm" not in sent
    assert "weir1" not in sent
    assert "functions.get:0" not in sent


def test_a_response_is_sent_on_and_becomes_the_gateways_own(
    played: Played, sdk: openai.OpenAI, tenant: Tenant
) -> None:
    answer = sdk.responses.create(
        model=played.model("response"),
        input="hi",
        truncation="auto",
        metadata={"a": "b"},
        max_output_tokens=100,
    )
    asked = played.player.asked["response"]
    assert asked.pop("input")[0]["content"] == [{"type": "input_text", "text": "hi"}]
    assert asked == {"model": MODEL, "truncation": "auto", "max_output_tokens": 100, "store": False}
    assert played.player.paths["response"] == "/response/v1/responses"
    (event,) = events(tenant)
    assert answer.id == f"resp_{event.request_id.removeprefix('req_')}"
    assert (answer.output_text, answer.metadata, answer.status) == ("Hellö 🌍", {"a": "b"}, "completed")
    used = event.input_tokens, event.cached_input_tokens, event.output_tokens, event.reasoning_tokens
    assert (event.endpoint, *used) == ("responses", 500, 1_500, 30, 20)


def test_a_streamed_response_passes(played: Played, sdk: openai.OpenAI, tenant: Tenant) -> None:
    with sdk.responses.stream(model=played.model("response-stream"), input="hi") as stream:
        kinds = [told.type for told in stream]
        final = stream.get_final_response()
    (event,) = events(tenant)
    assert (final.id, final.output_text) == (f"resp_{event.request_id.removeprefix('req_')}", "Hellö 🌍")
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert (event.cached_input_tokens, event.output_tokens, event.usage_source) == (1_500, 30, "reported")


@pytest.mark.parametrize("name", ["response-cut", "response-broken"])
def test_a_response_that_breaks_off_is_an_error_in_its_own_words(
    played: Played, sdk: openai.OpenAI, tenant: Tenant, name: str
) -> None:
    with tenant.http() as http:
        ask = {"model": played.model(name), "input": "hi", "stream": True}
        body = http.post("/v1/responses", json=ask).text
    told = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
    assert [one["sequence_number"] for one in told] == list(range(len(told)))
    assert [one["type"] for one in told[-2:]] == ["response.failed", "error"]
    assert len({one["response"]["id"] for one in told if "response" in one}) == 1
    assert "[DONE]" not in body
    assert "org-123" not in body
    with pytest.raises(openai.APIError):
        list(sdk.responses.create(model=played.model(name), input="hi", stream=True))
    assert {event.end_reason for event in events(tenant)} == {"cut"}


def test_a_failed_response_is_an_error(played: Played, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.responses.create(model=played.model("response-failed"), input="hi")
    assert (caught.value.status_code, caught.value.code) == (502, "provider_error")


def test_who_has_no_responses_is_asked_in_a_chat(played: Played, sdk: openai.OpenAI) -> None:
    for _ in range(2):
        answer = sdk.responses.create(model=played.model("chat-alone"), input="hi")
        assert answer.output_text == "Yes"
        assert played.player.paths["chat-alone"] == "/chat-alone/v1/chat/completions"


@pytest.mark.parametrize("name", ["another-account", "xai-another-account"])
def test_thinking_that_another_account_sealed_is_left_behind(
    played: Played, sdk: openai.OpenAI, tenant: Tenant, name: str
) -> None:
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    asked: Any = [*HI, sealed, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "go on"}]
    for _ in range(2):
        answer = sdk.responses.create(model=played.model(name), input=asked)
        assert answer.output_text == "Yes"
    assert "sealed" not in json.dumps(played.player.asked[name])
    assert [event.end_reason for event in events(tenant)] == ["completed", "completed"]


def test_azure_is_asked_at_the_address_of_its_newer_api(
    played: Played, sdk: openai.OpenAI, tenant: Tenant
) -> None:
    answer = sdk.responses.create(model=played.model("azure"), input="hi", truncation="auto")
    asked = played.player.asked["azure"]
    assert played.player.paths["azure"] == "/azure/openai/v1/responses"
    assert (asked["model"], asked["truncation"], asked["store"]) == ("their-model", "auto", False)
    (event,) = events(tenant)
    assert answer.id == f"resp_{event.request_id.removeprefix('req_')}"
    used = event.input_tokens, event.cached_input_tokens, event.output_tokens, event.reasoning_tokens
    assert (answer.output_text, *used) == ("Hellö 🌍", 500, 1_500, 30, 20)


def test_azure_is_asked_at_the_one_address_of_a_resource(
    played: Played, sdk: openai.OpenAI, tenant: Tenant
) -> None:
    with sdk.responses.stream(model=played.model("azure-dated"), input="hi") as stream:
        (call,) = stream.get_final_response().output
    assert call.to_dict()["arguments"] == '{"location": "Zürich"}'
    path = "/azure-dated/openai/responses?api-version=2025-04-01-preview"
    assert played.player.paths["azure-dated"] == path
    assert played.player.asked["azure-dated"]["model"] == "their-model"
    (event,) = events(tenant)
    assert (event.input_tokens, event.output_tokens, event.usage_source) == (12, 7, "reported")


def test_azure_is_asked_in_a_chat_where_it_has_no_responses(played: Played, sdk: openai.OpenAI) -> None:
    for name, chat in (
        ("azure-old", "/openai/deployments/their-model/chat/completions?api-version=2024-10-21"),
        ("azure-unable", "/v1/chat/completions"),
    ):
        for _ in range(2):
            answer = sdk.responses.create(model=played.model(name), input="hi")
            assert answer.output_text == "Yes"
            assert played.player.paths[name] == f"/{name}{chat}"


def test_xai_is_asked_for_responses(played: Played, sdk: openai.OpenAI, tenant: Tenant) -> None:
    plain = sdk.responses.create(model=played.model("xai"), input="hi", instructions="Be brief.")
    assert played.player.paths["xai"] == "/xai/v1/responses"
    asked = played.player.asked["xai"]
    assert (asked["model"], asked["instructions"], asked["store"]) == ("their-model", "Be brief.", False)
    with sdk.responses.stream(model=played.model("xai-stream"), input="hi") as stream:
        streamed = stream.get_final_response()
    for answer in (plain, streamed):
        found = answer.to_dict()
        assert (answer.output_text, found["error"], found["metadata"]) == ("Hellö 🌍", None, {})
        assert "cost" not in json.dumps(found["usage"])
    spent = events(tenant)
    for event in spent:
        used = event.input_tokens, event.cached_input_tokens, event.output_tokens, event.reasoning_tokens
        assert used == (5, 192, 199, 198)
    assert {plain.id, streamed.id} == {f"resp_{event.request_id.removeprefix('req_')}" for event in spent}
    tenant.stack.settled()
    books_balance(tenant)


def test_a_kept_response_goes_on_with_its_thinking(played: Played, stack: Stack, slug: str) -> None:
    keeper = stack.tenant(f"{slug}-keeps", store_responses=True)
    wait_for(played, keeper)
    sdk = keeper.client()
    first = sdk.responses.create(model=played.model("response"), input="hi")
    with sdk.responses.stream(
        model=played.model("response-stream"), input="more", previous_response_id=first.id
    ) as stream:
        second = stream.get_final_response()
    asked = played.player.asked["response-stream"]
    # OpenAI keeps nothing, so it is told all, without ids that it could look up.
    assert [item["type"] for item in asked["input"]] == ["message", "reasoning", "message", "message"]
    assert not any("id" in item for item in asked["input"])
    assert asked["input"][1]["encrypted_content"] == "c2VhbGVk"
    assert (asked["store"], asked["include"]) == (False, ["reasoning.encrypted_content"])
    assert "previous_response_id" not in asked
    assert (second.previous_response_id, second.to_dict()["store"]) == (first.id, True)
    assert sdk.responses.retrieve(second.id).output_text == "Hellö 🌍"
    with scope(organization=keeper.organization):
        assert StoredResponse.objects.count() == 2
    stack.settled()
    books_balance(keeper)


def signatures(played: Played) -> list[str | None]:
    """Those of the calls that the last request to Gemini carries."""
    turns = played.player.asked["signed"]["contents"]
    return [
        part.get("thoughtSignature") for turn in turns for part in turn["parts"] if "functionCall" in part
    ]


def test_geminis_signature_goes_back_with_its_call_from_anthropics_sdk(
    played: Played, claude: Anthropic
) -> None:
    asked: Any = {"model": played.model("signed"), "max_tokens": 50}
    tools: Any = [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
    first = claude.messages.create(messages=HI, tools=tools, **asked)
    call = next(block for block in first.content if block.type == "tool_use")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    talk: Any = [
        *HI,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    claude.messages.create(messages=talk, tools=tools, **asked)
    assert signatures(played) == ["c2ln"]


def test_geminis_signature_goes_back_with_its_call_from_openais_sdk(
    played: Played, sdk: openai.OpenAI
) -> None:
    asked: Any = {
        "model": played.model("signed"),
        "tools": [
            {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
        ],
        "include": ["reasoning.encrypted_content"],
    }
    first = sdk.responses.create(input="hi", **asked)
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    talk: Any = [*HI, *(item.to_dict() for item in first.output), result]
    sdk.responses.create(input=talk, **asked)
    assert signatures(played) == ["c2ln"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_anthropic_is_told_in_openais_words(
    played: Played, sdk: openai.OpenAI, stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        model = played.model("busy-stream" if stream else "busy-chat")
        sdk.chat.completions.create(model=model, messages=HI, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (502, "provider_overloaded")
    assert "req_011C" not in caught.value.response.text


def test_an_overloaded_anthropic_is_told_in_its_own(played: Played, claude: Anthropic) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        claude.messages.create(model=played.model("busy-message"), max_tokens=9, messages=HI)
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (529, "overloaded_error")
    assert body["request_id"] != "req_011C"


@pytest.mark.parametrize("stream", [False, True])
def test_geminis_advice_when_to_come_again_is_a_header(
    played: Played, sdk: openai.OpenAI, stream: bool
) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        model = played.model("limit-stream" if stream else "limit-chat")
        sdk.chat.completions.create(model=model, messages=HI, stream=stream)
    assert caught.value.code == "provider_rate_limited"
    # 34.4 seconds, rounded up.
    assert caught.value.response.headers["retry-after"] == "35"
    assert "x-should-retry" not in caught.value.response.headers


def test_geminis_advice_is_a_header_for_anthropics_sdk_too(played: Played, claude: Anthropic) -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        claude.messages.create(model=played.model("limit-message"), max_tokens=9, messages=HI)
    assert caught.value.response.headers["retry-after"] == "35"


def test_a_budget_holds_for_what_passes(played: Played, stack: Stack, slug: str) -> None:
    poor = stack.tenant(slug, quotas=[("organization", "budget", "0.0000001", "month")])
    wait_for(played, poor)
    sdk = Anthropic(base_url=stack.url, api_key=poor.secret, max_retries=0, timeout=30)
    with pytest.raises(anthropic.RateLimitError):
        sdk.messages.create(model=played.model("message"), max_tokens=20, messages=HI)
    assert [event.end_reason for event in events(poor)] == ["refused"]
