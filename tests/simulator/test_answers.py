"""Plain and streamed answers, as the OpenAI SDK sees them."""

import base64
import json
import struct
from datetime import date
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

# The `sdk` fixture is typed Any: requests here are plain JSON, not the SDK's typed dictionaries.
HELLO = [{"role": "user", "content": "hello there"}]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "minLength": 3},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 2, "maximum": 4},
                "from": {"type": "string", "format": "date"},
            },
            "required": ["city", "unit", "days", "from"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


class City(BaseModel):
    name: str
    founded: date
    size: Literal["small", "large"]
    mayors: list[str] = Field(min_length=2)


def assert_weather_arguments(text: str) -> None:
    arguments = json.loads(text)
    assert set(arguments) == {"city", "unit", "days", "from"}
    assert len(arguments["city"]) >= 3
    assert arguments["unit"] in ("celsius", "fahrenheit")
    assert 2 <= arguments["days"] <= 4
    date.fromisoformat(arguments["from"])


def events(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


def test_a_plain_answer_is_labelled_and_counts_words_as_tokens(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small",
        messages=[
            {"role": "system", "content": "be brief please"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "one two"}, {"type": "text", "text": "three"}],
            },
        ],
    )
    content = answer.choices[0].message.content
    assert content.startswith("[simulated] ")
    assert len(content.split()) == 10
    assert answer.choices[0].finish_reason == "stop"
    assert answer.system_fingerprint == "simulator"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        6,
        10,
        16,
    )


def test_every_answer_says_that_it_is_simulated(http: httpx.Client) -> None:
    for response in (
        http.get("/v1/models"),
        http.post("/v1/chat/completions", json={"model": "sim", "messages": HELLO, "stream": True}),
        http.post("/v1/chat/completions", json={"model": "other", "messages": HELLO}),
    ):
        assert response.headers["x-weir-simulator"] == "true"
        assert response.headers["x-request-id"].startswith("req_sim")


def test_the_same_request_gets_the_same_answer(sdk: Any) -> None:
    def ask(text: str) -> tuple[str, str]:
        answer = sdk.chat.completions.create(model="sim-small", messages=[{"role": "user", "content": text}])
        return answer.id, answer.choices[0].message.content

    assert ask("hello") == ask("hello")
    assert ask("hello") != ask("goodbye")


def test_a_stream_says_the_same_as_the_plain_answer(sdk: Any) -> None:
    plain = sdk.chat.completions.create(model="sim-small", messages=HELLO)
    chunks = list(sdk.chat.completions.create(model="sim-small", messages=HELLO, stream=True))
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain.choices[0].message.content
    )
    assert {chunk.id for chunk in chunks} == {plain.id}


def test_a_stream_with_usage_has_the_events_of_the_contract(http: httpx.Client) -> None:
    response = http.post(
        "/v1/chat/completions",
        json={
            "model": "sim-words-3",
            "messages": HELLO,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, done = events(response)
    parsed = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in parsed[:1]] == [
        {"role": "assistant", "content": "", "refusal": None}
    ]
    assert len(parsed) == 1 + 3 + 1 + 1  # role, three words, finish, usage
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed[:-1]] == [None] * 4 + ["stop"]
    assert all(chunk["usage"] is None for chunk in parsed[:-1])
    assert parsed[-1]["choices"] == []
    assert parsed[-1]["usage"]["total_tokens"] == 2 + 3


def test_a_stream_without_usage_never_mentions_it(http: httpx.Client) -> None:
    body = {"model": "sim-words-3", "messages": HELLO, "stream": True}
    response = http.post("/v1/chat/completions", json=body)
    assert '"usage"' not in response.text
    assert len(events(response)) == 1 + 3 + 1 + 1  # role, three words, finish, [DONE]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_answer_to_exactly_that_many_words(sdk: Any, limit: str) -> None:
    answer = sdk.chat.completions.create(model="sim-words-40", messages=HELLO, **{limit: 7})
    assert len(answer.choices[0].message.content.split()) == 7
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7


def test_directives_set_words_cached_and_reasoning_tokens(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small",
        messages=[{"role": "user", "content": "words=40 cached=2 reasoning=5 cache_write=1"}],
    )
    assert len(answer.choices[0].message.content.split()) == 40
    assert answer.usage.prompt_tokens == 4
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer.usage.prompt_tokens_details.model_dump()["cache_write_tokens"] == 1
    assert answer.usage.completion_tokens == 45
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5


def test_reasoning_counts_towards_the_limit(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small",
        messages=[{"role": "user", "content": "words=10 reasoning=5"}],
        max_completion_tokens=8,
    )
    assert len(answer.choices[0].message.content.split()) == 3
    assert answer.usage.completion_tokens == 8
    assert answer.choices[0].finish_reason == "length"


def test_thinking_is_shown_where_an_effort_is_asked_for(sdk: Any) -> None:
    ask = {"model": "sim-small", "messages": HELLO, "reasoning_effort": "low"}
    plain = sdk.chat.completions.create(**ask)
    thought = plain.choices[0].message.reasoning_content
    assert len(thought.split()) == plain.usage.completion_tokens_details.reasoning_tokens == 8
    assert plain.usage.completion_tokens == 18
    stream = sdk.chat.completions.create(**ask, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == thought
    assert "".join(delta.content or "" for delta in deltas) == plain.choices[0].message.content


def test_reasoning_alone_never_exceeds_the_limit(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small",
        messages=[{"role": "user", "content": "words=10 reasoning=50"}],
        max_completion_tokens=8,
    )
    assert answer.choices[0].message.content == ""
    assert answer.usage.completion_tokens == 8
    assert answer.usage.completion_tokens_details.reasoning_tokens == 8
    assert answer.choices[0].finish_reason == "length"


def test_several_choices_differ_and_add_up(sdk: Any) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="sim-words-6", messages=HELLO, n=3, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = ["", "", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert len(set(texts)) == 3
    assert chunks[-1].usage.completion_tokens == 18
    plain = sdk.chat.completions.create(model="sim-words-6", messages=HELLO, n=3)
    assert [choice.message.content for choice in plain.choices] == texts


def test_a_required_tool_call_follows_its_schema(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small", messages=HELLO, tools=[WEATHER], tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert call.function.name == "get_weather"
    assert_weather_arguments(call.function.arguments)
    # one token for the name, and one for each word of the arguments
    assert answer.usage.completion_tokens == 1 + len(call.function.arguments.split())


def test_a_streamed_tool_call_names_itself_once_and_brings_its_arguments_in_pieces(
    sdk: Any,
) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="sim-small", messages=HELLO, tools=[WEATHER], tool_choice="required", stream=True
        )
    )
    assert chunks[0].choices[0].delta.content is None
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [piece.id is not None for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.function.name for piece in pieces if piece.function.name] == ["get_weather"]
    assert {piece.index for piece in pieces} == {0}
    assert len(pieces) > 3
    arguments = "".join(piece.function.arguments for piece in pieces)
    assert_weather_arguments(arguments)
    plain = sdk.chat.completions.create(
        model="sim-small", messages=HELLO, tools=[WEATHER], tool_choice="required"
    )
    assert plain.choices[0].message.tool_calls[0].function.arguments == arguments


def test_the_sdk_stream_helper_assembles_parallel_tool_calls(sdk: Any) -> None:
    with sdk.chat.completions.stream(
        model="sim-small",
        messages=[{"role": "user", "content": "use a tool calls=2"}],
        tools=[WEATHER, CLOCK],
    ) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert calls[0].id != calls[1].id


def test_tools_left_to_the_model_are_called_when_the_user_says_tool(sdk: Any) -> None:
    def ask(text: str, **more: object) -> Any:
        answer = sdk.chat.completions.create(
            model="sim-small", messages=[{"role": "user", "content": text}], tools=[WEATHER, CLOCK], **more
        )
        return answer.choices[0].message

    assert ask("please use a tool").tool_calls[0].function.name == "get_weather"
    assert ask("please use the tool get_time.").tool_calls[0].function.name == "get_time"
    assert ask("no need for anything").tool_calls is None
    assert ask("please use a tool", tool_choice="none").tool_calls is None


def test_a_named_tool_is_the_one_called_and_ends_with_stop(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small",
        messages=HELLO,
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
    )
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["get_time"]
    assert answer.choices[0].finish_reason == "stop"


def test_after_a_tool_result_the_answer_is_text(sdk: Any) -> None:
    asked = {"role": "user", "content": "use a tool"}
    first = sdk.chat.completions.create(model="sim-small", messages=[asked], tools=[WEATHER])
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    second = sdk.chat.completions.create(
        model="sim-small", messages=[asked, message.model_dump(), result], tools=[WEATHER]
    )
    assert second.choices[0].message.content.startswith("[simulated] ")


def test_a_structured_answer_parses_into_the_clients_model(sdk: Any) -> None:
    answer = sdk.chat.completions.parse(model="sim-small", messages=HELLO, response_format=City)
    city = answer.choices[0].message.parsed
    assert isinstance(city, City)
    assert len(city.mayors) >= 2
    assert answer.usage.completion_tokens == len(answer.choices[0].message.content.split())


def test_a_structured_answer_streams(sdk: Any) -> None:
    with sdk.chat.completions.stream(model="sim-small", messages=HELLO, response_format=City) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, City)


def test_json_object_gives_an_object(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="sim-small", messages=HELLO, response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content)["simulated"] is True


def test_embeddings_are_the_same_as_floats_and_as_base64(sdk: Any) -> None:
    texts = ["one two three", "four"]
    floats = sdk.embeddings.create(model="sim-embed", input=texts, encoding_format="float")
    default = sdk.embeddings.create(model="sim-embed", input=texts)  # the SDK asks for base64
    for packed, plain in zip(default.data, floats.data, strict=True):
        assert packed.embedding == pytest.approx(plain.embedding)
    assert [item.index for item in floats.data] == [0, 1]
    assert len(floats.data[0].embedding) == 64
    assert floats.usage.prompt_tokens == 4
    assert sum(value * value for value in floats.data[0].embedding) == pytest.approx(1, abs=1e-5)


def test_embeddings_as_base64_are_little_endian_floats(http: httpx.Client) -> None:
    def ask(form: str) -> object:
        body = {"model": "sim-embed", "input": "x", "dimensions": 3, "encoding_format": form}
        return http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]

    packed = ask("base64")
    assert isinstance(packed, str)
    assert list(struct.unpack("<3f", base64.b64decode(packed))) == ask("float")


def test_embeddings_of_token_numbers_count_the_numbers(sdk: Any) -> None:
    answer = sdk.embeddings.create(model="sim-embed", input=[[1, 2, 3], [4]], encoding_format="float")
    assert answer.usage.prompt_tokens == 4
    assert len(answer.data) == 2


def test_models_are_listed_and_found(sdk: Any) -> None:
    names = [model.id for model in sdk.models.list()]
    assert {"sim-small", "sim-embed", "sim-429", "sim-cut"} <= set(names)
    assert sdk.models.retrieve("sim-small").owned_by == "simulator"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("gpt-4")


def test_sim_fast_has_fixed_counts(sdk: Any) -> None:
    plain = sdk.chat.completions.create(model="sim-fast-100", messages=HELLO)
    assert (plain.usage.prompt_tokens, plain.usage.completion_tokens) == (10, 100)
    assert len(plain.choices[0].message.content.split()) == 100
    chunks = list(
        sdk.chat.completions.create(
            model="sim-fast-7-1ms", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).split()[1:] == ["word"] * 6
    assert chunks[-1].usage.completion_tokens == 7


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": HELLO}, None, None),
        ({"model": "sim"}, "messages", "missing_required_parameter"),
        ({"model": "sim", "messages": []}, "messages", "empty_array"),
        ({"model": "sim", "messages": "hi"}, "messages", "invalid_type"),
        ({"model": "sim", "messages": HELLO, "max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"model": "sim", "messages": HELLO, "n": "x"}, "n", "invalid_type"),
        ({"model": "sim", "messages": HELLO, "tool_choice": "required"}, "tool_choice", None),
        (
            {"model": "sim", "messages": HELLO, "response_format": {"type": "x"}},
            "response_format.type",
            "invalid_value",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_its_parameter(
    http: httpx.Client, body: dict[str, Any], param: str | None, code: str | None
) -> None:
    response = http.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"model": "sim", "messages": [{}]}', b"\xff"]
)
def test_garbage_is_a_400(http: httpx.Client, content: bytes) -> None:
    response = http.post("/v1/chat/completions", content=content)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_other_addresses_are_404_in_the_same_shape(http: httpx.Client) -> None:
    for method, path in (("POST", "/v1/images"), ("GET", "/v1/chat/completions"), ("GET", "/")):
        response = http.request(method, path)
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "invalid_request_error"
