"""Chat answers in another API's words: every event, and the same for all cuts of the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.v1.errors import ProviderFailed
from gateway.v1.exchange import Exchange
from gateway.v1.facts import Facts
from gateway.v1.shown import Shown
from gateway.v1.stream import error_event
from gateway.v1.translation import thoughts
from gateway.v1.translation.completions import Completion, completion_facts
from gateway.v1.translation.message_requests import message_facts
from gateway.v1.translation.messages import Message
from gateway.v1.translation.response_requests import response_facts
from gateway.v1.translation.responses import Response
from gateway.v1.translation.shape import Shape
from gateway.v1.translation.thoughts import unpacked

MAKERS: dict[str, tuple[Callable[..., Shape], Callable[..., Facts], dict[str, Any]]] = {
    "completions": (Completion, completion_facts, {"prompt": "Hi"}),
    "responses": (Response, response_facts, {"input": "Hi"}),
    "messages": (Message, message_facts, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}),
}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
DELTAS: list[dict[str, Any]] = [
    {"role": "assistant", "content": ""},
    {"reasoning_content": "Hm"},
    {"content": "Hé"},
    {"content": "llo"},
    {
        "tool_calls": [
            {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
        ]
    },
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
]


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "big",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + orjson.dumps(data) + b"\n\n"


def stream_of(deltas: list[dict[str, Any]], finish: str) -> bytes:
    usage = {"id": "chatcmpl-1", "model": "big", "choices": [], "usage": USAGE}
    end = chunk({}, finish) + b": keep-alive\n\n" + b"data: " + orjson.dumps(usage) + b"\n\n"
    return b"".join(map(chunk, deltas)) + end + b"data: [DONE]\n\n"


def shown(name: str, pieces: list[bytes], **asked: Any) -> bytes:
    """What a client gets for the pieces of a chat stream."""
    make, read, body = MAKERS[name]
    exchange = Exchange(name, request_id="req_1")
    exchange.facts = read(orjson.dumps({"model": "m", **body, "stream": True, **asked}), "")
    sent: list[bytes] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    async def run() -> None:
        show = Shown(send, exchange, make)
        head = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await show({"type": "http.response.start", "status": 200, "headers": head})
        for place, piece in enumerate(pieces):
            more = place + 1 < len(pieces)
            await show({"type": "http.response.body", "body": piece, "more_body": more})

    asyncio.run(run())
    return b"".join(sent)


def events(raw: bytes) -> list[dict[str, Any]]:
    """The data of the events; each event is named after its type."""
    found = []
    for block in raw.split(b"\n\n"):
        lines = block.split(b"\n")
        if not lines[-1].startswith(b"data: {"):
            continue
        data = orjson.loads(lines[-1][6:])
        if lines[0].startswith(b"event: "):
            assert lines[0] == b"event: " + data["type"].encode()
        found.append(data)
    return found


def whole(name: str, message: dict[str, Any], finish: str, **asked: Any) -> dict[str, Any]:
    """The body a client gets for a whole chat answer."""
    make, read, body = MAKERS[name]
    shape = make(read(orjson.dumps({"model": "m", **body, **asked}), ""), "req_1")
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return shape.plain({"id": "x", "created": 5, "model": "big", "choices": [choice], "usage": USAGE})


# --- responses -----------------------------------------------------------------------------------


def test_the_events_of_a_response_come_in_order_each_with_what_it_must_have() -> None:
    found = events(shown("responses", [stream_of(DELTAS, "tool_calls")]))
    assert [event["type"].removeprefix("response.") for event in found] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    assert [event["sequence_number"] for event in found] == list(range(21))
    assert found[10] == {
        "type": "response.output_text.delta",
        "sequence_number": 10,
        "item_id": "msg_10001",
        "output_index": 1,
        "content_index": 0,
        "delta": "Hé",
        "logprobs": [],
    }
    assert found[18] == {
        "type": "response.function_call_arguments.done",
        "sequence_number": 18,
        "item_id": "fc_10002",
        "output_index": 2,
        "name": "f",
        "arguments": '{"a":1}',
    }
    final = found[-1]["response"]
    assert (final["id"], final["status"], final["model"]) == ("resp_1", "completed", "big")
    assert [item["type"] for item in final["output"]] == ["reasoning", "message", "function_call"]
    assert final["output"][1]["content"][0]["text"] == "Héllo"
    assert final["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


def test_a_response_ends_with_done_and_a_broken_one_does_not() -> None:
    assert shown("responses", [stream_of(DELTAS, "stop")]).endswith(b"data: [DONE]\n\n")
    cut = shown("responses", [chunk({"content": "He"}), error_event(ProviderFailed("It broke."))])
    assert b"[DONE]" not in cut
    failed, error = events(cut)[-2:]
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": "It broke."}
    assert (error["type"], error["code"], error["message"]) == ("error", "provider_error", "It broke.")


def test_thinking_is_a_summary_to_who_asked_for_one() -> None:
    raw = shown(
        "responses",
        [stream_of([{"reasoning_content": "Hm"}, {"content": "A"}], "stop")],
        reasoning={"summary": "auto"},
    )
    found = events(raw)
    assert [event["type"].removeprefix("response.") for event in found[2:8]] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert found[-1]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "Hm"}]


@pytest.mark.parametrize(
    ("finish", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_cut_short_is_an_incomplete_response(finish: str, why: str) -> None:
    last = events(shown("responses", [stream_of([{"content": "A"}], finish)]))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": why}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert whole("responses", {"content": "A"}, finish)["status"] == "incomplete"


def test_an_empty_answer_is_a_message_without_text() -> None:
    streamed = events(shown("responses", [stream_of([{"content": ""}], "stop")]))[-1]["response"]
    plain = whole("responses", {"content": ""}, "stop")
    for answer in (streamed, plain):
        assert [item["content"][0]["text"] for item in answer["output"]] == [""]


def test_a_refusal_is_a_part_of_its_own_kind() -> None:
    answer = whole("responses", {"content": None, "refusal": "No."}, "stop")
    assert answer["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    last = events(shown("responses", [stream_of([{"refusal": "No."}], "stop")]))[-1]["response"]
    assert last["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


def test_a_response_repeats_what_was_asked() -> None:
    answer = whole(
        "responses", {"content": "A"}, "stop", instructions="Be", temperature=0, metadata={"a": "b"}, tools=[]
    )
    assert (answer["instructions"], answer["temperature"], answer["metadata"], answer["tools"]) == (
        "Be",
        0,
        {"a": "b"},
        [],
    )


# --- messages ------------------------------------------------------------------------------------


def test_the_events_of_a_message_come_in_order_and_end_with_its_usage() -> None:
    found = events(shown("messages", [stream_of(DELTAS, "tool_calls")]))
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert [event["type"] for event in found] == [
        *("message_start", "ping"),
        *block,
        *(block[0], block[1], block[1], block[2]),
        *(block[0], block[1], block[1], block[2]),
        *("message_delta", "message_stop"),
    ]
    assert found[3]["delta"] == {"type": "thinking_delta", "thinking": "Hm"}
    assert found[6]["delta"] == {"type": "text_delta", "text": "Hé"}
    assert found[9]["content_block"] == {
        "type": "tool_use",
        "id": "c1",
        "name": "f",
        "input": {},
        "caller": {"type": "direct"},
    }
    assert found[10] == {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"a"'},
    }
    # 10 prompt tokens, 4 of them cached and 1 written to the cache.
    assert found[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 2},
            "server_tool_use": None,
        },
    }


def test_a_broken_message_ends_with_an_error_and_no_stop() -> None:
    found = events(shown("messages", [chunk({"content": "He"}), error_event(ProviderFailed("It broke."))]))
    assert found[-1] == {"type": "error", "error": {"type": "api_error", "message": "It broke."}}
    assert not {"message_delta", "message_stop"} & {event["type"] for event in found}


@pytest.mark.parametrize(
    ("finish", "message", "reason"),
    [
        ("stop", {"content": "A"}, "end_turn"),
        ("length", {"content": "A"}, "max_tokens"),
        ("content_filter", {"content": "A"}, "refusal"),
        ("stop", {"refusal": "No"}, "refusal"),
        ("tool_calls", {"tool_calls": DELTAS[4]["tool_calls"]}, "tool_use"),
        ("stop", {"tool_calls": DELTAS[4]["tool_calls"]}, "tool_use"),
    ],
)
def test_an_end_has_anthropics_name(finish: str, message: dict[str, Any], reason: str) -> None:
    assert whole("messages", message, finish)["stop_reason"] == reason


def test_a_whole_message_has_its_blocks_and_disjoint_usage() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    answer = whole("messages", {"content": "A", "reasoning": "Hm", "tool_calls": [call]}, "tool_calls")
    assert answer == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "big",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": ""},
            {"type": "text", "text": "A", "citations": None},
            {
                "type": "tool_use",
                "id": "c1",
                "name": "f",
                "input": {"a": 1},
                "caller": {"type": "direct"},
            },
        ],
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 2},
            "server_tool_use": None,
            "cache_creation": None,
            "inference_geo": None,
            "service_tier": None,
        },
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
    }


def test_arguments_that_are_no_object_are_not_lost() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    answer = whole("messages", {"tool_calls": [call]}, "tool_calls")
    assert answer["content"][0]["input"] == {"invalid_arguments": '{"a":'}


# --- completions ---------------------------------------------------------------------------------


def test_the_chunks_of_a_completion_have_text_and_usage_only_for_who_asked() -> None:
    deltas = [{"role": "assistant", "content": ""}, {"content": "He"}, {"content": "y"}]
    found = events(shown("completions", [stream_of(deltas, "stop")]))
    assert [event["choices"][0] for event in found] == [
        {"text": "He", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "y", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"},
    ]
    assert found[0]["object"] == "text_completion"
    asked = events(shown("completions", [stream_of(deltas, "stop")], stream_options={"include_usage": True}))
    assert asked[-1]["usage"] == USAGE
    assert asked[-1]["choices"] == []


def test_a_broken_completion_ends_with_openais_error_and_without_done() -> None:
    raw = shown("completions", [chunk({"content": "He"}), error_event(ProviderFailed("It broke."))])
    assert raw.endswith(error_event(ProviderFailed("It broke.")))


# --- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_every_cut_of_the_stream_gives_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 5.0)
    raw = stream_of(DELTAS, "tool_calls")
    wanted = shown(name, [raw])
    for cut in range(1, len(raw)):
        assert shown(name, [raw[:cut], raw[cut:]]) == wanted


@pytest.mark.parametrize("name", ["responses", "messages"])
@given(
    texts=st.lists(st.text(min_size=1, max_size=6), max_size=5),
    arguments=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
def test_no_text_and_no_arguments_are_lost(name: str, texts: list[str], arguments: dict[str, str]) -> None:
    written = orjson.dumps(arguments).decode()
    pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": letter}}]} for letter in written]
    raw = stream_of([*({"content": text} for text in texts), DELTAS[4], *pieces], "tool_calls")
    found = events(shown(name, [raw]))
    if name == "responses":
        text = "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
        made = "".join(event["delta"] for event in found if event["type"].endswith("arguments.delta"))
    else:
        deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
        text = "".join(delta.get("text", "") for delta in deltas)
        made = "".join(delta.get("partial_json", "") for delta in deltas)
    assert (text, made) == ("".join(texts), written)


# --- thinking that must come back ----------------------------------------------------------------

SIGNED = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
SEALED = {"type": "reasoning.encrypted", "data": "QUJD", "format": "google-gemini-v1", "index": 1}


def test_a_signature_and_ciphertext_make_the_round_trip_through_messages() -> None:
    details = [{**SIGNED, "text": "Hm", "signature": "sig"}, SEALED]
    answer = whole(
        "messages", {"content": "A", "reasoning_content": "Hm", "reasoning_details": details}, "stop"
    )
    thinking, sealed, _ = answer["content"]
    assert thinking == {"type": "thinking", "thinking": "Hm", "signature": "sig"}
    assert sealed["type"] == "redacted_thinking"
    talk = [{"role": "assistant", "content": answer["content"]}]
    (back,) = message_facts(orjson.dumps({"model": "m", "max_tokens": 9, "messages": talk}), "").body[
        "messages"
    ]
    assert back["content"] == "A"
    assert back["reasoning_content"] == "Hm"
    first, second = back["reasoning_details"]
    assert (first["text"], first["signature"], first["format"]) == ("Hm", "sig", "anthropic-claude-v1")
    assert second == SEALED


def test_a_streamed_signature_comes_before_its_block_stops() -> None:
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "H", "reasoning_details": [{**SIGNED, "text": "H"}]},
        {
            "reasoning_content": "m",
            "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "m"}],
        },
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "signature": "sig"}]},
        {"content": "A"},
    ]
    found = events(shown("messages", [stream_of(deltas, "stop")]))
    assert [event["delta"] for event in found if event["type"] == "content_block_delta"] == [
        {"type": "thinking_delta", "thinking": "H"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "signature_delta", "signature": "sig"},
        {"type": "text_delta", "text": "A"},
    ]


def test_what_must_come_back_is_encrypted_content_to_who_asked_for_it() -> None:
    details = [{**SIGNED, "text": "Hm", "signature": "sig"}]
    said = {"content": "A", "reasoning_content": "Hm", "reasoning_details": details}
    assert "encrypted_content" not in whole("responses", said, "stop")["output"][0]
    item, _ = whole("responses", said, "stop", include=["reasoning.encrypted_content"])["output"]
    asked = {
        "model": "m",
        "input": [item, {"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}],
    }
    back = response_facts(orjson.dumps(asked), "").body["messages"][0]
    assert back == {
        "role": "assistant",
        "content": "A",
        "reasoning_content": "Hm",
        "reasoning_details": details,
    }


@pytest.mark.parametrize("text", ["", "weir1:", "weir1:!!!", "weir1:AAAA", "other"])
def test_a_string_that_is_not_ours_carries_nothing(text: str) -> None:
    assert unpacked(text) == []


SIGNATURE = {"google": {"thought_signature": "EpEg"}}


def two_calls() -> list[dict[str, Any]]:
    """Deltas of two calls at once, the first with a signature, as Gemini's answers are read."""
    first, second = (
        {
            "index": at,
            "id": f"call_{at}",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a": 1}'},
        }
        for at in (0, 1)
    )
    return [{"reasoning_content": "Hm"}, {"tool_calls": [{**first, "extra_content": SIGNATURE}, second]}]


def test_what_came_with_a_call_makes_the_round_trip_through_messages() -> None:
    found = events(shown("messages", [stream_of(two_calls(), "tool_calls")]))
    blocks = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == ["thinking", "redacted_thinking", "tool_use", "tool_use"]
    assert "EpEg" not in orjson.dumps(blocks[2:]).decode()
    for block in blocks[2:]:
        block["input"] = {"a": 1}
    talk = [{"role": "assistant", "content": blocks}]
    (back,) = message_facts(orjson.dumps({"model": "m", "max_tokens": 9, "messages": talk}), "").body[
        "messages"
    ]
    assert [call.get("extra_content") for call in back["tool_calls"]] == [SIGNATURE, None]
    assert "reasoning_details" not in back


@pytest.mark.parametrize("wanted", [True, False])
def test_what_came_with_a_call_makes_the_round_trip_through_responses(wanted: bool) -> None:
    told = {"reasoning_content": "Hm", **two_calls()[1]}
    include = ["reasoning.encrypted_content"] if wanted else []
    items = whole("responses", told, "tool_calls", include=include)["output"]
    kinds = ["reasoning", *(["reasoning"] if wanted else []), "function_call", "function_call"]
    assert [item["type"] for item in items] == kinds
    results = [{"type": "function_call_output", "call_id": f"call_{at}", "output": "1"} for at in (0, 1)]
    asked = {"model": "m", "input": [*items, *results]}
    back = response_facts(orjson.dumps(asked), "").body["messages"][0]
    expected = [SIGNATURE, None] if wanted else [None, None]
    assert [call.get("extra_content") for call in back["tool_calls"]] == expected
    assert back["reasoning_content"] == "Hm"
    assert "reasoning_details" not in back


def test_forged_thinking_changes_no_call() -> None:
    forged = thoughts.packed([{"type": "weir.call", "id": ["x"], "extra_content": 7}, {"type": "weir.call"}])
    content = [
        {"type": "redacted_thinking", "data": forged},
        {"type": "tool_use", "id": "call_0", "name": "f", "input": {}},
    ]
    talk = [{"role": "assistant", "content": content}]
    (back,) = message_facts(orjson.dumps({"model": "m", "max_tokens": 9, "messages": talk}), "").body[
        "messages"
    ]
    assert "extra_content" not in back["tool_calls"][0]
