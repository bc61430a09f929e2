"""The official SDKs against every kind of provider, as each is on the wire: one table of calls, one answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from pytest_django.plugin import DjangoDbBlocker

from routing.kinds import KINDS
from routing.models import GroupDeployment, Provider
from tests.clients.node_sdk import call
from tests.clients.wire import CITY, COMPLETION, PROMPT, SAY_CALL, SAY_CITY, SAY_TEXT, TEXT, running_wire
from tests.conftest import COPIES, committing
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance, events
from tests.v1.test_errors import wait_for_model


class City(BaseModel):
    """What is asked for as structured output, and as the arguments of a tool."""

    city: str


WEATHER: Any = openai.pydantic_function_tool(City, name="weather")
FLAT: Any = {"type": "function", **WEATHER["function"]}
THEIRS: Any = {"name": "weather", "input_schema": City.model_json_schema()}
USED = (PROMPT, COMPLETION)
ZURICH = json.loads(CITY)


def said(word: str) -> Any:
    return [{"role": "user", "content": word}]


def of_chat(answer: Any) -> Any:
    """What a chat completion tells: text, parsed object or call, then its end and its usage."""
    (choice,) = answer.choices
    calls = [
        (one.function.name, json.loads(one.function.arguments)) for one in choice.message.tool_calls or []
    ]
    parsed = getattr(choice.message, "parsed", None)
    told = calls or (parsed.model_dump() if parsed is not None else choice.message.content)
    used = answer.usage and (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    return told, choice.finish_reason, used


def of_response(answer: Any) -> Any:
    calls = [(one.name, json.loads(one.arguments)) for one in answer.output if one.type == "function_call"]
    parsed = getattr(answer, "output_parsed", None)
    told = calls or (parsed.model_dump() if parsed is not None else answer.output_text)
    return told, answer.status, (answer.usage.input_tokens, answer.usage.output_tokens)


def of_message(answer: Any) -> Any:
    calls = [(one.name, one.input) for one in answer.content if one.type == "tool_use"]
    told = calls or "".join(one.text for one in answer.content if one.type == "text")
    return told, answer.stop_reason, (answer.usage.input_tokens, answer.usage.output_tokens)


CALLED = [("weather", ZURICH)]
COUNTED: Any = {"stream_options": {"include_usage": True}}


class Case(NamedTuple):
    """One call: of which helper with what, how its answer is read, and what it must tell."""

    helper: Callable[[Any], Any]
    asked: dict[str, Any]
    read: Callable[[Any], Any]
    expected: Any
    # The method of a stream that gives its whole answer; empty: the call gives it.
    final: str = ""


OPENAI = {
    "create": Case(
        lambda sdk: sdk.chat.completions.create, {"messages": said(SAY_TEXT)}, of_chat, (TEXT, "stop", USED)
    ),
    "parse": Case(
        lambda sdk: sdk.chat.completions.parse,
        {"messages": said(SAY_CITY), "response_format": City},
        of_chat,
        (ZURICH, "stop", USED),
    ),
    "parse a call": Case(
        lambda sdk: sdk.chat.completions.parse,
        {"messages": said(SAY_CALL), "tools": [WEATHER]},
        of_chat,
        (CALLED, "tool_calls", USED),
    ),
    "stream": Case(
        lambda sdk: sdk.chat.completions.stream,
        {"messages": said(SAY_TEXT), **COUNTED},
        of_chat,
        (TEXT, "stop", USED),
        "get_final_completion",
    ),
    "stream a call": Case(
        lambda sdk: sdk.chat.completions.stream,
        {"messages": said(SAY_CALL), "tools": [WEATHER], **COUNTED},
        of_chat,
        (CALLED, "tool_calls", USED),
        "get_final_completion",
    ),
    "stream an object": Case(
        lambda sdk: sdk.chat.completions.stream,
        {"messages": said(SAY_CITY), "response_format": City, **COUNTED},
        of_chat,
        (ZURICH, "stop", USED),
        "get_final_completion",
    ),
    "response": Case(
        lambda sdk: sdk.responses.create, {"input": SAY_TEXT}, of_response, (TEXT, "completed", USED)
    ),
    "parse a response": Case(
        lambda sdk: sdk.responses.parse,
        {"input": SAY_CITY, "text_format": City},
        of_response,
        (ZURICH, "completed", USED),
    ),
    "stream a response": Case(
        lambda sdk: sdk.responses.stream,
        {"input": SAY_TEXT},
        of_response,
        (TEXT, "completed", USED),
        "get_final_response",
    ),
    "stream a response with a call": Case(
        lambda sdk: sdk.responses.stream,
        {"input": SAY_CALL, "tools": [FLAT]},
        of_response,
        (CALLED, "completed", USED),
        "get_final_response",
    ),
}
ANTHROPIC = {
    "create": Case(
        lambda sdk: sdk.messages.create, {"messages": said(SAY_TEXT)}, of_message, (TEXT, "end_turn", USED)
    ),
    "stream": Case(
        lambda sdk: sdk.messages.stream,
        {"messages": said(SAY_TEXT)},
        of_message,
        (TEXT, "end_turn", USED),
        "get_final_message",
    ),
    "stream a call": Case(
        lambda sdk: sdk.messages.stream,
        {"messages": said(SAY_CALL), "tools": [THEIRS]},
        of_message,
        (CALLED, "tool_use", USED),
        "get_final_message",
    ),
}
# What Node tells of its own calls, by their names in calls.mjs.
NODE = {
    "plain": [TEXT, "stop"],
    "parsed": [ZURICH, "stop"],
    "streamed": [TEXT, "stop"],
    "streamedCall": [ZURICH, "tool_calls"],
    "response": [TEXT, "completed"],
    "responseParsed": [ZURICH, "completed"],
    "responseStreamed": [TEXT, "completed"],
    "responseStreamedCall": [ZURICH, "completed"],
}


class Everybody(NamedTuple):
    """A tenant, and the model that each kind plays."""

    tenant: Tenant
    models: dict[str, str]


@pytest.fixture(scope="module")
def everybody(stack: Stack, django_db_blocker: DjangoDbBlocker) -> Iterator[Everybody]:
    prefix = f"every-{uuid4().hex[:6]}"
    with running_wire() as url:
        with committing(django_db_blocker, COPIES["stack"]):
            for kind in KINDS:
                name = f"{prefix}-{kind}"
                Provider.objects.create(name=name, kind=kind, base_url=f"{url}/{kind}/v1")
                deployment = stack.deployment(name, "their-model", provider=name)
                GroupDeployment.objects.create(group=stack.group(name), deployment=deployment)
            made = stack.tenant(prefix)
            with made.http() as http:
                wait_for_model(http, f"{prefix}-simulator")
        models = {kind: f"{prefix}-{kind}" for kind in KINDS}
        yield Everybody(made, models)


def of_every_kind() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", KINDS)


def outcome(sdk: Any, case: Case, **asked: Any) -> Any:
    """What one call tells, with a synchronous client."""
    made = case.helper(sdk)(**case.asked, **asked)
    if not case.final:
        return case.read(made)
    with made as stream:
        return case.read(getattr(stream, case.final)())


async def awaited(sdk: Any, case: Case, **asked: Any) -> Any:
    """The same with an asynchronous one."""
    made = case.helper(sdk)(**case.asked, **asked)
    if not case.final:
        return case.read(await made)
    async with made as stream:
        return case.read(await getattr(stream, case.final)())


@of_every_kind()
def test_openais_sdk_gets_the_same_of_every_kind(everybody: Everybody, kind: str) -> None:
    sdk: OpenAI = everybody.tenant.client()
    told = {name: outcome(sdk, case, model=everybody.models[kind]) for name, case in OPENAI.items()}
    assert told == {name: case.expected for name, case in OPENAI.items()}


@of_every_kind()
def test_openais_asynchronous_sdk_gets_the_same_of_every_kind(everybody: Everybody, kind: str) -> None:
    async def all_of_them() -> dict[str, Any]:
        url, secret = f"{everybody.tenant.stack.url}/v1", everybody.tenant.secret
        async with AsyncOpenAI(base_url=url, api_key=secret, max_retries=0, timeout=30) as sdk:
            found = [awaited(sdk, case, model=everybody.models[kind]) for case in OPENAI.values()]
            return dict(zip(OPENAI, await asyncio.gather(*found), strict=True))

    assert asyncio.run(all_of_them()) == {name: case.expected for name, case in OPENAI.items()}


@of_every_kind()
def test_anthropics_sdk_gets_the_same_of_every_kind(everybody: Everybody, kind: str) -> None:
    options: Any = {
        "base_url": everybody.tenant.stack.url,
        "api_key": everybody.tenant.secret,
        "max_retries": 0,
        "timeout": 30,
    }
    asked: Any = {"model": everybody.models[kind], "max_tokens": 50}

    async def all_of_them() -> dict[str, Any]:
        async with AsyncAnthropic(**options) as sdk:
            return {name: await awaited(sdk, case, **asked) for name, case in ANTHROPIC.items()}

    expected = {name: case.expected for name, case in ANTHROPIC.items()}
    assert {
        name: outcome(Anthropic(**options), case, **asked) for name, case in ANTHROPIC.items()
    } == expected
    assert asyncio.run(all_of_them()) == expected


@pytest.fixture(scope="module")
def told_by_node(everybody: Everybody) -> Any:
    """What every call in Node told of every kind: one process for all."""
    return call(everybody.tenant, "everyKind", model=json.dumps(list(everybody.models.values())))


@of_every_kind()
def test_openais_sdk_for_node_gets_the_same_of_every_kind(
    everybody: Everybody, told_by_node: Any, kind: str
) -> None:
    assert told_by_node[everybody.models[kind]] == NODE


def test_all_of_that_was_accounted_for(everybody: Everybody) -> None:
    found = events(everybody.tenant)
    assert {(event.end_reason, event.status) for event in found} == {("completed", 200)}
    assert {(event.input_tokens, event.output_tokens, event.usage_source) for event in found} == {
        (*USED, "reported")
    }
    books_balance(everybody.tenant)
