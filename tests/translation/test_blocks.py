"""Blocks: one behind the other, and nothing of the provider's text is lost or shown twice."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.v1.translation.blocks import Blocks, Step


def told(steps: list[Step]) -> list[tuple[str, int, str]]:
    return [(step.what, step.block.index, step.text) for step in steps]


def call(index: int, arguments: str, name: str = "") -> dict[str, Any]:
    piece: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if name:
        piece |= {"id": f"call_{index}", "type": "function"}
        piece["function"]["name"] = name
    return {"tool_calls": [piece]}


def test_thinking_text_and_a_call_are_three_blocks_in_order() -> None:
    blocks = Blocks()
    assert told(blocks.feed({"role": "assistant", "content": ""})) == []
    assert told(blocks.feed({"reasoning_content": "Hm"})) == [("open", 0, ""), ("delta", 0, "Hm")]
    assert told(blocks.feed({"content": "So"})) == [("close", 0, ""), ("open", 1, ""), ("delta", 1, "So")]
    assert told(blocks.feed(call(0, "", "f"))) == []
    assert told(blocks.feed(call(0, '{"a":1}'))) == [
        ("close", 1, ""),
        ("open", 2, ""),
        ("delta", 2, '{"a":1}'),
    ]
    assert told(blocks.finish()) == [("close", 2, "")]


def test_a_second_call_waits_until_the_arguments_of_the_first_are_whole() -> None:
    blocks = Blocks()
    blocks.feed(call(0, '{"a":', "f"))
    assert told(blocks.feed(call(1, '{"b"', "g"))) == []
    assert told(blocks.feed(call(0, "1}"))) == [
        ("delta", 0, "1}"),
        ("close", 0, ""),
        ("open", 1, ""),
        ("delta", 1, '{"b"'),
    ]
    assert told(blocks.feed(call(1, ":2}"))) == [("delta", 1, ":2}")]


def test_a_name_that_comes_in_pieces_is_whole_when_its_call_opens() -> None:
    blocks = Blocks()
    assert told(blocks.feed(call(0, "", "get_"))) == []
    assert told(blocks.feed(call(0, "", "time"))) == []
    assert told(blocks.feed(call(0, "{}"))) == [("open", 0, ""), ("delta", 0, "{}")]
    assert blocks.all[0].name == "get_time"


def test_a_call_without_arguments_gets_an_empty_object() -> None:
    blocks = Blocks()
    blocks.feed(call(0, "", "now"))
    assert told(blocks.finish()) == [("open", 0, ""), ("delta", 0, "{}"), ("close", 0, "")]


def test_thinking_told_under_both_names_is_shown_once() -> None:
    blocks = Blocks()
    blocks.feed({"reasoning_content": "Hm", "reasoning": "Hm"})
    assert [block.text for block in blocks.all] == ["Hm"]


texts = st.text(min_size=1, max_size=8)
arguments = st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3)
deltas = st.lists(
    st.one_of(
        st.builds(lambda text: {"content": text}, texts),
        st.builds(lambda text: {"reasoning_content": text}, texts),
        st.builds(lambda text: {"refusal": text}, texts),
    ),
    max_size=6,
)


@given(
    before=deltas,
    calls=st.lists(arguments, max_size=4),
    after=deltas,
    size=st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
def test_however_calls_are_mixed_nothing_is_lost_and_blocks_never_overlap(
    before: list[dict[str, Any]],
    calls: list[dict[str, Any]],
    after: list[dict[str, Any]],
    size: int,
    order: Any,
) -> None:
    blocks = Blocks()
    steps: list[Step] = []
    for delta in before:
        steps += blocks.feed(delta)
    waiting = []
    for index, made in enumerate(calls):
        text = json.dumps(made)
        steps += blocks.feed(call(index, "", f"f{index}"))
        waiting.append([call(index, text[at : at + size]) for at in range(0, len(text), size)])
    while any(waiting):
        steps += blocks.feed(order.choice([pieces for pieces in waiting if pieces]).pop(0))
    for delta in after:
        steps += blocks.feed(delta)
    steps += blocks.finish()
    live: int | None = None
    shown: dict[int, str] = {}
    for step in steps:
        if step.what == "open":
            assert live is None
            assert step.block.index == len(shown)
            live = step.block.index
            shown[live] = ""
        elif step.what == "delta":
            assert step.block.index == live
            shown[live] += step.text
        else:
            assert step.block.index == live
            live = None
    assert live is None
    for member, kind in (("content", "text"), ("reasoning_content", "thinking"), ("refusal", "refusal")):
        wanted = "".join(delta.get(member, "") for delta in [*before, *after])
        assert "".join(shown[block.index] for block in blocks.all if block.kind == kind) == wanted
    made_calls = [json.loads(shown[block.index]) for block in blocks.all if block.kind == "call"]
    assert made_calls == calls
