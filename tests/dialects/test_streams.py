"""Streams of every provider become OpenAI's: what a client makes of them, wherever the bytes are cut."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from billing.token_usage import from_openai
from gateway.v1.repairing import RepairingScanner
from gateway.v1.stream import identity
from routing.dialects import StreamState, dialect
from tests.dialects.corpus import REPLAYS
from tests.dialects.shapes import Replay

PLAIN_REASONS = {None, "stop", "length", "tool_calls", "content_filter"}


def scan(replay: Replay, *pieces: bytes, wants_usage: bool = True) -> tuple[bytes, RepairingScanner]:
    state = StreamState(id="chatcmpl-made", model="fallback", created=1)
    scanner = RepairingScanner(dialect(replay.kind), wants_usage=wants_usage, state=state)
    sent = b""
    for piece in pieces:
        sent += scanner.feed(piece)
    return sent + scanner.finish(), scanner


def chunks(sent: bytes) -> list[dict[str, Any]]:
    """The chunks of a well-formed stream: nothing but comments and data lines."""
    found = []
    for event in sent.split(b"\n\n"):
        if event and not event.startswith(b":"):
            assert event.startswith(b"data: {")
            assert b"\n" not in event
            found.append(json.loads(event[6:]))
    return found


def of_every_replay() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("replay", REPLAYS, ids=lambda replay: replay.name)


@of_every_replay()
def test_a_cut_at_any_byte_changes_nothing(replay: Replay) -> None:
    whole, scanner = scan(replay, replay.raw)
    assert not any(b"\r" in line for line in whole.split(b"\n"))
    expected = chunks(whole), scanner.complete, scanner.usage, scanner.error
    for cut in range(1, len(replay.raw)):
        sent, scanner = scan(replay, replay.raw[:cut], replay.raw[cut:])
        assert (chunks(sent), scanner.complete, scanner.usage, scanner.error) == expected, cut


@of_every_replay()
@pytest.mark.parametrize("form", ["crlf", "cr", "no-space", "byte-by-byte", "byte-order-mark"])
def test_the_form_of_the_events_changes_nothing(replay: Replay, form: str) -> None:
    raw = replay.raw
    changed = {
        "crlf": raw.replace(b"\n", b"\r\n"),
        "cr": raw.replace(b"\n", b"\r"),
        "no-space": re.sub(rb"(?m)^data: ", b"data:", raw),
        "byte-order-mark": b"\xef\xbb\xbf" + raw,
    }.get(form, raw)
    pieces = [changed[at : at + 1] for at in range(len(changed))] if form == "byte-by-byte" else [changed]
    sent, scanner = scan(replay, *pieces)
    expected, whole = scan(replay, raw)
    assert chunks(sent) == chunks(expected)
    assert (scanner.complete, scanner.usage, scanner.error) == (whole.complete, whole.usage, whole.error)


@of_every_replay()
def test_a_client_gets_what_the_model_said(replay: Replay) -> None:
    sent, scanner = scan(replay, replay.raw)
    state = ChatCompletionStreamState()
    for chunk in chunks(sent):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    assert scanner.complete == (replay.error is None)
    if not chunks(sent):
        assert replay.error is not None
        return
    choice = state.current_completion_snapshot.choices[0]
    message = choice.message
    assert message.role == "assistant"
    assert (message.content or "") == replay.text
    assert ((message.model_extra or {}).get("reasoning_content") or "") == replay.reasoning
    calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
    assert len(calls) == len(replay.tools)
    for (given, *got), (wanted, *rest) in zip(calls, replay.tools, strict=True):
        assert got == rest
        assert given == wanted if wanted != "*" else given.startswith("call_")
    assert len({call[0] for call in calls}) == len(calls)
    if replay.error is None:
        assert choice.finish_reason == replay.finish


@of_every_replay()
def test_a_provider_error_is_an_error(replay: Replay) -> None:
    _, scanner = scan(replay, replay.raw)
    if replay.error is None:
        assert scanner.error is None
    elif replay.error:
        assert scanner.error is not None
        assert replay.error in json.dumps(scanner.error)


@of_every_replay()
def test_the_usage_is_the_last_one_and_is_counted_once(replay: Replay) -> None:
    sent, scanner = scan(replay, replay.raw)
    if replay.usage is None:
        assert scanner.usage is None
        return
    assert scanner.usage is not None
    read = from_openai(scanner.usage)
    assert read is not None
    assert (read.prompt, read.completion) == replay.usage
    shown = chunks(scanner.closing(identity(sent), scanner.usage).removesuffix(b"data: [DONE]\n\n"))[0][
        "usage"
    ]
    prompt, completion = replay.usage
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == replay.usage
    assert shown["total_tokens"] == prompt + completion
    # What the provider charges is between it and the operator.
    assert "cost" not in json.dumps(shown)


@of_every_replay()
@pytest.mark.parametrize("wants_usage", [False, True])
def test_every_chunk_keeps_the_rules_that_clients_rely_on(replay: Replay, wants_usage: bool) -> None:
    sent, _ = scan(replay, replay.raw, wants_usage=wants_usage)
    finishes: Counter[int] = Counter()
    seen: dict[tuple[int, int], dict[str, Any]] = {}
    roles = 0
    identities = set()
    for chunk in chunks(sent):
        identities.add((chunk["id"], chunk["created"], chunk["model"], chunk["object"]))
        assert ("usage" in chunk) == wants_usage
        assert chunk.get("usage") is None
        assert len(chunk["choices"]) == 1
        for choice in chunk["choices"]:
            delta = choice["delta"]
            roles += "role" in delta
            assert not {"name", "audio_content", "token_id", "channel", "index", "reasoning"} & set(delta)
            assert isinstance(delta.get("content"), str | None)
            assert choice["finish_reason"] in PLAIN_REASONS
            finishes[choice["index"]] += choice["finish_reason"] is not None
            for call in delta.get("tool_calls", ()):
                key = choice["index"], call["index"]
                assert isinstance(call["function"].get("arguments", ""), str)
                if key in seen:
                    assert "id" not in call
                    assert "type" not in call
                else:
                    assert call["index"] == len(seen)
                    assert call["type"] == "function"
                    assert call["id"]
                    seen[key] = call
    assert len(identities) <= 1
    assert roles == (1 if identities else 0)
    assert all(count <= 1 for count in finishes.values())


def replay_named(name: str) -> Replay:
    (found,) = [replay for replay in REPLAYS if replay.name == name]
    return found


def test_what_a_provider_wants_back_with_a_tool_call_reaches_the_client() -> None:
    replay = replay_named("gemini-compatible-without-index-id-and-created")
    sent, _ = scan(replay, replay.raw)
    (call,) = chunks(sent)[0]["choices"][0]["delta"]["tool_calls"]
    assert call["extra_content"] == {"google": {"thought_signature": "c2ln"}}


def test_reasoning_details_stay_beside_the_text_made_of_them() -> None:
    replay = replay_named("openrouter-reasoning-details")
    sent, _ = scan(replay, replay.raw)
    delta = chunks(sent)[0]["choices"][0]["delta"]
    assert delta["reasoning_content"] == "Hm"
    assert delta["reasoning_details"] == [{"type": "reasoning.text", "text": "Hm", "index": 0}]


def test_what_azures_filter_says_of_the_prompt_comes_with_the_first_chunk() -> None:
    replay = replay_named("azure-filter-annotations")
    first, *rest = chunks(scan(replay, replay.raw)[0])
    assert first["prompt_filter_results"] == [{"prompt_index": 0, "content_filter_results": {}}]
    assert not any("prompt_filter_results" in chunk for chunk in rest)


def test_two_choices_are_kept_apart() -> None:
    def both(delta: Any, finish: str | None = None) -> bytes:
        made = {"id": "c", "choices": [{"index": i, "delta": delta, "finish_reason": finish} for i in (0, 1)]}
        return b"data: " + json.dumps(made).encode() + b"\n\n"

    scanner = RepairingScanner(dialect("vllm"), wants_usage=False, choices=2)
    sent = scanner.feed(both({"role": "assistant", "content": "a"}) + both({}, "stop"))
    assert scanner.complete
    assert [chunk["choices"][0]["index"] for chunk in chunks(sent)] == [0, 1, 0, 1]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks(sent)] == ["assistant"] * 2 + [
        None
    ] * 2


def test_garbage_in_any_member_is_survived() -> None:
    garbage: Any
    raw: dict[str, Any]
    for garbage in (7, "x", [7], [None], {"a": 1}, True):
        for raw in (
            {"choices": garbage},
            {"choices": [garbage]},
            {"choices": [{"index": garbage, "delta": garbage, "finish_reason": garbage, "usage": garbage}]},
            {"choices": [{"delta": {"content": garbage, "tool_calls": garbage, "reasoning": garbage}}]},
            {
                "choices": [
                    {"delta": {"tool_calls": [{"id": garbage, "index": garbage, "function": garbage}]}}
                ]
            },
            {"choices": [{"delta": {"tool_calls": [{"function": {"name": garbage, "arguments": garbage}}]}}]},
            {
                "id": garbage,
                "created": garbage,
                "model": garbage,
                "usage": garbage,
                "choices": [{"delta": {}}],
            },
        ):
            scanner = RepairingScanner(dialect("generic"), wants_usage=True)
            sent = scanner.feed(b"data: " + json.dumps(raw).encode() + b"\n\n") + scanner.finish()
            for chunk in chunks(sent):
                ChatCompletionChunk.model_validate(chunk)
