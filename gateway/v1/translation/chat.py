"""Reading a chat answer: its one choice, its end, its usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from billing.token_usage import ESTIMATED, TokenUsage, from_openai
from gateway.v1.facts import BYTES_PER_TOKEN, Facts

Object = dict[str, Any]


def first_choice(answer: Mapping[str, Any]) -> Object | None:
    """The first choice of an answer or a chunk; None for a chunk without one."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else None


def usage_of(answer: Mapping[str, Any], facts: Facts, written: int) -> TokenUsage:
    """The usage that an answer or a last chunk reports; an estimate where it reports none, of the
    request and of the ``written`` characters."""
    usage = answer.get("usage")
    found = from_openai(usage) if isinstance(usage, dict) else None
    return found or TokenUsage(facts.input_tokens, 0, 0, written // BYTES_PER_TOKEN, 0, ESTIMATED)


def event(name: str, data: Object) -> bytes:
    """One server-sent event with its name."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
