"""Usage under each provider's semantics becomes disjoint classes that add up to what it counted."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from billing.token_usage import OPENAI, TokenUsage, from_anthropic, from_gemini, from_openai
from gateway.v1.repairing import RepairingScanner
from routing.dialects import dialect
from routing.dialects.anthropic import answers as anthropic
from routing.dialects.gemini import answers as gemini
from routing.kinds import KINDS

COUNT = some.integers(0, 10**7)
ANYTHING = some.one_of(
    some.none(), some.booleans(), some.integers(-(10**12), 10**12), some.floats(), some.text(max_size=3)
)


def classes(usage: dict[str, Any] | None) -> TokenUsage:
    read = from_openai(usage) if usage else None
    return read or TokenUsage(0, 0, 0, 0, 0, "none")


@given(COUNT, COUNT, COUNT, COUNT, some.integers(0, 10**7))
def test_anthropic_counts_the_cache_beside_the_input(
    given_input: int, read: int, written: int, output: int, thought: int
) -> None:
    usage = classes(
        anthropic.usage_of(
            {
                "input_tokens": given_input,
                "cache_read_input_tokens": read,
                "cache_creation_input_tokens": written,
                "output_tokens": output,
                "output_tokens_details": {"thinking_tokens": min(thought, output)},
            }
        )
    )
    assert (usage.input, usage.cached_input, usage.cache_write) == (given_input, read, written)
    assert (usage.output, usage.reasoning) == (output, min(thought, output))
    assert usage.total == given_input + read + written + output


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_gemini_counts_thoughts_beside_the_answer_and_the_cache_within_the_prompt(
    prompt: int, cached: int, tools: int, candidates: int, thoughts: int
) -> None:
    cached = min(cached, prompt)
    usage = classes(
        gemini.usage_of(
            {
                "promptTokenCount": prompt,
                "cachedContentTokenCount": cached,
                "toolUsePromptTokenCount": tools,
                "candidatesTokenCount": candidates,
                "thoughtsTokenCount": thoughts,
            }
        )
    )
    assert (usage.input, usage.cached_input) == (prompt + tools - cached, cached)
    assert (usage.output, usage.reasoning) == (candidates + thoughts, thoughts)
    assert usage.total == prompt + tools + candidates + thoughts


@given(COUNT, COUNT, COUNT, COUNT)
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"anthropic", "gemini"}))
def test_elsewhere_the_cache_is_within_the_prompt_and_reasoning_within_the_answer(
    kind: str, prompt: int, cached: int, output: int, thought: int
) -> None:
    counted = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
        "completion_tokens_details": {"reasoning_tokens": min(thought, output)},
    }
    usage = classes(dialect(kind).read_usage({"usage": counted}))
    if prompt + output:
        assert (usage.cached_input, usage.reasoning) == (min(cached, prompt), min(thought, output))
    assert usage.total == prompt + output


@given(COUNT, COUNT, COUNT, COUNT)
def test_what_is_written_to_the_cache_for_an_hour_stays_apart(
    given_input: int, written: int, for_hour: int, output: int
) -> None:
    counts = {
        "input_tokens": given_input,
        "cache_creation_input_tokens": written + for_hour,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written,
            "ephemeral_1h_input_tokens": for_hour,
        },
        "output_tokens": output,
    }
    expected = from_anthropic(counts)
    if expected is not None:
        assert classes(anthropic.usage_of(counts)) == replace(expected, semantics=OPENAI)


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_sound_and_pictures_stay_apart(text: int, audio: int, image: int, cached: int, answer: int) -> None:
    prompt = text + audio + image
    counts = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": min(cached, text),
        "candidatesTokenCount": answer + 3,
        "promptTokensDetails": [
            {"modality": "AUDIO", "tokenCount": audio},
            {"modality": "IMAGE", "tokenCount": image},
            {"modality": "TEXT", "tokenCount": text},
        ],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 3}],
    }
    expected = from_gemini(counts)
    assert expected is not None
    assert classes(gemini.usage_of(counts)) == replace(expected, semantics=OPENAI)


MEMBERS = (
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "promptTokenCount", "candidatesTokenCount"),
    *("thoughtsTokenCount", "cachedContentTokenCount", "toolUsePromptTokenCount", "reasoning_tokens"),
)
USAGES = some.dictionaries(some.sampled_from(MEMBERS), ANYTHING) | ANYTHING


@given(USAGES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_class_is_ever_negative(kind: str, usage: Any) -> None:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": usage}},
        {"type": "message_delta", "usage": usage, "usageMetadata": usage, "choices": [{"usage": usage}]},
    ]
    scanner = RepairingScanner(dialect(kind), wants_usage=True)
    for event in events:
        with suppress(ValueError):
            scanner.feed(b"data: " + json.dumps(event, allow_nan=False).encode() + b"\n\n")
    read = classes(scanner.usage)
    assert min(read.input, read.cached_input, read.cache_write, read.output, read.reasoning) >= 0


GARBAGE = some.recursive(
    ANYTHING,
    lambda inner: some.lists(inner, max_size=2) | some.dictionaries(some.text(max_size=2), inner),
    max_leaves=4,
)


@given(GARBAGE, some.sampled_from(["type", "index", "delta", "content_block", "message", "usage", "error"]))
@pytest.mark.parametrize("kind", sorted(anthropic.EVENTS))
def test_garbage_in_an_event_of_anthropics_is_survived(kind: str, garbage: Any, member: str) -> None:
    for event in (
        {"type": kind, member: garbage},
        {"type": kind, "delta": {"type": garbage}, "content_block": {member: garbage, "type": "tool_use"}},
    ):
        scanner = RepairingScanner(dialect("anthropic"), wants_usage=True)
        with suppress(ValueError):
            scanner.feed(b"data: " + json.dumps(event, allow_nan=False).encode() + b"\n\n")


@given(GARBAGE)
def test_garbage_in_an_event_of_geminis_is_survived(garbage: Any) -> None:
    for event in (
        {"candidates": garbage, "usageMetadata": garbage, "promptFeedback": garbage},
        {"candidates": [{"content": garbage, "finishReason": garbage, "index": garbage}]},
        {"candidates": [{"content": {"parts": garbage}}]},
        {"candidates": [{"content": {"parts": [garbage]}}], "responseId": garbage, "modelVersion": garbage},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": garbage, "args": garbage}}]}}]},
        {"candidates": [{"content": {"parts": [{"text": garbage, "thoughtSignature": garbage}]}}]},
    ):
        scanner = RepairingScanner(dialect("gemini"), wants_usage=True)
        with suppress(ValueError):
            scanner.feed(b"data: " + json.dumps(event, allow_nan=False).encode() + b"\n\n")
