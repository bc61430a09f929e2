"""What a model group promises its clients, over real sockets: structured output, valid tool calls, and
parameters that a provider cannot honour.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import openai
import pytest
from pydantic import BaseModel
from pytest_django.plugin import DjangoDbBlocker

from routing.models import GroupDeployment, ModelGroup, Provider
from tests.conftest import COPIES, committing
from tests.dialects.player import Recording, running_player
from tests.dialects.shapes import chunk, lines
from tests.dialects.test_wire import ASK, JSON, Played
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import events, tenant
from tests.v1.test_errors import wait_for_model
from tests.whole.test_leaks import Caller, connected, message

__all__ = ("tenant",)


class Person(BaseModel):
    """What is asked for."""

    name: str
    age: int


VALID = '{"name": "Ann", "age": 7}'
FENCED = f"Here:\n```json\n{VALID}\n```"
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": Person.model_json_schema()}}


def plain(text: str | None, **message: Any) -> bytes:
    return json.dumps(
        {
            "id": "c1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, **message},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    ).encode()


def called(arguments: str) -> bytes:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return plain(None, tool_calls=[call])


def streamed(text: str) -> bytes:
    return lines(
        chunk({"role": "assistant", "content": text[:9]}), chunk({"content": text[9:]}), chunk({}, "stop")
    )


# name -> (kind, the group's settings, recording)
MODELS: dict[str, tuple[str, dict[str, Any], Recording]] = {
    "native": ("mistral", {}, Recording(plain(VALID), content_type=JSON)),
    "lowered": ("deepseek", {}, Recording(plain(VALID), content_type=JSON)),
    "fenced": ("deepseek", {}, Recording(plain(FENCED), content_type=JSON)),
    "fenced-stream": ("deepseek", {}, Recording(streamed(FENCED))),
    "native-stream": ("mistral", {}, Recording(streamed(VALID))),
    "fenced-to-fail": (
        "deepseek",
        {"structured_output": "fail"},
        Recording(plain(FENCED), content_type=JSON),
    ),
    "invalid": ("deepseek", {}, Recording(plain("No."), content_type=JSON)),
    "invalid-stream": ("deepseek", {}, Recording(streamed("No."))),
    "cut-stream": (
        "deepseek",
        {},
        Recording(lines(chunk({"role": "assistant", "content": "{"}), done=False)),
    ),
    "valid-at-last": (
        "deepseek",
        {"structured_output": "retry"},
        Recording(plain("No."), content_type=JSON, again=plain(VALID)),
    ),
    "never-valid": ("deepseek", {"structured_output": "retry"}, Recording(plain("No."), content_type=JSON)),
    "then-silent": ("deepseek", {"structured_output": "retry"}, Recording(plain("No."), content_type=JSON)),
    "tools": (
        "mistral",
        {"validate_tools": True, "structured_output": "retry"},
        Recording(called('{"name": 1}'), content_type=JSON, again=called(VALID)),
    ),
    "strict": ("ollama", {"unsupported_params": "strict"}, Recording(plain("a"), content_type=JSON)),
    "drop": ("moonshot", {"unsupported_params": "drop"}, Recording(plain("a"), content_type=JSON)),
}


# Three tokens in at $1.00 a million and two out at $4.00: what each answer costs that says what it used.
COSTS = Decimal("0.000011")
# The same at the group's price, twice as high.
WORTH = Decimal("0.000022")


@pytest.fixture(scope="module")
def played(stack: Stack, django_db_blocker: DjangoDbBlocker) -> Iterator[Played]:
    prefix = f"exact-{uuid4().hex[:6]}"
    with running_player({name: recording for name, (_, _, recording) in MODELS.items()}) as player:
        with committing(django_db_blocker, COPIES["stack"]):
            for name, (kind, settings, _) in MODELS.items():
                model = f"{prefix}-{name}"
                Provider.objects.create(name=model, kind=kind, base_url=player.base_url(name))
                group: ModelGroup = stack.group(model)
                ModelGroup.objects.filter(pk=group.pk).update(**settings)
                deployment = stack.deployment(model, "their-model", provider=model)
                GroupDeployment.objects.create(group=group, deployment=deployment)
                if name == "then-silent":
                    silent = stack.deployment(f"{model}-2", "sim-silence")
                    GroupDeployment.objects.create(group=group, deployment=silent, priority=9)
        yield Played(player, prefix)


@pytest.fixture
def client(played: Played, tenant: Tenant) -> openai.OpenAI:
    with tenant.http() as http:
        wait_for_model(http, played.model(list(MODELS)[-1]))
    return tenant.client()


@pytest.mark.parametrize(
    ("name", "word"),
    [("native", "native"), ("lowered", "lowered"), ("fenced", "repaired"), ("valid-at-last", "retried")],
)
def test_parse_gets_what_was_asked_for_and_is_told_how(
    played: Played, client: openai.OpenAI, tenant: Tenant, name: str, word: str
) -> None:
    raw = client.chat.completions.with_raw_response.parse(
        model=played.model(name), messages=ASK, response_format=Person
    )
    assert raw.headers["x-weir-structured-output"] == word
    assert raw.parse().choices[0].message.parsed == Person(name="Ann", age=7)
    (event,) = events(tenant)
    # The tenant pays for the answer it has, the provider asks for each that it made.
    assert (event.charge, event.cost) == (WORTH, COSTS * len(event.attempts))
    wasted = [Decimal(attempt.get("wasted", "0")) for attempt in event.attempts]
    assert wasted == ([COSTS, 0] if word == "retried" else [0])


def test_a_stream_is_held_until_it_is_valid(played: Played, client: openai.OpenAI, tenant: Tenant) -> None:
    with client.chat.completions.stream(
        model=played.model("fenced-stream"), messages=ASK, response_format=Person
    ) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Person(name="Ann", age=7)
    (event,) = events(tenant)
    assert (event.end_reason, event.status) == ("completed", 200)


@pytest.mark.parametrize(("name", "word"), [("fenced-stream", "repaired"), ("native-stream", "native")])
def test_a_stream_tells_how_too(
    played: Played, client: openai.OpenAI, tenant: Tenant, name: str, word: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}}
    ask = {"model": played.model(name), "messages": ASK, "stream": True, "response_format": form}
    with tenant.http() as http:
        answer = http.post("/v1/chat/completions", json=ask)
    assert answer.headers["x-weir-structured-output"] == word
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("name", "attempts"),
    [("fenced-to-fail", 1), ("invalid", 1), ("invalid-stream", 1), ("never-valid", 2)],
)
def test_an_answer_that_cannot_be_made_valid_is_an_error_that_the_tenant_does_not_pay(
    played: Played, client: openai.OpenAI, tenant: Tenant, name: str, attempts: int
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model=played.model(name),
            messages=ASK,
            stream=name.endswith("stream"),
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "p", "schema": Person.model_json_schema()},
            },
        )
    assert (caught.value.status_code, caught.value.code) == (502, "invalid_structured_output")
    assert caught.value.response.headers["x-should-retry"] == "false"
    (event,) = events(tenant)
    assert (event.end_reason, event.charge) == ("provider_error", 0)
    assert [attempt["reason"] for attempt in event.attempts] == ["invalid_output"] * attempts
    wasted = [Decimal(attempt["wasted"]) for attempt in event.attempts]
    assert event.cost == sum(wasted)
    # A stream that does not say what it used is asked for all the same.
    assert min(wasted) > 0 if name.endswith("stream") else wasted == [COSTS] * attempts


def test_who_leaves_after_an_invalid_answer_does_not_pay_for_it(
    played: Played, tenant: Tenant, slug: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}}
    words = {"role": "user", "content": "silence_s=30"}
    ask = {"model": played.model("then-silent"), "messages": [words], "response_format": form, "user": slug}
    with connected(tenant.stack) as leaving:
        leaving.sendall(message(Caller("", tenant.secret, 0), json.dumps(ask).encode()))
        # The third to be asked, after two whose answers were not valid.
        wait_until(lambda: bool(tenant.stack.simulator.log(slug)))
    (event,) = events(tenant)
    assert (event.end_reason, event.usage_source, event.output_tokens) == ("client_gone", "estimated", 0)
    reasons = [attempt["reason"] for attempt in event.attempts]
    assert reasons[:2] == ["invalid_output"] * 2
    assert event.charge == event.input_tokens * Decimal("0.000002")
    assert event.cost == 2 * COSTS + event.input_tokens * Decimal("0.000001")


def test_a_held_stream_that_breaks_off_has_told_the_client_nothing(
    played: Played, client: openai.OpenAI, tenant: Tenant
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model=played.model("cut-stream"),
            messages=ASK,
            stream=True,
            response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": {}}},
        )
    assert (caught.value.status_code, caught.value.code) == (502, "provider_error")


def test_tools_that_are_called_wrongly_are_called_again(
    played: Played, client: openai.OpenAI, tenant: Tenant
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=played.model("tools"), messages=ASK, tools=[TOOL]
    )
    (call,) = raw.parse().choices[0].message.tool_calls or []
    assert call.function.arguments == VALID  # type: ignore[union-attr]  # a function's call
    assert (raw.headers["x-weir-structured-output"], raw.headers["x-weir-attempts"]) == ("retried", "2")
    (event,) = events(tenant)
    assert [attempt["reason"] for attempt in event.attempts] == ["invalid_output", "ok"]


def test_a_strict_group_refuses_what_its_provider_cannot_honour(
    played: Played, client: openai.OpenAI, tenant: Tenant
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=played.model("strict"), messages=ASK, logit_bias={"1": 2})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "logit_bias")
    assert "Ollama" in caught.value.message
    assert "strict" not in played.player.asked


def test_a_dropping_group_leaves_out_what_its_provider_would_bound(
    played: Played, client: openai.OpenAI, tenant: Tenant
) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model=played.model("drop"), messages=ASK, temperature=1.5, top_p=0.5, max_tokens=9
    )
    assert answer.headers["x-weir-dropped-params"] == "temperature"
    asked = played.player.asked["drop"]
    assert asked == {"model": "their-model", "messages": ASK, "top_p": 0.5, "max_tokens": 9}
    (event,) = events(tenant)
    assert event.attempts[0]["dropped"] == ["temperature"]
