"""Counts the tokens of a request whose provider reported none, with OpenAI's own encodings.

Exact for text with the models those encodings are of; for others the newer encoding is the best guess
there is without their tokenizers. What an encoding cannot see (pictures, sound) stays an estimate.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any, Protocol

import orjson

from billing.token_usage import COUNTED, ESTIMATED, TokenUsage
from gateway.v1.facts import Facts
from gateway.v1.stream import MOST_KEPT_BYTES, StreamScanner, messages_of

O200K, CL100K = "o200k_base", "cl100k_base"
# The models of the older encoding by the beginnings of their names, and of those the ones that are not:
# https://github.com/openai/tiktoken, tiktoken/model.py.
_CL100K_MODELS = ("gpt-4", "gpt-3.5", "gpt-35", "text-embedding-3", "text-embedding-ada-002")
_O200K_MODELS = ("gpt-4o", "gpt-4.1", "gpt-4.5")
# What a message costs besides its text, what a name in it costs, and the start of the answer: OpenAI's
# cookbook, "How to count tokens with tiktoken".
PER_MESSAGE, PER_NAME, PER_ANSWER = 3, 1, 3
# Bytes of text that are counted; of more, the rest is taken to be like the beginning.
MOST_BYTES = 1024 * 1024

_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Told:
    """What can be counted of a whole answer: what was asked, and the messages it is. ``sums_up``: thinking in
    them is at most a summary of what the provider counts."""

    facts: Facts
    messages: Iterable[dict[str, Any]]
    sums_up: bool = False


class Encoding(Protocol):
    """Counts tokens of text. Safe to use from several threads."""

    def count(self, text: str) -> int:
        """How many tokens ``text`` is; special tokens in it are plain text."""


def encoding_of(model: str) -> str:
    """The name of the encoding of ``model``, as its provider names it (with or without an owner before a slash)."""
    name = model.rpartition("/")[2].lower()
    return CL100K if name.startswith(_CL100K_MODELS) and not name.startswith(_O200K_MODELS) else O200K


@cache
def _bindings() -> Any:
    """The tokenizer of the package bpe-openai, without the tables that its Python part keeps beside it: they
    would take 70 MB more of every worker, and only decoding needs them."""
    package = find_spec("bpe_openai")
    assert package is not None and package.submodule_search_locations  # noqa: S101, PT018  # it is installed
    found = PathFinder.find_spec("_bindings", package.submodule_search_locations)
    assert found is not None and found.loader is not None  # noqa: S101, PT018  # it is an extension module
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


@cache
def _loaded(name: str) -> Encoding:
    encoding: Encoding = _bindings().tokenizer_for_encoding(name)
    return encoding


def encoding(name: str) -> Encoding:
    """An encoding by its name, loaded once a process (a tenth of a second, 35 MB)."""
    with _loading:
        return _loaded(name)


def text_tokens(text: str, by: Encoding) -> tuple[int, bool]:
    """How many tokens ``text`` is, and whether all of it was counted."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= MOST_BYTES:
        return by.count(raw.decode()), True
    counted = by.count(raw[:MOST_BYTES].decode("utf-8", "ignore"))
    return -(-counted * len(raw) // MOST_BYTES), False


def prompt_tokens(facts: Facts, by: Encoding) -> tuple[int, bool] | None:
    """Tokens of the prompt, and whether that is exact; None if it holds what no encoding sees."""
    body = facts.body
    if facts.endpoint == "embeddings":
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        if all(isinstance(text, int) for text in texts):
            return len(texts), True
        total = [text_tokens(text, by) if isinstance(text, str) else (len(text), True) for text in texts]
        return sum(count for count, _ in total), all(exact for _, exact in total)
    messages = body.get("messages")
    count, exact = PER_ANSWER, True
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        count += PER_MESSAGE + (PER_NAME if "name" in message else 0)
        texts = list(_texts_of(message))
        if any(text is None for text in texts):
            return None
        found, whole = text_tokens("".join(filter(None, texts)), by)
        count, exact = count + found, exact and whole
        # The role and the name stand apart from the text.
        count += sum(by.count(str(message[name])) for name in ("role", "name") if message.get(name))
    if tools := body.get("tools"):
        # How OpenAI writes tools into a prompt is not public; their JSON is near it.
        count, exact = count + by.count(orjson.dumps(tools).decode()), False
    return count, exact


def _texts_of(message: dict[str, Any]) -> Iterator[str | None]:
    """The texts of a message; None stands for what is not text."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else None
        yield text if isinstance(text, str) else None
    yield from _calls(message)


def _calls(message: dict[str, Any]) -> Iterator[str]:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        for name in ("name", "arguments"):
            text = function.get(name) if isinstance(function, dict) else None
            if isinstance(text, str):
                yield text


def said(messages: Iterable[dict[str, Any]]) -> str:
    """What the model wrote, in answers' messages or in streams' deltas: text, reasoning, tool calls."""
    texts: list[str] = []
    for message in messages:
        # Some providers send the same reasoning under both names.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        found = (reasoning, message.get("content"), message.get("refusal"))
        texts.extend(text for text in found if isinstance(text, str))
        texts.extend(_calls(message))
    return "".join(texts)


def messages_of_body(body: bytes) -> Iterator[dict[str, Any]]:
    """The messages of a plain answer, which is read when the first is asked for."""
    yield from messages_of(orjson.loads(body), "message")


def count_usage(facts: Facts, model: str, messages: Iterable[dict[str, Any]]) -> TokenUsage:
    """What was used, counted from the request and from what the model wrote.

    Never more than what was reserved for: the counts keep to ``facts``' bounds. The source is ``counted``,
    or ``estimated`` where a part could not be counted.
    """
    by = encoding(encoding_of(model))
    prompt = prompt_tokens(facts, by)
    output, whole = text_tokens(said(messages), by)
    if facts.output_bound is not None:
        output = min(output, facts.output_bound)
    count, exact = (facts.input_tokens, False) if prompt is None else prompt
    return TokenUsage(
        min(count, facts.input_bound), 0, 0, output, 0, COUNTED if exact and whole else ESTIMATED
    )


async def counted_stream(facts: Facts, model: str, scanner: StreamScanner) -> TokenUsage:
    """``count_usage`` of what a stream brought so far, off the event loop."""

    usage = await asyncio.to_thread(count_usage, facts, model, scanner.deltas())
    if scanner.bytes < MOST_KEPT_BYTES:
        return usage
    return replace(usage, output=max(usage.output, scanner.estimated_output_tokens), source=ESTIMATED)


async def counted_answer(facts: Facts, model: str, body: bytes) -> tuple[TokenUsage, bytes]:
    """``count_usage`` of a plain answer, off the event loop, and the answer with that usage in it."""

    def count() -> tuple[TokenUsage, bytes]:
        answer = orjson.loads(body)
        usage = count_usage(facts, model, messages_of(answer, "message"))
        shown = shown_usage(usage)
        if facts.endpoint == "embeddings":
            del shown["completion_tokens"]
        return usage, orjson.dumps({**answer, "usage": shown})

    return await asyncio.to_thread(count)


def shown_usage(usage: TokenUsage) -> dict[str, Any]:
    """Usage of ours as OpenAI shows it."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
    }
