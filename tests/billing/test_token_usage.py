"""Usage objects of three semantics, read into disjoint classes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.token_usage import (
    ANTHROPIC,
    GEMINI,
    OPENAI,
    QUANTITIES,
    TokenUsage,
    from_anthropic,
    from_gemini,
    from_openai,
)

Classes = tuple[int, int, int, int, int]


def read_as(read: TokenUsage | None) -> tuple[Classes, dict[str, Decimal]] | None:
    """((input, cached, written, output, reasoning), quantities)."""
    if read is None:
        return None
    counts = read.input, read.cached_input, read.cache_write, read.output, read.reasoning
    return counts, dict(read.quantities)


@pytest.mark.parametrize(
    ("body", "counts", "quantities"),
    [
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 60,
                "total_tokens": 160,
                "prompt_tokens_details": {"cached_tokens": 30, "audio_tokens": 50},
                "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 40},
            },
            (20, 30, 0, 20, 5),
            {"audio_input": 50, "audio_output": 40},
            id="spoken chat",
        ),
        pytest.param(
            {
                "input_tokens": 220,
                "output_tokens": 1056,
                "total_tokens": 1276,
                "input_tokens_details": {"text_tokens": 20, "image_tokens": 200},
                "output_tokens_details": {"image_tokens": 1056, "text_tokens": 0},
            },
            (20, 0, 0, 0, 0),
            {"image_input": 200, "image_output": 1056},
            id="an image drawn and edited",
        ),
        pytest.param(
            {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                "output_tokens": 45,
                "total_tokens": 59,
            },
            (4, 0, 0, 45, 0),
            {"audio_input": 10},
            id="a transcription in tokens",
        ),
        pytest.param(
            {"type": "duration", "seconds": 9.5},
            (0, 0, 0, 0, 0),
            {"seconds": Decimal("9.5")},
            id="a transcription in seconds",
        ),
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 1,
                "prompt_tokens_details": {
                    "cached_tokens": 10,
                    "cache_creation_input_tokens": 70,
                    "cache_creation": {"ephemeral_1h_input_tokens": 50},
                },
            },
            (20, 10, 20, 1, 0),
            {"cache_write_1h": 50},
            id="a relay of Anthropic with writes for an hour",
        ),
        pytest.param(
            {
                "prompt_tokens": 10,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 9},
                "completion_tokens_details": {"audio_tokens": 9, "reasoning_tokens": 3},
            },
            (0, 8, 0, 0, 0),
            {"audio_input": 2, "audio_output": 4},
            id="parts cut to their whole",
        ),
    ],
)
def test_openai_counts_everything_within_prompt_and_completion(
    body: dict[str, Any], counts: Classes, quantities: dict[str, Any]
) -> None:
    assert read_as(from_openai(body)) == (counts, quantities)


@pytest.mark.parametrize(
    ("body", "counts", "quantities"),
    [
        pytest.param(
            {"input_tokens": 56_322, "cache_read_input_tokens": 72_960, "output_tokens": 87},
            (56_322, 72_960, 0, 87, 0),
            {},
            id="cache read beside the input",
        ),
        pytest.param(
            {
                "input_tokens": 12,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": None,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
                "output_tokens": 9,
                "server_tool_use": {"web_search_requests": 3},
            },
            (12, 0, 100, 9, 0),
            {"cache_write_1h": 200, "searches": 3},
            id="both kinds of writes, and searches",
        ),
        pytest.param(
            {
                "input_tokens": 1,
                "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 7},
                "output_tokens": 10,
                "output_tokens_details": {"thinking_tokens": 8},
            },
            (1, 0, 5, 10, 8),
            {"cache_write_1h": 7},
            id="writes without their sum, and thinking",
        ),
    ],
)
def test_anthropic_counts_the_cache_beside_the_input(
    body: dict[str, Any], counts: Classes, quantities: dict[str, Any]
) -> None:
    assert read_as(from_anthropic(body)) == (counts, quantities)


@pytest.mark.parametrize(
    ("body", "counts", "quantities"),
    [
        pytest.param(
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 23,
                "thoughtsTokenCount": 185,
                "totalTokenCount": 217,
            },
            (9, 0, 0, 208, 185),
            {},
            id="thoughts beside the answer",
        ),
        pytest.param(
            {
                "promptTokenCount": 1000,
                "cachedContentTokenCount": 600,
                "toolUsePromptTokenCount": 50,
                "candidatesTokenCount": 10,
                "totalTokenCount": 1060,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 400},
                    {"modality": "AUDIO", "tokenCount": 600},
                ],
                "cacheTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 200},
                    {"modality": "AUDIO", "tokenCount": 400},
                ],
            },
            (250, 600, 0, 10, 0),
            {"audio_input": 200},
            id="cached within the prompt, audio in both",
        ),
        pytest.param(
            {
                "promptTokenCount": 5,
                "candidatesTokenCount": 1290,
                "totalTokenCount": 1295,
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
            },
            (5, 0, 0, 0, 0),
            {"image_output": 1290},
            id="an image as the answer",
        ),
        pytest.param({"promptTokenCount": 7}, (7, 0, 0, 0, 0), {}, id="embeddings"),
    ],
)
def test_gemini_counts_thoughts_beside_the_answer(
    body: dict[str, Any], counts: Classes, quantities: dict[str, Any]
) -> None:
    assert read_as(from_gemini(body)) == (counts, quantities)


@pytest.mark.parametrize("reader", [from_openai, from_anthropic, from_gemini])
@pytest.mark.parametrize("body", [{}, {"input_tokens": -4, "promptTokenCount": "9", "prompt_tokens": None}])
def test_nothing_usable_is_no_usage(reader: Any, body: dict[str, Any]) -> None:
    assert reader(body) is None


def test_a_usage_names_the_rules_its_counts_followed() -> None:
    found = (
        from_openai({"prompt_tokens": 1}),
        from_anthropic({"input_tokens": 1}),
        from_gemini({"promptTokenCount": 1}),
    )
    assert [read.semantics for read in found if read] == [OPENAI, ANTHROPIC, GEMINI]


count = st.integers(min_value=0, max_value=10**7)
garbage = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(count, max_size=2),
    count,
)
NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "image_tokens",
    "cache_write_tokens",
    "seconds",
    "type",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens",
    "web_search_requests",
    "thinking_tokens",
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "totalTokenCount",
    "cachedContentTokenCount",
    "toolUsePromptTokenCount",
    "prompt_tokens_details",
    "completion_tokens_details",
    "cache_creation",
    "server_tool_use",
    "promptTokensDetails",
    "cacheTokensDetails",
    "candidatesTokensDetails",
)
modality = st.fixed_dictionaries(
    {"modality": st.sampled_from(["AUDIO", "IMAGE", "TEXT"]), "tokenCount": garbage}
)
member = st.one_of(
    garbage,
    st.dictionaries(st.sampled_from(NAMES), garbage, max_size=4),
    st.lists(st.one_of(garbage, modality), max_size=3),
)
anything = st.dictionaries(st.sampled_from(NAMES), member, max_size=8)


@pytest.mark.parametrize("reader", [from_openai, from_anthropic, from_gemini])
@given(body=anything)
def test_no_class_is_ever_negative_whatever_the_provider_sends(reader: Any, body: dict[str, Any]) -> None:
    read = reader(body)
    if read is not None:
        assert min(read.input, read.cached_input, read.cache_write, read.output, read.reasoning) >= 0
        assert read.reasoning <= read.output
        assert set(read.quantities) <= set(QUANTITIES)
        assert all(amount > 0 for amount in read.quantities.values())
        assert read.total > 0 or "seconds" in read.quantities
        assert read.total == read.prompt + read.completion


@given(
    prompt=count,
    output=count,
    parts=st.tuples(count, count, count, count),
    told=st.tuples(count, count, count),
)
def test_the_classes_of_openai_add_up_to_its_total(
    prompt: int, output: int, parts: tuple[int, int, int, int], told: tuple[int, int, int]
) -> None:
    cached, written, audio, image = parts
    spoken, drawn, reasoning = told
    read = from_openai(
        {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {
                "cached_tokens": cached,
                "cache_write_tokens": written,
                "audio_tokens": audio,
                "image_tokens": image,
                "cache_creation": {"ephemeral_1h_input_tokens": written // 2},
            },
            "completion_tokens_details": {
                "audio_tokens": spoken,
                "image_tokens": drawn,
                "reasoning_tokens": reasoning,
            },
        }
    )
    assert (read.prompt, read.completion) == (prompt, output) if read else prompt + output == 0


@given(plain=count, read_=count, short=count, long=count, output=count)
def test_the_classes_of_anthropic_add_up_to_all_its_counts(
    plain: int, read_: int, short: int, long: int, output: int
) -> None:
    read = from_anthropic(
        {
            "input_tokens": plain,
            "cache_read_input_tokens": read_,
            "cache_creation_input_tokens": short + long,
            "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
            "output_tokens": output,
        }
    )
    everything = plain + read_ + short + long + output
    assert read.total == everything if read else everything == 0


@given(prompt=count, cached=count, tools=count, answer=count, thoughts=count, audio=count, spoken=count)
def test_the_classes_of_gemini_add_up_to_its_total(
    prompt: int, cached: int, tools: int, answer: int, thoughts: int, audio: int, spoken: int
) -> None:
    total = prompt + tools + answer + thoughts
    read = from_gemini(
        {
            "promptTokenCount": prompt,
            "cachedContentTokenCount": cached,
            "toolUsePromptTokenCount": tools,
            "candidatesTokenCount": answer,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": total,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": audio}],
            "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": spoken}],
        }
    )
    assert read.total == total if read else total == 0
