"""A stream that breaks off and is continued by another deployment, where its group allows that."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import openai
import orjson
import pytest

from tests.stack import COST, PRICE, Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_faults import grouped
from tests.whole.test_end_reasons import TABLE

MILLION = 1_000_000
ROW = "cut, resumed by another deployment"
# Of 60 words the first deployment sends 40.
ASK: Any = [{"role": "user", "content": "words=60 please"}]


def chunks_of(tenant: Tenant, name: str, **more: Any) -> list[Any]:
    options = {"stream_options": {"include_usage": True}, "messages": ASK, **more}
    return list(tenant.client().chat.completions.create(model=name, stream=True, **options))


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_stream_that_breaks_off_is_continued_as_the_same_answer(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-small", resume=True)
    chunks = chunks_of(tenant, name)
    assert len(text(chunks).split()) == 60
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert [
        chunk.choices[0].delta.role for chunk in chunks if chunk.choices and chunk.choices[0].delta.role
    ] == ["assistant"]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_each_chunk_of_a_continued_stream_names_who_wrote_it(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-small", resume=True)
    chunks = chunks_of(tenant, name)
    written = [chunk.model for chunk in chunks if text([chunk])]
    assert written == ["sim-cut"] * 40 + ["sim-small"] * 20
    # The one with the usage.
    assert chunks[-1].model == "sim-small"


@pytest.mark.parametrize(
    ("path", "body", "member", "end"),
    [
        ("/v1/responses", {"input": ASK[0]["content"]}, "response.output_text.delta", "response.completed"),
        ("/v1/messages", {"messages": ASK, "max_tokens": 100}, "content_block_delta", "message_stop"),
    ],
)
def test_a_translated_stream_is_continued_like_a_chat(
    stack: Stack, tenant: Tenant, slug: str, path: str, body: dict[str, Any], member: str, end: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-small", resume=True)
    with tenant.http() as http:
        lines = http.post(path, json={"model": name, "stream": True, **body}).text.split("\n")
    seen = [orjson.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [each["delta"] for each in seen if each["type"] == member]
    said = "".join(each if isinstance(each, str) else each["text"] for each in deltas)
    assert len(said.split()) == 60
    assert seen[-1]["type"] == end
    (event,) = events(tenant)
    assert [attempt.get("resumed", False) for attempt in event.attempts] == [False, True]


def test_the_tenant_pays_for_one_answer_and_both_providers_are_accounted_for(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-small", resume=True)
    usage = chunks_of(tenant, name)[-1].usage
    (event,) = events(tenant)
    broken, went_on = event.attempts
    assert (broken["reason"], went_on["reason"], went_on["resumed"]) == ("broken", "ok", True)
    assert (event.end_reason, event.usage_source) == (TABLE[ROW].reason, TABLE[ROW].usage)
    # What the first one sent is estimated, by events and their bytes; the other one said 20.
    seen = event.output_tokens - 20
    assert 40 <= seen <= 50
    assert (usage.prompt_tokens, usage.completion_tokens) == (event.input_tokens, event.output_tokens)
    assert (
        event.charge
        == (event.input_tokens * PRICE["input"] + event.output_tokens * PRICE["output"]) / MILLION
    )
    # The second provider was given 2 words and the 40 so far; the first is the operator's loss.
    billed = (42 * COST["input"] + 20 * COST["output"]) / MILLION
    wasted = Decimal(broken["wasted"])
    assert wasted > seen * COST["output"] / MILLION
    assert event.cost == billed + wasted


def test_a_bound_on_the_answer_holds_for_both_parts_together(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-small", resume=True)
    chunks = chunks_of(tenant, name, max_tokens=55)
    assert 40 < len(text(chunks).split()) <= 55
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"


def test_where_the_prefill_is_rejected_the_client_hears_of_the_break(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-400-prefill", resume=True)
    with pytest.raises(openai.APIError, match="broke in the middle"):
        chunks_of(tenant, name)
    (event,) = events(tenant)
    assert [attempt["reason"] for attempt in event.attempts] == ["broken", "refused"]
    assert (event.end_reason, event.deployment) == ("cut", f"{slug}-0-sim-cut")
    assert 40 <= event.output_tokens <= 50
    assert (
        event.charge
        == (event.input_tokens * PRICE["input"] + event.output_tokens * PRICE["output"]) / MILLION
    )


def test_a_continuation_may_break_off_and_be_continued_too(stack: Stack, tenant: Tenant, slug: str) -> None:
    # The second is cut 40 words after those it was given.
    name = grouped(stack, tenant, slug, "sim-cut", "sim-cut", "sim-small", resume=True)
    asked: Any = [{"role": "user", "content": "words=90 please"}]
    chunks = chunks_of(tenant, name, messages=asked)
    assert len(text(chunks).split()) == 90
    (event,) = events(tenant)
    assert [attempt.get("resumed", False) for attempt in event.attempts] == [False, True, True]
    assert event.output_tokens >= 90


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "tool", "parameters": {"type": "object"}}}]},
        {"n": 2},
        {"messages": [*ASK, {"role": "assistant", "content": "So"}]},
    ],
    ids=["tools", "choices", "prefill of the client's"],
)
def test_what_is_not_plain_text_is_not_continued(
    stack: Stack, tenant: Tenant, slug: str, more: dict[str, Any]
) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-small", resume=True)
    with pytest.raises(openai.APIError, match="broke in the middle"):
        chunks_of(tenant, name, **more)
    (event,) = events(tenant)
    assert [attempt["reason"] for attempt in event.attempts] == ["broken"]


def test_a_group_that_does_not_resume_tells_the_client_of_the_break(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    name = grouped(stack, tenant, slug, "sim-cut", "sim-small")
    with pytest.raises(openai.APIError, match="broke in the middle"):
        chunks_of(tenant, name)
