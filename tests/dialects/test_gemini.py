"""Gemini by its generateContent: what it is sent for a chat request, and what a client gets of its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.v1.answers import BadAnswer, ErrorAnswer, chat_answer, embedding_answer
from routing.dialects import CannotCarry, dialect
from routing.dialects.gemini.schemas import lowered
from routing.kinds import KINDS
from routing.table import DeploymentSpec, ProviderSpec
from tests.dialects.gemini_corpus import GEMINI_REPLAYS, call, event
from tests.dialects.test_requests import NAMED, TOOL, sent
from tests.dialects.test_streams import chunks, scan

NEW, OLD, PRO = "gemini-3.8-flash", "gemini-2.5-flash", "gemini-2.5-pro"
BASE = "https://generativelanguage.googleapis.com/v1beta"
ARGUED = {
    "type": "function",
    "function": {
        "name": "g",
        "description": "G",
        "parameters": {"type": "object", "properties": {"a": {"const": 1}}, "$schema": "s"},
    },
}


def deployment(model: str = NEW, base_url: str = BASE) -> DeploymentSpec:
    return DeploymentSpec(
        1, "d", model, ProviderSpec(1, "p", KINDS["gemini"], base_url, 1, 1, 1, 1), None, None, None
    )


def asked(model: str = NEW, **body: Any) -> dict[str, Any]:
    return sent("gemini", model, **body)[0]


def said(*messages: dict[str, Any], model: str = NEW) -> list[dict[str, Any]]:
    """The contents that are sent for messages."""
    found: list[dict[str, Any]] = asked(model, messages=list(messages))["contents"]
    return found


def user(*texts: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text} for text in texts]}


def configured(model: str = NEW, **body: Any) -> tuple[dict[str, Any], list[str]]:
    made, lost = sent("gemini", model, **body)
    return made.get("generationConfig", {}), lost


@pytest.mark.parametrize(
    ("model", "endpoint", "stream", "path"),
    [
        (NEW, "chat.completions", False, "/models/gemini-3.8-flash:generateContent"),
        (NEW, "chat.completions", True, "/models/gemini-3.8-flash:streamGenerateContent?alt=sse"),
        ("tunedModels/t-1", "chat.completions", False, "/tunedModels/t-1:generateContent"),
        ("models/gemini-embedding-2", "embeddings", False, "/models/gemini-embedding-2:batchEmbedContents"),
    ],
)
def test_each_method_of_a_model_has_its_address(model: str, endpoint: str, stream: bool, path: str) -> None:
    assert dialect("gemini").url(deployment(model), endpoint, stream=stream) == BASE + path


def test_the_key_is_in_its_own_header_and_never_in_the_address() -> None:
    headers = dialect("gemini", BASE).headers("AIza", "req_1")
    assert (headers["x-goog-api-key"], "Authorization" in headers) == ("AIza", False)


def test_an_address_of_the_compatible_endpoint_is_spoken_to_as_openai() -> None:
    compatible = dialect("gemini", BASE + "/openai")
    spec = deployment(base_url=BASE + "/openai")
    assert compatible.url(spec, "chat.completions") == BASE + "/openai/chat/completions"
    assert compatible.headers("AIza", "r")["Authorization"] == "Bearer AIza"
    assert "messages" in json.loads(compatible.body(spec, {"messages": []}, stream=False)[0])


def test_a_plain_request() -> None:
    assert asked(user="ann", stream_options={}) == {"contents": [user("hi")]}


def test_system_and_developer_are_the_system_instruction() -> None:
    talk = [
        {"role": "system", "content": "A"},
        {"role": "user", "content": "hi"},
        {"role": "developer", "content": "B"},
    ]
    body = asked(messages=talk)
    assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert body["contents"] == [user("hi")]


def test_neighbours_of_one_role_become_one_content() -> None:
    assert said({"role": "user", "content": "a"}, {"role": "user", "content": "b"}) == [user("a", "b")]


CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
]
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": "7"},
    {"role": "tool", "tool_call_id": "c2", "content": '{"b": 2}'},
]


def test_answers_of_tools_are_known_by_the_name_of_their_function() -> None:
    assert said(*TALK, model=OLD)[1:] == [
        {"role": "model", "parts": [call("f", a=1), call("g")]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": "7"}}},
                {"functionResponse": {"name": "g", "response": {"b": 2}}},
            ],
        },
    ]


def test_an_answer_to_a_call_that_nobody_made_is_refused() -> None:
    with pytest.raises(CannotCarry) as caught:
        said({"role": "user", "content": "a"}, {"role": "tool", "tool_call_id": "x", "content": "7"})
    assert caught.value.param == "messages[1].tool_call_id"


def test_only_the_first_call_of_a_turn_needs_a_signature_and_gets_one_in_place_of_a_lost_one() -> None:
    first, second = said(*TALK)[1]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second


@pytest.mark.parametrize("name", ["gemini-two-calls-without-ids", "gemini-thought-then-text"])
def test_a_signature_goes_back_with_the_part_it_came_with(name: str) -> None:
    (replay,) = [replay for replay in GEMINI_REPLAYS if replay.name == name]
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    for chunk in chunks(scan(replay, replay.raw)[0]):
        delta = chunk["choices"][0]["delta"]
        message["content"] += delta.get("content") or ""
        for member in ("tool_calls", "reasoning_details"):
            if delta.get(member):
                message.setdefault(member, []).extend(delta[member])
    (parts,) = [
        turn["parts"] for turn in said({"role": "user", "content": "a"}, message) if turn["role"] == "model"
    ]
    signed = parts[0]
    assert signed["thoughtSignature"] == ("EpEg" if "functionCall" in signed else "c2ln")


def test_media_go_as_data_or_as_an_address() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,iVBO"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png?x=1"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE"}},
    ]
    assert said({"role": "user", "content": parts})[0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "iVBO"}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png?x=1"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklG"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBE"}},
    ]


def test_parameters_move_into_the_configuration() -> None:
    config, lost = configured(
        temperature=0.5, top_p=0.9, top_k=3, seed=7, stop="END", max_completion_tokens=9, n=2
    )
    assert config == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "seed": 7,
        "stopSequences": ["END"],
        "maxOutputTokens": 9,
        "candidateCount": 2,
    }
    assert lost == []


def test_what_has_no_counterpart_is_told() -> None:
    config, lost = configured(
        frequency_penalty=1, logit_bias={"1": 1}, parallel_tool_calls=False, stop=list("abcdef"), foo=1
    )
    assert config == {"stopSequences": list("abcde")}
    assert lost == ["foo", "frequency_penalty", "logit_bias", "parallel_tool_calls", "stop"]


def test_a_stream_has_one_choice() -> None:
    assert sent("gemini", NEW, stream=True, n=2)[1] == ["n"]


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "lost"),
    [
        (NEW, "minimal", {"thinkingLevel": "minimal", "includeThoughts": True}, []),
        (NEW, "none", {"thinkingLevel": "minimal", "includeThoughts": True}, ["reasoning_effort"]),
        (
            "gemini-3.1-pro-preview",
            "minimal",
            {"thinkingLevel": "low", "includeThoughts": True},
            ["reasoning_effort"],
        ),
        ("gemini-3.1-pro-preview", "high", {"thinkingLevel": "high", "includeThoughts": True}, []),
        (OLD, "none", {"thinkingBudget": 0, "includeThoughts": False}, []),
        (OLD, "medium", {"thinkingBudget": 8192, "includeThoughts": True}, []),
        (PRO, "none", None, ["reasoning_effort"]),
        ("gemini-2.0-flash", "high", None, ["reasoning_effort"]),
        ("gemini-2.0-flash", "none", None, []),
    ],
)
def test_effort_by_the_generation_of_the_model(
    model: str, effort: str, thinking: dict[str, Any] | None, lost: list[str]
) -> None:
    config, told = configured(model, reasoning_effort=effort)
    assert (config.get("thinkingConfig"), told) == (thinking, lost)


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (NAMED, {"mode": "ANY", "allowedFunctionNames": ["g"]}),
    ],
)
def test_the_choice_of_tools(choice: Any, calling: dict[str, Any] | None) -> None:
    body = asked(tools=[TOOL, ARGUED], tool_choice=choice)
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f"},
                {
                    "name": "g",
                    "description": "G",
                    "parametersJsonSchema": {"type": "object", "properties": {"a": {"enum": [1]}}},
                },
            ]
        }
    ]
    assert body.get("toolConfig") == (None if calling is None else {"functionCallingConfig": calling})


def test_of_allowed_tools_only_those_are_offered() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    body = asked(tools=[TOOL, ARGUED], tool_choice=choice)
    assert [one["name"] for one in body["tools"][0]["functionDeclarations"]] == ["g"]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}


FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "array", "minLength": 3}}}


def test_a_schema_is_demanded_in_the_configuration() -> None:
    assert configured(response_format=FORM)[0] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "array", "items": {}, "description": "{minLength: 3}"},
    }


def test_before_3_a_schema_beside_tools_is_told_in_words() -> None:
    body = asked(OLD, response_format={"type": "json_object"}, tools=[TOOL])
    assert "generationConfig" not in body
    assert body["systemInstruction"]["parts"][0]["text"].startswith("Answer with one JSON")


def test_a_schema_is_lowered_to_the_keywords_that_are_known() -> None:
    given = {
        "$schema": "s",
        "$defs": {"n": {"type": "string", "pattern": "^a"}},
        "type": "object",
        "properties": {
            "pattern": {"$ref": "#/$defs/n", "description": "gone"},
            "one": {"allOf": [{"type": "integer"}], "default": 1},
        },
        "additionalProperties": False,
    }
    assert lowered(given) == {
        "$defs": {"n": {"type": "string", "description": '{pattern: "^a"}'}},
        "type": "object",
        "properties": {"pattern": {"$ref": "#/$defs/n"}, "one": {"type": "integer"}},
        "additionalProperties": False,
    }


def read(**answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        chat_answer(json.dumps(answer).encode(), speaks=dialect("gemini")).body
    )
    return found


def test_a_whole_answer_becomes_a_completion() -> None:
    answer = read(
        **event(
            {"text": "Hm", "thought": True},
            {"text": "Sure"},
            {**call("f", a=1), "thoughtSignature": "s"},
            call("f", a=1),
            finish="STOP",
            promptTokenCount=5,
            candidatesTokenCount=2,
            thoughtsTokenCount=4,
        )
    )
    (choice,) = answer["choices"]
    first, second = choice["message"]["tool_calls"]
    assert (answer["id"], answer["model"], choice["finish_reason"]) == (
        "r1",
        "gemini-3-pro-preview",
        "tool_calls",
    )
    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == ("Sure", "Hm")
    assert first["extra_content"] == {"google": {"thought_signature": "s"}}
    assert first["function"] == second["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert first["id"] != second["id"]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 6, 11)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 4


def test_a_blocked_prompt_is_an_error() -> None:
    with pytest.raises(ErrorAnswer) as caught:
        read(promptFeedback={"blockReason": "SAFETY"})
    assert caught.value.error["code"] == "content_filter"


@pytest.mark.parametrize("answer", [{}, {"candidates": []}, {"candidates": 7}, {"candidates": [7]}])
def test_a_success_without_a_candidate_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer):
        read(**answer)


@pytest.mark.parametrize("given", ["a", ["a", "b"]])
def test_embeddings_there_and_back(given: Any) -> None:
    raw, lost = dialect("gemini").body(
        deployment("gemini-embedding-2"), {"model": "g", "input": given, "dimensions": 2}, stream=False
    )
    texts = given if isinstance(given, list) else [given]
    assert json.loads(raw)["requests"] == [
        {
            "model": "models/gemini-embedding-2",
            "content": {"parts": [{"text": text}]},
            "outputDimensionality": 2,
        }
        for text in texts
    ]
    assert lost == []
    back = json.dumps(
        {"embeddings": [{"values": [0.5, 1]}] * len(texts), "usageMetadata": {"promptTokenCount": 7}}
    )
    read = embedding_answer(back.encode(), base64_wanted=False, speaks=dialect("gemini"), model="m")
    answer = json.loads(read.body)
    assert [item["embedding"] for item in answer["data"]] == [[0.5, 1]] * len(texts)
    assert (answer["model"], answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]) == ("m", 7, 7)


def test_tokens_cannot_be_embedded() -> None:
    with pytest.raises(CannotCarry) as caught:
        dialect("gemini").body(deployment(), {"model": "g", "input": [[1, 2]]}, stream=False)
    assert caught.value.param == "input"
