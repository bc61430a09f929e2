"""Plain answers: completed where OpenAI's own are, repaired where the provider's are not OpenAI's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from gateway.v1.answers import BadAnswer, ErrorAnswer, chat_answer, embedding_answer, usage_shown
from routing.dialects import dialect
from routing.kinds import KINDS

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def whole(message: Any, finish: Any = "stop", **more: Any) -> bytes:
    answer = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": USAGE,
    }
    return json.dumps({**answer, **more}).encode()


def repaired(kind: str, raw: bytes) -> dict[str, Any]:
    """The answer as the client gets it; always one that the SDK reads."""
    answer: dict[str, Any] = json.loads(chat_answer(raw, speaks=dialect(kind), model="their-model").body)
    ChatCompletion.model_validate(answer)
    return answer


def message_of(answer: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def test_a_complete_answer_passes_as_the_very_bytes_that_came() -> None:
    raw = whole({"role": "assistant", "content": "a", "refusal": None})
    raw = raw.replace(b'"index": 0', b'"index": 0, "logprobs": null')
    assert chat_answer(raw, speaks=dialect("openai")).body == raw


def test_nullable_members_are_filled_in_and_unknown_ones_stay() -> None:
    answer = json.loads(chat_answer(whole({"content": "a"}, timings={"n": 1})).body)
    assert answer["timings"] == {"n": 1}
    assert message_of(answer) == {"content": "a", "role": "assistant", "refusal": None}
    assert answer["choices"][0]["logprobs"] is None


def test_blank_lines_before_the_answer_are_nothing() -> None:
    assert (
        message_of(repaired("deepseek", b"\n\n\n" + whole({"role": "assistant", "content": "a"})))["content"]
        == "a"
    )


@pytest.mark.parametrize(
    ("kind", "message", "reasoning"),
    [
        ("deepseek", {"content": "a", "reasoning_content": "hm"}, "hm"),
        ("groq", {"content": "a", "reasoning": "hm"}, "hm"),
        (
            "openrouter",
            {"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
            "hm",
        ),
        (
            "mistral",
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            "hm",
        ),
        ("vllm", {"content": "a", "reasoning_content": None}, None),
    ],
)
def test_thinking_is_in_one_place_and_text_is_a_string(
    kind: str, message: dict[str, Any], reasoning: str | None
) -> None:
    found = message_of(repaired(kind, whole({"role": "assistant", **message})))
    assert found["content"] == "a"
    assert found.get("reasoning_content") == reasoning
    assert "reasoning" not in found


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"arguments": '{"a": 1}'}, '{"a": 1}'),
        ({}, "{}"),
        ({"arguments": None}, "{}"),
        ({"arguments": "null"}, "{}"),
        ({"arguments": ""}, "{}"),
        ({"arguments": {"a": 1}}, '{"a":1}'),
    ],
)
def test_arguments_are_always_a_string_of_json(arguments: dict[str, Any], told: str) -> None:
    call = {"id": "toolu_1", "index": 0, "type": "function", "function": {"name": "f", **arguments}}
    (found,) = message_of(repaired("openrouter", whole({"content": None, "tool_calls": [call]})))[
        "tool_calls"
    ]
    assert found == {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": told}}


def test_each_call_has_an_id_of_its_own() -> None:
    calls = [{"id": given, "function": {"name": "f", "arguments": "{}"}} for given in ("a", "a", "", None)]
    found = message_of(repaired("generic", whole({"content": None, "tool_calls": calls})))["tool_calls"]
    assert found[0]["id"] == "a"
    assert len({call["id"] for call in found}) == 4
    assert all(call["type"] == "function" for call in found)


@pytest.mark.parametrize("none", [None, []])
def test_no_tool_calls_are_no_member(none: Any) -> None:
    assert "tool_calls" not in message_of(repaired("together", whole({"content": "a", "tool_calls": none})))


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("sensitive", "content_filter"),
        ("SAFETY", "content_filter"),
        ("tool_use", "tool_calls"),
        ("COMPLETE", "stop"),
        ("never heard of", "stop"),
        (None, "stop"),
        ("", "stop"),
    ],
)
def test_the_reason_of_the_end_is_one_of_openais(word: str | None, reason: str) -> None:
    choice = repaired("openrouter", whole({"content": "a"}, word))["choices"][0]
    assert choice["finish_reason"] == reason
    assert choice.get("native_finish_reason") == (word or None)


def test_an_empty_reason_beside_a_tool_call_means_the_call() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    answer = repaired("xai", whole({"content": "", "tool_calls": [call]}, ""))
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("word", ["error", "network_error", "insufficient_system_resource", "abort"])
def test_an_answer_that_says_it_failed_is_not_an_answer(word: str) -> None:
    with pytest.raises(BadAnswer, match="failed"):
        chat_answer(whole({"content": "half"}, word), speaks=dialect("openrouter"))


def test_identity_is_filled_in() -> None:
    answer = repaired("generic", whole({"content": "a"}, id="", created=0, model=None, object=None))
    assert answer["id"].startswith("chatcmpl-")
    assert answer["created"] > 0
    assert (answer["model"], answer["object"]) == ("their-model", "chat.completion")


def test_usage_inside_a_choice_is_found() -> None:
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "usage": USAGE}
    raw = json.dumps({"id": "c", "choices": [choice]}).encode()
    answer = repaired("moonshot", raw)
    assert answer["usage"]["total_tokens"] == 5
    assert "usage" not in answer["choices"][0]


@pytest.mark.parametrize(
    "usage",
    [
        {**USAGE, "num_cached_tokens": 1},
        {**USAGE, "prompt_token_details": {"cached_tokens": 1}},
        {**USAGE, "prompt_tokens_details": {"cached_tokens": 1}},
    ],
)
def test_mistral_spells_cached_tokens_in_three_ways(usage: dict[str, Any]) -> None:
    read = chat_answer(whole({"content": "a"}, usage=usage), speaks=dialect("mistral")).usage
    assert read is not None
    assert (read.input, read.cached_input, read.output) == (2, 1, 2)


def test_reasoning_beside_the_completion_is_shown_within_it_and_costs_are_not_shown() -> None:
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 1,
        "total_tokens": 303,
        "completion_tokens_details": {"reasoning_tokens": 290},
        "cost_in_usd_ticks": 5,
        "num_sources_used": 0,
    }
    assert usage_shown(usage) == {
        "prompt_tokens": 12,
        "completion_tokens": 291,
        "total_tokens": 303,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 290},
        "num_sources_used": 0,
    }


@pytest.mark.parametrize(
    "raw",
    [
        b'{"error":{"message":"no"}}',
        b'{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"},"choices":null}',
        b'[{"error":{"message":"no"}}]',
        b'{"object":"error","message":"no"}',
        b'{"request_id":"r","code":"InvalidParameter","message":"no"}',
        b'{"code":"The service is currently unavailable","error":"no"}',
    ],
)
def test_an_error_with_status_200_is_an_error(raw: bytes) -> None:
    with pytest.raises(ErrorAnswer):
        chat_answer(raw, speaks=dialect("generic"))


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"7", b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b'{"choices":[7]}']
)
@pytest.mark.parametrize("kind", ["openai", "generic"])
def test_what_is_no_answer_is_refused(kind: str, raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        chat_answer(raw, speaks=dialect(kind))


@pytest.mark.parametrize("garbage", [7, "x", [7], [None], {"a": 1}, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_garbage_in_any_member_is_survived(kind: str, garbage: Any) -> None:
    for raw in (
        whole({"content": garbage, "reasoning": garbage, "tool_calls": garbage}),
        whole({"content": "a", "tool_calls": [{"id": garbage, "function": garbage}]}),
        whole({"content": "a", "tool_calls": [{"function": {"name": garbage, "arguments": garbage}}]}),
        whole({"content": "a"}, garbage, usage=garbage, id=garbage, model=garbage, created=garbage),
    ):
        chat_answer(raw, speaks=dialect(kind))


def test_an_embedding_answer_that_tells_only_a_total_is_completed() -> None:
    raw = json.dumps({"data": [{"embedding": [1.0]}], "usage": {"total_tokens": 4}}).encode()
    read = embedding_answer(raw, base64_wanted=False, speaks=dialect("generic"), model="their-model")
    answer = json.loads(read.body)
    assert answer["usage"] == {"total_tokens": 4, "prompt_tokens": 4}
    assert answer["model"] == "their-model"
    assert answer["data"] == [{"embedding": [1.0], "object": "embedding", "index": 0}]


@pytest.mark.parametrize(
    ("content", "text", "thought"),
    [
        ("<think>\nHm</think>\n\nYes", "Yes", "\nHm"),
        ("<think>Hm", "", "Hm"),
        ("Yes <think>Hm</think>", "Yes <think>Hm</think>", None),
        ("<thin", "<thin", None),
    ],
)
def test_thinking_that_leaks_into_the_text_is_taken_out(content: str, text: str, thought: str | None) -> None:
    message = repaired("minimax", whole({"content": content}))["choices"][0]["message"]
    assert (message["content"], message.get("reasoning_content")) == (text, thought)
