"""Answers against the schema that a client asked for: what is valid, what is mended, what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.v1.contracts import Broken, Contract, contract_for, kept_answer, kept_stream
from gateway.v1.errors import InvalidRequest
from routing.dialects import dialect
from routing.kinds import KINDS
from routing.table import DeploymentSpec, GroupSpec, ProviderSpec

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def contract(
    kind: str = "deepseek", *, way: str = "repair", tools: bool = False, **body: Any
) -> Contract | None:
    """The contract of a request, at a provider that cannot be held to a schema unless said otherwise."""
    deployment = DeploymentSpec(
        1, "d", "m", ProviderSpec(1, "p", KINDS[kind], "http://x", 1, 1, 1, 1), None, None, None
    )
    group = GroupSpec(1, "g", 0, "priority", (), (), (), (), (), structured_output=way, validate_tools=tools)
    return contract_for(dialect(kind), deployment, body, group)


def content_of(text: str, *, way: str = "repair", form: Any = FORM, **choice: Any) -> str:
    """The content as a client gets it."""
    made = contract(way=way, response_format=form)
    assert made is not None
    whole = {"index": 0, "finish_reason": "stop", "message": {"content": text}, **choice}
    body, _ = asyncio.run(kept_answer(made, json.dumps({"choices": [whole]}).encode()))
    return str(json.loads(body)["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "text",
    [
        '{"age": 7}',
        '```json\n{"age": 7}\n```',
        'Sure, here it is:\n```\n{"age": 7}\n```\nAnything else?',
        'The answer is {"age": 7}, of course.',
        'Not [1] nor {"a": 1} but {"age": 7}',
    ],
)
def test_the_json_is_cut_out_of_the_text_around_it(text: str) -> None:
    assert content_of(text) == '{"age": 7}'


def test_a_valid_answer_is_passed_on_byte_by_byte() -> None:
    made = contract(response_format=FORM)
    assert made is not None
    raw = b'{"choices": [ {"index":0,"finish_reason":"stop","message":{"content":"{\\"age\\": 7}"}}]}'
    assert asyncio.run(kept_answer(made, raw)) == (raw, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("seven", "not JSON"),
        ('{"age": "x"}', "not valid"),
        ('{"age": NaN}', "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_cannot_be_mended_is_refused(text: str, words: str) -> None:
    with pytest.raises(Broken, match=words):
        content_of(text)


def test_where_failing_is_asked_for_nothing_is_mended() -> None:
    with pytest.raises(Broken, match="not JSON"):
        content_of('```json\n{"age": 7}\n```', way="fail")


@pytest.mark.parametrize("choice", [{"finish_reason": "length"}, {"finish_reason": "content_filter"}])
def test_an_answer_that_says_it_is_not_whole_is_left_alone(choice: dict[str, Any]) -> None:
    assert content_of('{"age', **choice) == '{"age'


def test_any_object_will_do_where_no_schema_is_given() -> None:
    made = contract("minimax", response_format={"type": "json_object"})
    assert made is not None
    body = json.dumps(
        {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": 'Here: {"x": []}'}}]}
    )
    kept, mended = asyncio.run(kept_answer(made, body.encode()))
    assert (json.loads(kept)["choices"][0]["message"]["content"], mended) == ('{"x": []}', True)


def test_a_provider_that_keeps_to_the_schema_is_not_checked() -> None:
    made = contract("openai", response_format=FORM)
    assert made is not None
    assert (made.native, made.checks, made.word(mended=False, asked_again=False)) == (True, False, "native")


def test_nothing_asked_is_no_contract() -> None:
    assert contract(messages=[]) is None
    assert contract(tools=True, messages=[]) is None
    assert contract(response_format={"type": "text"}) is None


def test_a_schema_that_is_none_is_the_clients_mistake() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "thing"}}}
    with pytest.raises(InvalidRequest) as caught:
        contract(response_format=form)
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_json_schema")


def test_a_reference_is_never_fetched() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "http://127.0.0.1:1/s"}}}
    with pytest.raises(Broken):
        content_of("{}", form=form)


def test_an_expression_of_the_clients_is_not_run() -> None:
    slow = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": slow}}
    text = json.dumps({"a": "a" * 60 + "!"})
    assert content_of(text, form=form) == text


def call(arguments: str, name: str = "f") -> bytes:
    message = {
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}],
    }
    return json.dumps({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}).encode()


def test_arguments_of_tools_are_checked_where_the_group_demands_it() -> None:
    made = contract_with_tools()
    assert asyncio.run(kept_answer(made, call('{"age": 7}')))[1] is False
    assert asyncio.run(kept_answer(made, call("{", name="other")))[1] is False
    for arguments in ('{"age": "x"}', "{}", "{"):
        with pytest.raises(Broken, match="arguments of a tool call"):
            asyncio.run(kept_answer(made, call(arguments)))


def contract_with_tools() -> Contract:
    deployment = DeploymentSpec(
        1, "d", "m", ProviderSpec(1, "p", KINDS["openai"], "http://x", 1, 1, 1, 1), None, None, None
    )
    group = GroupSpec(1, "g", 0, "priority", (), (), (), (), (), validate_tools=True)
    made = contract_for(dialect("openai"), deployment, {"tools": [TOOL]}, group)
    assert made is not None
    return made


def stream(*deltas: dict[str, Any], finish: str = "stop") -> bytes:
    chunks: list[dict[str, Any]] = [
        {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    chunks.append({"id": "c", "choices": [], "usage": {"total_tokens": 3}})
    return (
        b": keep-alive\n\n"
        + b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks)
        + b"data: [DONE]\n\n"
    )


def test_a_stream_is_mended_as_a_whole() -> None:
    made = contract(response_format=FORM)
    assert made is not None
    raw = stream(
        {"role": "assistant", "content": ""}, {"content": '```json\n{"a'}, {"content": 'ge": 7}\n```'}
    )
    events, mended = asyncio.run(kept_stream(made, raw))
    assert mended
    assert events.endswith(b"data: [DONE]\n\n")
    chunks = [json.loads(event[6:]) for event in events.split(b"\n\n") if event.startswith(b"data: {")]
    text = "".join(choice["delta"].get("content") or "" for one in chunks for choice in one["choices"])
    assert text == '{"age": 7}'
    assert [choice["finish_reason"] for one in chunks for choice in one["choices"]][-1] == "stop"
    assert chunks[-1]["usage"] == {"total_tokens": 3}


def test_a_stream_that_is_valid_stays_as_it_is() -> None:
    raw = stream({"content": '{"age"'}, {"content": ": 7}"})
    made = contract(response_format=FORM)
    assert made is not None
    assert asyncio.run(kept_stream(made, raw)) == (raw, False)


def test_the_calls_of_a_stream_are_put_together_before_they_are_checked() -> None:
    def piece(arguments: str, **function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "function": {**function, "arguments": arguments}}]}

    made = contract_with_tools()
    whole = stream(piece('{"a', name="f"), piece('ge": 7}'), finish="tool_calls")
    assert asyncio.run(kept_stream(made, whole)) == (whole, False)
    with pytest.raises(Broken):
        asyncio.run(
            kept_stream(made, stream(piece('{"a', name="f"), piece('ge": "x"}'), finish="tool_calls"))
        )
