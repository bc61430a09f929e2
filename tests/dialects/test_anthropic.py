"""Anthropic by its Messages API: what it is sent for a chat request, and what a client gets of its answer."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from billing.token_usage import from_openai
from gateway.v1.answers import BadAnswer, chat_answer
from routing.dialects import CannotCarry, dialect
from tests.dialects.anthropic_corpus import ANTHROPIC_REPLAYS
from tests.dialects.test_requests import NAMED, OTHER, TOOL, sent
from tests.dialects.test_streams import chunks, scan

OLD, BUDGETED, ADAPTIVE, NEWEST = (
    "claude-3-5-haiku-20241022",
    "claude-sonnet-4-5-20250929",
    "claude-opus-4-6",
    "claude-opus-5-5",
)
CALL = {"id": "toolu_01", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
ANSWERED = {"role": "tool", "tool_call_id": "toolu_01", "content": "7"}


def user(*texts: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def asked(model: str = BUDGETED, **body: Any) -> dict[str, Any]:
    return sent("anthropic", model, **body)[0]


def lost(model: str = BUDGETED, **body: Any) -> list[str]:
    return sent("anthropic", model, **body)[1]


def said(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as they are sent."""
    found: list[dict[str, Any]] = asked(messages=list(messages))["messages"]
    return found


def test_a_plain_request_has_a_bound_and_no_stream() -> None:
    assert asked("m", user="ann") == {
        "model": "m",
        "max_tokens": 4096,
        "metadata": {"user_id": "ann"},
        "messages": [user("hi")],
    }


def test_a_streamed_one_asks_for_a_stream() -> None:
    body, told = sent("anthropic", stream=True, stream_options={"include_usage": True})
    assert (body["stream"], "stream_options" in body, told) == (True, False, [])


@pytest.mark.parametrize(("bounds", "bound"), [({"max_tokens": 7}, 7), ({"max_completion_tokens": 8}, 8)])
def test_the_clients_bound_counts(bounds: dict[str, Any], bound: int) -> None:
    assert asked(**bounds)["max_tokens"] == bound


def test_system_and_developer_go_before_the_talk() -> None:
    system, developer = {"role": "system", "content": "A"}, {"role": "developer", "content": "B"}
    body = asked(messages=[system, {"role": "user", "content": "hi"}, developer])
    assert body["system"] == [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    assert body["messages"] == [user("hi")]


def test_neighbours_of_one_role_become_one_message() -> None:
    assert said({"role": "user", "content": "a"}, {"role": "user", "content": "b"}) == [user("a", "b")]


def test_answers_of_tools_are_the_users_and_come_first() -> None:
    first = {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "toolu_02"}]}
    talk = said(
        {"role": "user", "content": "a"},
        first,
        ANSWERED,
        {**ANSWERED, "tool_call_id": "toolu_02", "content": ""},
        {"role": "user", "content": "b"},
    )
    assert talk[1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "toolu_01", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "toolu_02", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_01",
                    "content": [{"type": "text", "text": "7"}],
                },
                {"type": "tool_result", "tool_use_id": "toolu_02"},
                {"type": "text", "text": "b"},
            ],
        },
    ]


def test_an_id_that_is_refused_is_rewritten_alike_in_call_and_answer() -> None:
    call = {**CALL, "id": "call|1"}
    talk = said(
        user("a"), {"role": "assistant", "tool_calls": [call]}, {**ANSWERED, "tool_call_id": "call|1"}
    )
    made = talk[1]["content"][0]["id"]
    assert made.startswith("call_")
    assert talk[2]["content"][0]["tool_use_id"] == made


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a": 1}', {"a": 1}),
        ("[1]", {"arguments": "[1]"}),
        ("{x", {"arguments": "{x"}),
    ],
)
def test_arguments_are_always_an_object(arguments: str, given: dict[str, Any]) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    assert said(user("a"), {"role": "assistant", "tool_calls": [call]})[1]["content"][0]["input"] == given


def test_a_talk_that_the_assistant_begins_is_given_a_beginning() -> None:
    assert [turn["role"] for turn in said({"role": "assistant", "content": "a"})] == ["user", "assistant"]


def test_an_answer_to_be_continued_ends_without_white_space() -> None:
    assert said(user("a"), {"role": "assistant", "content": "{ "})[1]["content"][0]["text"] == "{"


def test_a_system_prompt_alone_is_the_question() -> None:
    assert asked(messages=[{"role": "system", "content": "A"}])["messages"] == [user("A")]


def test_pictures_and_documents_go_as_data_or_as_an_address() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,iVBO"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
        {"type": "text", "text": "what?", "cache_control": {"type": "ephemeral"}},
    ]
    assert said({"role": "user", "content": parts})[0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            "title": "a.pdf",
        },
        {"type": "text", "text": "what?", "cache_control": {"type": "ephemeral"}},
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "image_url", "image_url": {"url": "ftp://a"}},
    ],
)
def test_content_without_a_counterpart_is_refused_by_its_place(part: dict[str, Any]) -> None:
    with pytest.raises(CannotCarry) as caught:
        asked(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, part]}])
    assert caught.value.param == "messages[0].content[1]"


def test_tools_have_an_input_schema() -> None:
    bare = {"type": "function", "function": {"name": "now", "description": "The time"}}
    assert asked(tools=[TOOL, bare])["tools"] == [
        {"name": "f", "input_schema": {"type": "object"}},
        {
            "name": "now",
            "description": "The time",
            "input_schema": {"type": "object", "properties": {}},
        },
    ]


@pytest.mark.parametrize(
    ("choice", "more", "given"),
    [
        (None, {}, None),
        ("auto", {}, {"type": "auto"}),
        ("none", {"parallel_tool_calls": False}, {"type": "none"}),
        ("required", {}, {"type": "any"}),
        (NAMED, {}, {"type": "tool", "name": "g"}),
        (None, {"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            NAMED,
            {"parallel_tool_calls": False},
            {"type": "tool", "name": "g", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_tools(choice: Any, more: dict[str, Any], given: dict[str, Any] | None) -> None:
    assert asked(tools=[TOOL, OTHER], tool_choice=choice, **more).get("tool_choice") == given


def test_a_choice_without_tools_is_left_out() -> None:
    assert set(asked(tools=[], tool_choice="auto")) == {"model", "max_tokens", "messages"}


def test_of_allowed_tools_only_those_are_offered() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    body = asked(tools=[TOOL, OTHER], tool_choice=choice)
    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    ("stop", "sequences", "told"),
    [
        ("END", ["END"], []),
        (["a", "b"], ["a", "b"], []),
        (["a", "\n"], ["a"], ["stop"]),
        (["\n"], None, ["stop"]),
    ],
)
def test_stop_words_that_are_blank_are_lost(stop: Any, sequences: list[str] | None, told: list[str]) -> None:
    body, names = sent("anthropic", stop=stop)
    assert (body.get("stop_sequences"), names) == (sequences, told)


def test_what_has_no_counterpart_is_told() -> None:
    assert lost(n=2, seed=7, logit_bias={"1": 2}, frequency_penalty=0.5, foo=1) == [
        *("foo", "frequency_penalty", "logit_bias", "n", "seed"),
    ]


def test_what_asks_for_nothing_special_is_not_told() -> None:
    assert lost(n=1, presence_penalty=0, logprobs=False, seed=None, metadata={"a": "b"}, store=True) == []


@pytest.mark.parametrize(
    ("model", "given", "passed", "told"),
    [
        (OLD, {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}, []),
        (OLD, {"temperature": 1.7}, {"temperature": 1}, ["temperature"]),
        (BUDGETED, {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5}, ["top_p"]),
        (BUDGETED, {"temperature": 0.5, "top_p": 1}, {"temperature": 0.5}, []),
        (NEWEST, {"temperature": 0.5, "top_p": 0.9, "top_k": 4}, {}, ["temperature", "top_k", "top_p"]),
        (NEWEST, {"temperature": 1}, {}, []),
        ("claude-opus-4-7", {"temperature": 0}, {}, ["temperature"]),
    ],
)
def test_sampling_by_the_generation_of_the_model(
    model: str, given: dict[str, Any], passed: dict[str, Any], told: list[str]
) -> None:
    body, names = sent("anthropic", model, **given)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == passed
    assert names == told


def enabled(budget: int) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def adaptive(effort: str) -> dict[str, Any]:
    return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}


@pytest.mark.parametrize(
    ("model", "given", "passed", "told"),
    [
        (BUDGETED, {"reasoning_effort": "low", "max_tokens": 9000}, enabled(1024), []),
        (BUDGETED, {"reasoning_effort": "high", "max_tokens": 10000}, enabled(8000), []),
        (BUDGETED, {"reasoning_effort": "high", "max_tokens": 64000}, enabled(16384), []),
        (BUDGETED, {"reasoning_effort": "low", "max_tokens": 1024}, {}, ["reasoning_effort"]),
        (BUDGETED, {"reasoning_effort": "none"}, {}, []),
        (ADAPTIVE, {"reasoning_effort": "minimal"}, adaptive("low"), []),
        (NEWEST, {"reasoning_effort": "high"}, adaptive("high"), []),
        (NEWEST, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, []),
        (ADAPTIVE, {"reasoning_effort": "much"}, {}, ["reasoning_effort"]),
        (
            ADAPTIVE,
            {"reasoning_effort": "high", "tools": [TOOL], "tool_choice": "required"},
            {},
            ["reasoning_effort"],
        ),
        (BUDGETED, {"reasoning_effort": "low", "temperature": 0.2}, enabled(1024), ["temperature"]),
    ],
)
def test_effort_by_the_generation_of_the_model(
    model: str, given: dict[str, Any], passed: dict[str, Any], told: list[str]
) -> None:
    body, names = sent("anthropic", model, **given)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == passed
    assert names == told


def test_thinking_goes_back_as_it_came() -> None:
    (replay,) = [replay for replay in ANTHROPIC_REPLAYS if replay.name.endswith("two-tools")]
    details: dict[int, dict[str, Any]] = {}
    for chunk in chunks(scan(replay, replay.raw)[0]):
        for entry in chunk["choices"][0]["delta"].get("reasoning_details", ()):
            known = details.setdefault(entry["index"], {})
            for name, value in entry.items():
                known[name] = known[name] + value if name == "text" and name in known else value
    call = {**CALL, "function": {"name": "weather", "arguments": "{}"}}
    told = {"role": "assistant", "reasoning_details": list(details.values()), "tool_calls": [call]}
    body, names = sent("anthropic", BUDGETED, reasoning_effort="low", messages=[user("a"), told, ANSWERED])
    assert body["messages"][1]["content"][:2] == [
        {"type": "thinking", "thinking": "Let me look.", "signature": "c2lnbmVk"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ]
    assert (body["thinking"]["type"], names) == ("enabled", [])


def test_no_thinking_where_that_of_the_call_did_not_come_back() -> None:
    talk = [user("a"), {"role": "assistant", "tool_calls": [CALL]}, ANSWERED]
    body, names = sent("anthropic", ADAPTIVE, reasoning_effort="low", messages=talk)
    assert ("thinking" in body, names) == (False, ["reasoning_effort"])


SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 1, "description": "Years"}},
    "required": ["age"],
}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}


def test_a_schema_is_demanded_where_the_model_can_be_held_to_one() -> None:
    body = asked(BUDGETED, response_format=FORM)
    assert body["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {"age": {"type": "integer", "description": "Years\n\n{minimum: 1}"}},
            "required": ["age"],
            "additionalProperties": False,
        },
    }
    assert "system" not in body


@pytest.mark.parametrize("form", [FORM, {"type": "json_object"}])
def test_an_older_model_is_told_in_words(form: dict[str, Any]) -> None:
    body = asked(OLD, response_format=form)
    assert "output_config" not in body
    assert body["system"][0]["text"].startswith("Answer with one JSON")
    assert ('"minimum":1' in body["system"][0]["text"]) == (form is FORM)


def whole(**members: Any) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude"}
    return json.dumps({**message, "content": [], "stop_reason": "end_turn", **members}).encode()


def test_a_whole_message_becomes_a_completion() -> None:
    raw = whole(
        content=[
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "text", "text": "Sure"},
            {"type": "text", "text": "!"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        ],
        stop_reason="tool_use",
        usage={"input_tokens": 5, "output_tokens": 7},
    )
    answer = json.loads(chat_answer(raw, speaks=dialect("anthropic"), model="m").body)
    assert (answer["id"], answer["model"], answer["object"]) == ("msg_1", "claude", "chat.completion")
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Sure!",
        "reasoning_content": "Hm",
        "reasoning_details": [
            {
                "type": "reasoning.text",
                "text": "Hm",
                "signature": "s",
                "format": "anthropic-claude-v1",
                "index": 0,
            }
        ],
        "refusal": None,
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    assert answer["usage"]["total_tokens"] == 12


def test_a_refusal_says_why() -> None:
    raw = whole(stop_reason="refusal", stop_details={"type": "refusal", "explanation": "Not that."})
    (choice,) = json.loads(chat_answer(raw, speaks=dialect("anthropic")).body)["choices"]
    assert (choice["finish_reason"], choice["message"]["refusal"]) == ("content_filter", "Not that.")


def test_a_success_that_is_no_message_is_refused() -> None:
    with pytest.raises(BadAnswer):
        chat_answer(b'{"type":"message"}', speaks=dialect("anthropic"))


@pytest.mark.parametrize(
    ("counts", "prices", "cost"),
    [
        (
            {"input_tokens": 56_322, "cache_read_input_tokens": 72_960, "output_tokens": 87},
            ("1", "0.1", "0", "5"),
            "0.064053",
        ),
        (
            {
                "input_tokens": 24_951,
                "cache_read_input_tokens": 64_126,
                "cache_creation_input_tokens": 2_805,
                "output_tokens": 854,
            },
            ("1.75", "0.175", "2.1875", "8.75"),
            "0.0684947375",
        ),
    ],
)
def test_the_classes_of_usage_come_out_to_the_last_digit(
    counts: dict[str, int], prices: tuple[str, ...], cost: str
) -> None:
    usage = chat_answer(
        whole(content=[{"type": "text", "text": "a"}], usage=counts), speaks=dialect("anthropic")
    ).usage
    assert usage is not None
    classes = usage.input, usage.cached_input, usage.cache_write, usage.output
    assert sum(
        count * Decimal(price) for count, price in zip(classes, prices, strict=True)
    ) / 10**6 == Decimal(cost)
    assert usage.total == sum(counts.values())


def test_the_key_and_the_version_are_in_its_own_headers() -> None:
    headers = dialect("anthropic").headers("sk-ant-1", "req_1")
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-ant-1", "2023-06-01")
    assert "Authorization" not in headers


def test_usage_read_from_a_stream_keeps_the_classes_apart() -> None:
    (replay,) = [replay for replay in ANTHROPIC_REPLAYS if replay.name.endswith("two-tools")]
    usage = from_openai(scan(replay, replay.raw)[1].usage or {})
    assert usage is not None
    assert (usage.input, usage.cached_input, usage.cache_write, usage.output, usage.reasoning) == (
        12,
        100,
        30,
        48,
        20,
    )
