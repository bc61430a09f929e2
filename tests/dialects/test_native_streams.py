"""Streams that pass in the words of their own API, wherever their bytes are cut and whatever their form."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from billing.token_usage import from_openai
from gateway.v1.exchange import Exchange
from gateway.v1.native_streams import MessageScanner, NativeScanner, native_scanner
from gateway.v1.translation.message_requests import message_facts
from gateway.v1.translation.response_requests import response_facts
from tests.dialects.anthropic_corpus import ANTHROPIC_REPLAYS, block, delta, end, events, start, stop
from tests.dialects.native_corpus import RESPONSE_REPLAYS
from tests.dialects.shapes import Replay

MESSAGE = b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}'
RESPONSE = b'{"model": "m", "input": "hi", "metadata": {"a": "b"}}'
REPLAYS = [*ANTHROPIC_REPLAYS, *RESPONSE_REPLAYS]


def scanner_of(replay: Replay) -> NativeScanner:
    if replay.kind == "anthropic":
        return native_scanner("messages", Exchange("messages"), message_facts(MESSAGE, ""))
    exchange = Exchange("responses", request_id="req_1")
    return native_scanner("responses", exchange, response_facts(RESPONSE, ""))


def scan(replay: Replay, *pieces: bytes) -> tuple[bytes, NativeScanner]:
    scanner = scanner_of(replay)
    sent = b"".join(scanner.feed(piece) for piece in pieces) + scanner.finish()
    return (sent + scanner.closing(None, None) if scanner.complete else sent), scanner


def told(sent: bytes) -> list[dict[str, Any]]:
    """The events of a well-formed stream, each with its name."""
    found = []
    for event in sent.removesuffix(b"data: [DONE]\n\n").split(b"\n\n"):
        if event and not event.startswith(b":"):
            name, data = event.split(b"\n")
            found.append(json.loads(data.removeprefix(b"data: ")))
            assert name == b"event: " + found[-1]["type"].encode()
    return found


def of_every_replay() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("replay", REPLAYS, ids=lambda replay: replay.name)


@of_every_replay()
def test_a_cut_at_any_byte_changes_nothing(replay: Replay) -> None:
    whole, scanner = scan(replay, replay.raw)
    expected = whole, scanner.complete, scanner.usage, scanner.error
    for cut in range(1, len(replay.raw)):
        sent, scanner = scan(replay, replay.raw[:cut], replay.raw[cut:])
        assert (sent, scanner.complete, scanner.usage, scanner.error) == expected, cut


@of_every_replay()
@pytest.mark.parametrize(
    "form", ["crlf", "no-space", "byte-by-byte", "byte-order-mark", "name-last", "no-name", "two-lines"]
)
def test_the_form_of_the_events_changes_nothing(replay: Replay, form: str) -> None:
    raw = replay.raw
    changed = {
        "crlf": raw.replace(b"\n", b"\r\n"),
        "no-space": re.sub(rb"(?m)^(data|event): ", rb"\1:", raw),
        "byte-order-mark": b"\xef\xbb\xbf" + raw,
        "name-last": re.sub(rb"(?m)^(event: .*)\n(data: .*)$", rb"\2\n\1", raw),
        # A line break between members is none of a JSON text's.
        "two-lines": re.sub(rb'(?m)^(data: \{"type": "[a-z_.]+",) ', rb"\1\ndata: ", raw),
        "no-name": re.sub(rb"(?m)^event: .*\n", b"", raw),
    }.get(form, raw)
    pieces = [changed[at : at + 1] for at in range(len(changed))] if form == "byte-by-byte" else [changed]
    sent, scanner = scan(replay, *pieces)
    expected, whole = scan(replay, raw)
    assert told(sent) == told(expected)
    assert (scanner.complete, scanner.usage, scanner.error) == (whole.complete, whole.usage, whole.error)


@of_every_replay()
def test_a_stream_is_whole_only_with_its_end(replay: Replay) -> None:
    sent, scanner = scan(replay, replay.raw)
    assert scanner.complete == (replay.error is None)
    ends = {"message_stop", "response.completed", "response.incomplete", "response.failed"}
    found = [event["type"] for event in told(sent) if event["type"] in ends]
    assert len(found) == (1 if replay.error is None else 0)
    if replay.error:
        assert replay.error in json.dumps(scanner.error)


@of_every_replay()
def test_the_usage_is_read_in_passing(replay: Replay) -> None:
    _, scanner = scan(replay, replay.raw)
    read = None if scanner.usage is None else from_openai(scanner.usage)
    assert (None if read is None else (read.prompt, read.completion)) == replay.usage


@of_every_replay()
def test_what_the_model_wrote_is_kept_for_counting(replay: Replay) -> None:
    _, scanner = scan(replay, replay.raw)
    kept = list(scanner.deltas())
    said = "".join(message.get("content", "") for message in kept)
    assert replay.text in said or replay.name == "anthropic-context-window-full"
    # Thinking is told apart: of some it is a summary, which is not what was counted.
    assert "".join(message.get("reasoning_content", "") for message in kept) == replay.reasoning
    for _, _, arguments in replay.tools:
        assert arguments in said or arguments == "{}"


def test_events_without_news_for_the_gateway_pass_as_bytes() -> None:
    piece = events(delta(0, "text_delta", text='say "type": "message_stop" \n\n')) * 3
    scanner = MessageScanner()
    scanner.feed(events(start(), block(0, "text", text="")))
    assert scanner.feed(piece) == piece
    assert not scanner.done
    assert scanner.estimated_output_tokens == 3


def test_nothing_is_content_before_the_model_said_something() -> None:
    scanner = MessageScanner()
    assert not scanner.has_content(scanner.feed(events(start(), {"type": "ping"}, block(0, "text", text=""))))
    assert scanner.has_content(scanner.feed(events(delta(0, "text_delta", text="a"))))
    response = scanner_of(RESPONSE_REPLAYS[0])
    before, _, after = RESPONSE_REPLAYS[0].raw.partition(b"event: response.output_text.delta")
    assert not response.has_content(response.feed(before))
    assert response.has_content(response.feed(b"event: response.output_text.delta" + after))


def test_a_second_start_is_left_out() -> None:
    (replay,) = [replay for replay in ANTHROPIC_REPLAYS if "two-starts" in replay.name]
    kinds = [event["type"] for event in told(scan(replay, replay.raw)[0])]
    assert kinds.count("message_start") == 1


def test_cached_and_written_tokens_are_told_apart() -> None:
    raw = events(
        start(
            input_tokens=3,
            cache_read_input_tokens=100,
            cache_creation_input_tokens=30,
            cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        ),
        block(0, "text", text="a"),
        stop(0),
        *end("end_turn", 5),
    )
    _, scanner = scan(Replay("", "anthropic", raw), raw)
    assert scanner.usage is not None
    read = from_openai(scanner.usage)
    assert read is not None
    # Three classes beside each other; what is written for an hour has a price of its own.
    assert (read.input, read.cached_input, read.cache_write) == (3, 100, 10)
    assert read.quantities == {"cache_write_1h": 20}


def test_the_response_is_the_gateways_own_in_every_event() -> None:
    replay = RESPONSE_REPLAYS[0]
    found = [event["response"] for event in told(scan(replay, replay.raw)[0]) if "response" in event]
    assert len(found) == 3
    assert {(one["id"], one["store"], one["metadata"]["a"]) for one in found} == {("resp_1", False, "b")}


def test_what_the_provider_charges_is_not_in_a_response_and_what_has_no_value_is() -> None:
    (replay,) = [replay for replay in RESPONSE_REPLAYS if replay.kind == "xai"]
    sent, _ = scan(replay, replay.raw)
    found = [event["response"] for event in told(sent) if "response" in event]
    assert len(found) == 3
    for one in found:
        assert one["error"] is one["instructions"] is one["temperature"] is None
    assert b"cost_in" not in sent
    assert found[-1]["usage"]["num_sources_used"] == 0
    assert b"fp_eb3c003fc66c14ed" not in sent


@pytest.mark.parametrize("garbage", [7, "x", [7], None, {"a": 1}, True])
def test_garbage_in_any_member_is_survived(garbage: Any) -> None:
    for replay in (ANTHROPIC_REPLAYS[0], RESPONSE_REPLAYS[0]):
        for kind in (
            "message_start",
            "message_delta",
            "response.created",
            "response.completed",
            "error",
            garbage,
        ):
            members = dict.fromkeys(("message", "delta", "usage", "response", "error", "index"), garbage)
            scanner = scanner_of(replay)
            scanner.feed(b"data: " + json.dumps({"type": kind, **members}).encode() + b"\n\n")
            scanner.finish()
            assert not scanner.complete or kind == "message_delta" or kind.startswith("response.")
