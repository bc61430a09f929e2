"""Requests in another API's words, as the chat that a provider is asked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.v1.errors import InvalidRequest
from gateway.v1.translation.completions import completion_facts
from gateway.v1.translation.message_requests import message_facts
from gateway.v1.translation.response_requests import response_facts


def completion(**body: Any) -> dict[str, Any]:
    return completion_facts(orjson.dumps({"model": "m", **body}), "").body


def response(**body: Any) -> dict[str, Any]:
    return response_facts(orjson.dumps({"model": "m", **body}), "").body


def message(**body: Any) -> dict[str, Any]:
    return message_facts(orjson.dumps({"model": "m", "max_tokens": 9, **body}), "").body


# --- completions ---------------------------------------------------------------------------------


def test_a_prompt_is_a_users_message_and_the_answer_is_bound_as_openai_bounds_it() -> None:
    assert completion(prompt="Say", temperature=0, stop=["x"]) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Say"}],
        "temperature": 0,
        "stop": ["x"],
        "max_tokens": 16,
    }
    assert completion(prompt=["Say"], max_tokens=5, n=2)["messages"] == [{"role": "user", "content": "Say"}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 0}, "logprobs"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
    ],
)
def test_what_a_chat_cannot_complete_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completion(**body)
    assert caught.value.param == param


# --- responses -----------------------------------------------------------------------------------


def test_instructions_and_a_string_are_a_system_and_a_users_message() -> None:
    body = response(
        input="Hi", instructions="Be brief", max_output_tokens=7, metadata={"a": "b"}, store=False
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
        "max_tokens": 7,
    }


def test_a_turn_with_thinking_and_calls_is_one_message_of_the_assistant() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "content": [{"type": "output_text", "text": "Look"}],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
    ]
    assert response(input=items)["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Look",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": '{"a":1}'}},
            ],
            "reasoning_content": "Hm",
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "sun"}]},
    ]


def test_an_image_is_a_part_with_its_address_and_needs_vision() -> None:
    parts = [
        {"type": "input_text", "text": "What?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
    ]
    facts = response_facts(orjson.dumps({"model": "m", "input": [{"role": "user", "content": parts}]}), "")
    assert facts.body["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
    ]
    assert facts.needs == {"vision"}


def test_tools_formats_and_effort_move_to_where_a_chat_has_them() -> None:
    body = response(
        input="Hi",
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
        tool_choice={"type": "function", "name": "f"},
        text={
            "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True},
            "verbosity": "low",
        },
        reasoning={"effort": "high", "summary": "auto"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {}, "strict": True},
    }
    assert (body["verbosity"], body["reasoning_effort"], body["logprobs"], body["top_logprobs"]) == (
        "low",
        "high",
        True,
        2,
    )


def test_what_had_no_place_is_named() -> None:
    asked = {"model": "m", "input": "Hi", "truncation": "auto", "include": ["file_search_call.results"]}
    assert response_facts(orjson.dumps(asked), "").dropped == ("include", "truncation")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": "a", "background": True}, "background"),
        ({"input": "a", "conversation": "c"}, "conversation"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "a", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "a", "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": "a", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"input": "a", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "input_image"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"role": "judge", "content": "a"}]}, "input[0].role"),
        ({"input": "a", "instructions": 5}, "instructions"),
        ({"input": "a", "stream": 5}, "stream"),
    ],
)
def test_what_a_response_cannot_be_made_of_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        response(**body)
    assert caught.value.param == param


def test_a_file_of_a_response_is_a_file_of_a_chat() -> None:
    parts = [
        {"type": "input_text", "text": "Sum it up."},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "input_file", "file_url": "https://example.com/b.pdf"},
    ]
    asked = {"model": "m", "input": [{"role": "user", "content": parts}]}
    facts = response_facts(orjson.dumps(asked), "")
    (message,) = facts.body["messages"]
    assert message["content"] == [
        {"type": "text", "text": "Sum it up."},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        },
        {
            "type": "file",
            "file": {"filename": "document.pdf", "file_data": "https://example.com/b.pdf"},
        },
    ]
    # Who speaks the API gets the client's own parts.
    assert facts.native is not None
    assert facts.native["input"][0]["content"] == parts
    assert "vision" in facts.needs


def test_a_built_in_tool_is_refused_by_its_own_name() -> None:
    with pytest.raises(InvalidRequest, match="'web_search' is not supported"):
        response(input="a", tools=[{"type": "web_search"}])


# --- messages ------------------------------------------------------------------------------------


def test_an_anthropic_conversation_with_tools_is_a_chat() -> None:
    body = message(
        system=[{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm", "signature": ""},
                    {"type": "text", "text": "Look"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Well?"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "rain"}],
                    },
                ],
            },
        ],
        tools=[{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        metadata={"user_id": "eve"},
    )
    assert body == {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "system", "content": "One\n\nTwo"},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Look",
                "reasoning_content": "Hm",
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "rain"},
            {"role": "user", "content": "Well?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "user": "eve",
    }


def test_images_of_a_tools_result_are_said_by_the_user_and_a_failure_is_told() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "is_error": True,
        "content": [{"type": "text", "text": "x"}, image],
    }
    assert message(messages=[{"role": "user", "content": [result]}])["messages"] == [
        {"role": "tool", "tool_call_id": "t", "content": "Error: x"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
        },
    ]


@pytest.mark.parametrize(
    ("asked", "effort"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 32_000}}, "high"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "xhigh"),
        ({"thinking": {"type": "disabled"}}, None),
    ],
)
def test_thinking_is_asked_for_as_an_effort(asked: dict[str, Any], effort: str | None) -> None:
    assert message(messages=[{"role": "user", "content": "a"}], **asked).get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "judge", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": "a"}], "max_tokens": None}, "max_tokens"),
        (
            {
                "messages": [{"role": "user", "content": "a"}],
                "tools": [{"type": "web_search_20250305", "name": "w"}],
            },
            "tools.0.type",
        ),
        ({"messages": [{"role": "user", "content": "a"}], "mcp_servers": [{}]}, "mcp_servers"),
        ({"messages": [{"role": "user", "content": "a"}], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": "a"}], "system": 5}, "system"),
    ],
)
def test_what_a_message_cannot_be_made_of_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        message(**body)
    assert caught.value.param == param
