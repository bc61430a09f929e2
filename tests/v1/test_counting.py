"""Tokens counted where a provider reports none, against counts worked out with OpenAI's own tokenizer page."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.token_usage import COUNTED, ESTIMATED
from gateway.v1.counting import (
    CL100K,
    MOST_BYTES,
    O200K,
    count_usage,
    encoding,
    encoding_of,
    prompt_tokens,
    text_tokens,
)
from gateway.v1.facts import Facts, chat_facts, embedding_facts


def chat(messages: list[dict[str, Any]], **more: Any) -> Facts:
    body = {"model": "m", "messages": messages, **more}
    return Facts("chat.completions", body, "m", input_tokens=99, input_bound=10_000)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-5.4-mini", O200K),
        ("openai/gpt-4o-2024-11-20", O200K),
        ("gpt-4.1-nano", O200K),
        ("o4-mini", O200K),
        ("gpt-4-0613", CL100K),
        ("gpt-3.5-turbo", CL100K),
        ("text-embedding-3-small", CL100K),
        ("claude-sonnet-5", O200K),
    ],
)
def test_a_model_is_counted_with_the_encoding_it_was_made_with(model: str, name: str) -> None:
    assert encoding_of(model) == name


@pytest.mark.parametrize(
    ("name", "text", "tokens"),
    [
        # From the examples of OpenAI's cookbook.
        (CL100K, "antidisestablishmentarianism", 6),
        (O200K, "antidisestablishmentarianism", 6),
        (CL100K, "2 + 2 = 4", 7),
        (O200K, "2 + 2 = 4", 7),
        (CL100K, "お誕生日おめでとう", 9),
        (O200K, "お誕生日おめでとう", 8),
        (CL100K, "<|endoftext|>", 7),
    ],
)
def test_text_is_counted_as_openai_counts_it(name: str, text: str, tokens: int) -> None:
    assert text_tokens(text, encoding(name)) == (tokens, True)


def test_a_chat_costs_three_tokens_a_message_and_three_for_the_answer() -> None:
    messages = [{"role": "system", "content": "2 + 2 = 4"}, {"role": "user", "content": "2 + 2 = 4"}]
    # 3 for the answer; for each message 3, 1 for its role and 7 for its text.
    assert prompt_tokens(chat(messages), encoding(CL100K)) == (3 + 2 * (3 + 1 + 7), True)


def test_a_name_costs_one_token_besides_its_own() -> None:
    messages = [{"role": "user", "name": "user", "content": "2 + 2 = 4"}]
    assert prompt_tokens(chat(messages), encoding(CL100K)) == (3 + 3 + 1 + 1 + 1 + 7, True)


def test_tools_make_a_count_an_estimate() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    usage = count_usage(chat([{"role": "user", "content": "hi"}], tools=tools), "gpt-4", [])
    assert usage.source == ESTIMATED


def test_a_picture_leaves_the_prompt_to_its_estimate() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    usage = count_usage(chat([{"role": "user", "content": [picture]}]), "gpt-4o", [{"content": "hi"}])
    assert (usage.prompt, usage.completion, usage.source) == (99, 1, ESTIMATED)


def test_what_the_model_wrote_is_text_reasoning_and_calls() -> None:
    call = {"index": 0, "function": {"name": "add", "arguments": ""}}
    told: list[dict[str, Any]] = [
        {"reasoning_content": "2 + 2", "reasoning": "2 + 2"},
        {"content": " = 4"},
        {"tool_calls": [call]},
    ]
    usage = count_usage(chat([{"role": "user", "content": "hi"}]), "gpt-4", told)
    # "2 + 2 = 4" and "add".
    assert (usage.completion, usage.source) == (8, COUNTED)


def test_an_embedding_counts_its_texts_and_takes_tokens_as_they_are() -> None:
    by = encoding(CL100K)
    assert prompt_tokens(embedding_facts(b'{"model":"m","input":["2 + 2 = 4","hi"]}', ""), by) == (8, True)
    assert prompt_tokens(embedding_facts(b'{"model":"m","input":[1,2,3]}', ""), by) == (3, True)
    assert prompt_tokens(embedding_facts(b'{"model":"m","input":[[1,2],[3]]}', ""), by) == (3, True)


def test_a_very_long_text_is_counted_by_its_beginning() -> None:
    count, whole = text_tokens(" hi" * MOST_BYTES, encoding(O200K))
    assert not whole
    assert count == pytest.approx(MOST_BYTES, rel=0.01)


def test_a_count_keeps_to_what_was_reserved() -> None:
    facts = chat([{"role": "user", "content": "2 + 2 = 4"}])
    facts.input_bound, facts.output_bound = 5, 2
    usage = count_usage(facts, "gpt-4", [{"content": "2 + 2 = 4"}])
    assert (usage.prompt, usage.completion) == (5, 2)


@given(st.text())
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    count, whole = text_tokens(text, encoding(O200K))
    assert whole
    assert count <= len(text.encode())


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_the_count_of_a_chat_never_exceeds_its_bound(texts: list[str]) -> None:
    import orjson

    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    raw = orjson.dumps(body)
    facts = chat_facts(raw, "")
    found = prompt_tokens(facts, encoding(O200K))
    assert found is not None
    assert found[0] <= facts.input_bound == len(raw)
