"""The scanner of chat streams: what a client gets does not depend on where bytes were cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.v1.stream import DONE, StreamScanner, identity


def event(end: str = "\n\n", **chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + end.encode()


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ROLE = event(
    id="c1", model="m", created=1, choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}]
)
HELLO = event(id="c1", model="m", created=1, choices=[delta("Hellö")], usage=None)
TRICK = event(
    id="c1", model="m", created=1, choices=[delta('"usage": {"finish_reason":"stop"} [DONE] "error":{')]
)
STOP = event(id="c1", model="m", created=1, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
LAST = event(id="c1", model="m", created=1, choices=[], usage=USAGE)
STREAM = ROLE + HELLO + b": ping\n\n" + TRICK + STOP + LAST + DONE


def scan(pieces: list[bytes], **options: Any) -> tuple[bytes, StreamScanner]:
    scanner = StreamScanner(**{"wants_usage": False, **options})
    return b"".join(scanner.feed(piece) for piece in pieces) + scanner.finish(), scanner


def chunks(sent: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in sent.split(b"\n") if line.startswith(b"data: {")]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_cut_at_any_byte_changes_nothing(cut: int) -> None:
    sent, scanner = scan([STREAM[:cut], STREAM[cut:]])
    assert chunks(sent) == chunks(ROLE + HELLO + TRICK + STOP)
    assert scanner.complete
    assert scanner.done
    assert scanner.usage == USAGE


@given(st.text(), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(0, 4))
def test_an_event_of_several_data_lines_reaches_the_client_as_one(text: str, line: str, indent: int) -> None:
    chunk = {"id": "c1", "choices": [delta(text)]}
    written = json.dumps(chunk, indent=indent).split("\n")
    sent, _ = scan([(line.join(f"data: {each}" for each in written) + line + line).encode()])
    assert sent.startswith(b"data: {")
    assert sent.count(b"\n") == 2
    assert json.loads(sent[6:]) == chunk


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_split_into_pieces_gives_the_same_chunks(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    sent, scanner = scan([STREAM[a:b] for a, b in itertools.pairwise(edges)])
    assert chunks(sent) == chunks(ROLE + HELLO + TRICK + STOP)
    assert scanner.usage == USAGE


def test_plain_content_passes_as_the_very_bytes_that_came() -> None:
    sent, _ = scan([ROLE, HELLO])
    assert sent == ROLE + HELLO


def test_the_usage_chunk_is_kept_back_and_given_at_the_end_to_who_asked() -> None:
    sent, scanner = scan([STREAM], wants_usage=True)
    closing = scanner.closing(identity(sent), scanner.usage)
    assert chunks(closing) == [
        {
            "id": "c1",
            "model": "m",
            "created": 1,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": USAGE,
        }
    ]
    assert closing.endswith(DONE)


def test_usage_on_the_chunk_of_the_finish_reason_is_read_and_taken_off_it() -> None:
    both = event(id="c1", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
    sent, scanner = scan([HELLO + both + DONE])
    assert scanner.usage == USAGE
    assert [chunk.get("usage") for chunk in chunks(sent)] == [None, None]


def test_the_last_usage_counts_where_each_chunk_carries_one() -> None:
    running = [event(id="c1", choices=[delta("a")], usage={**USAGE, "completion_tokens": n}) for n in (1, 2)]
    _, scanner = scan([*running, STOP, DONE])
    assert scanner.usage == {**USAGE, "completion_tokens": 2}


def test_a_placeholder_of_zeros_is_not_usage() -> None:
    _, scanner = scan(
        [LAST, event(id="c1", choices=[delta("a")], usage={"total_tokens": 0, "prompt_tokens": 0})]
    )
    assert scanner.usage == USAGE


def test_done_without_a_finish_reason_is_not_complete() -> None:
    _, scanner = scan([ROLE + HELLO + DONE])
    assert not scanner.complete


def test_a_finish_reason_without_done_is_complete() -> None:
    _, scanner = scan([ROLE + HELLO + STOP])
    assert scanner.complete


def test_two_choices_need_two_finish_reasons() -> None:
    second = event(id="c1", choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}])
    assert not scan([STOP, DONE], choices=2)[1].complete
    assert scan([STOP, second, DONE], choices=2)[1].complete


def test_an_error_event_ends_the_stream_and_nothing_after_it_is_passed() -> None:
    sent, scanner = scan([HELLO + event(error={"message": "overloaded"}) + STOP + DONE])
    assert scanner.error == {"message": "overloaded"}
    assert not scanner.complete
    assert chunks(sent) == chunks(HELLO)


def test_broken_json_in_any_event_is_an_error() -> None:
    sent, scanner = scan([HELLO + b'data: {"choices":[{"delta":{"content":"x\n\n' + STOP + DONE])
    assert scanner.error is not None
    assert not scanner.complete
    assert chunks(sent) == chunks(HELLO)


def test_fields_that_crash_an_sdk_are_taken_out() -> None:
    sent, scanner = scan([b"event: ping\n\nretry: 3000\n\nid: 7\n" + HELLO + b"event: x\n" + STOP + DONE])
    assert sent == HELLO + STOP
    assert scanner.complete


def test_a_field_behind_a_lone_carriage_return_is_taken_out() -> None:
    sent, _ = scan([HELLO[:-2] + b"\rid: {7}\n\n"])
    assert sent == HELLO


def test_a_finish_reason_on_a_line_of_its_own_is_read() -> None:
    _, scanner = scan([STOP.replace(b'"stop"', b'\ndata: "stop"')])
    assert scanner.complete


def test_line_ends_of_windows_are_understood() -> None:
    windows = STREAM.replace(b"\n", b"\r\n")
    sent, scanner = scan([windows[:50], windows[50:]])
    assert chunks(sent) == chunks(ROLE + HELLO + TRICK + STOP)
    assert scanner.usage == USAGE


def test_a_last_event_without_its_blank_line_is_read() -> None:
    _, scanner = scan([ROLE + HELLO + STOP[:-2]])
    assert scanner.complete


def test_an_event_without_end_is_given_up_at_its_bound() -> None:
    scanner = StreamScanner(wants_usage=False)
    for _ in range(9):
        scanner.feed(b"x" * 1024 * 1024)
    assert scanner.overflow


def test_only_text_reasoning_and_tool_calls_are_content() -> None:
    has_content = StreamScanner(wants_usage=False).has_content
    assert not has_content(ROLE)
    assert has_content(HELLO)
    assert has_content(event(choices=[{"delta": {"tool_calls": [{"index": 0, "id": "a"}]}}]))
    assert has_content(event(choices=[{"delta": {"reasoning_content": "hm"}}]))


def test_the_estimate_counts_at_least_one_token_an_event() -> None:
    _, scanner = scan([ROLE, HELLO, HELLO, HELLO])
    assert scanner.estimated_output_tokens == 3


def test_the_estimate_grows_with_text_beyond_the_shortest_event() -> None:
    short, long = event(choices=[delta("a")]), event(choices=[delta("a" * 401)])
    _, scanner = scan([short, long])
    assert scanner.estimated_output_tokens == 400 // 4
