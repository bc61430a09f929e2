"""Whatever a client sends is a request or an error that names what is wrong; whatever a provider sends is shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import Facts
from gateway.v1.translation.response_items import normal_items, with_ids
from tests.translation.test_shapes import MAKERS, USAGE

WORDS = [
    *("a", "user", "assistant", "message", "text", "input_text", "input_image", "function", "function_call"),
    *("function_call_output", "reasoning", "tool_use", "tool_result", "thinking", "image", "base64", "url"),
    *("json_schema", "custom", "enabled", "auto", "any", "tool", "redacted_thinking", "document"),
]
NAMES = [
    *(
        "type",
        "role",
        "content",
        "text",
        "name",
        "input",
        "output",
        "id",
        "call_id",
        "arguments",
        "source",
        "data",
    ),
    *(
        "media_type",
        "url",
        "image_url",
        "tool_use_id",
        "thinking",
        "signature",
        "summary",
        "encrypted_content",
    ),
    *("format", "schema", "effort", "budget_tokens", "user_id", "function", "mode", "tools", "parameters"),
]
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(0, 2) | st.sampled_from(WORDS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=14,
)
PARAMETERS = {
    "completions": ("prompt", "n", "stop", "stream", "max_tokens", "best_of", "logprobs", "stream_options"),
    "responses": (
        *(
            "input",
            "instructions",
            "tools",
            "tool_choice",
            "text",
            "reasoning",
            "include",
            "metadata",
            "stream",
        ),
        *("max_output_tokens", "top_logprobs", "truncation", "store", "previous_response_id", "user"),
    ),
    "messages": (
        *("messages", "system", "tools", "tool_choice", "stop_sequences", "metadata", "thinking", "stream"),
        *("output_config", "max_tokens", "top_k"),
    ),
}


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=150)
@given(data=st.data())
def test_any_body_is_read_or_refused_by_name(name: str, data: st.DataObject) -> None:
    _, read, good = MAKERS[name]
    changed = data.draw(st.dictionaries(st.sampled_from(PARAMETERS[name]), values, max_size=4))
    try:
        facts = read(orjson.dumps({"model": "m", **good, **changed}), "")
    except InvalidRequest as error:
        assert error.message
        return
    assert isinstance(facts, Facts)
    assert facts.body["messages"]
    orjson.dumps(facts.body)
    if name == "responses":
        with_ids(normal_items(facts.asked or {}), "1")
    # What was asked is repeated in a response, whatever it was.
    make = MAKERS[name][0]
    shape = make(facts, "req_1")
    said = {"index": 0, "message": {"content": "A"}, "finish_reason": "stop"}
    assert shape.plain({"choices": [said], "usage": USAGE})


provided = st.fixed_dictionaries(
    {},
    optional={
        "content": scalars | values,
        "refusal": scalars,
        "reasoning_content": scalars,
        "reasoning": scalars | values,
        "reasoning_details": values,
        "tool_calls": values
        | st.lists(st.fixed_dictionaries({"function": values, "index": scalars, "id": scalars})),
    },
)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=100)
@given(messages=st.lists(provided, max_size=4), finish=scalars, usage=values)
def test_whatever_a_provider_says_is_shown(
    name: str, messages: list[dict[str, Any]], finish: Any, usage: Any
) -> None:
    make, read, good = MAKERS[name]
    facts = read(orjson.dumps({"model": "m", **good}), "")
    plain, streamed = make(facts, "req_1"), make(facts, "req_1")
    message = messages[0] if messages else {}
    orjson.dumps(plain.plain({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}))
    for delta in messages:
        streamed.chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "model": 5})
    streamed.chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    streamed.chunk({"choices": [], "usage": usage})
    streamed.final()
    assert streamed.done()
