"""What the simulator answers to a chat request, before anything is sent."""

import json
import re
from dataclasses import dataclass
from typing import Any

import orjson

from routing.simulator.dice import Dice
from routing.simulator.instance import instance_of
from routing.simulator.prompt import ChatPrompt, count_words

LABEL = "[simulated]"
FINGERPRINT = "simulator"
THOUGHT_WORDS = 8  # of a thinking whose length nobody set
ARGUMENT_PIECE = 12  # characters of arguments in one streamed piece

_VOCABULARY = (
    "a",
    "calm",
    "river",
    "carries",
    "small",
    "boats",
    "past",
    "green",
    "hills",
    "while",
    "light",
    "moves",
    "over",
    "quiet",
    "fields",
    "and",
    "old",
    "stone",
    "bridges",
)

_WITH_SPACE = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Piece:
    """One streamed delta of one choice, already as JSON, and how many words it adds to the
    tokens counted."""

    choice: int
    delta: bytes
    words: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One finished choice. `message` is the plain answer's message; `pieces` the same answer as
    streamed deltas, the first (role) delta apart in `opening`."""

    message: dict[str, Any]
    opening: bytes
    pieces: tuple[Piece, ...]
    finish: str
    reasoning: int
    words: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The whole answer: its id, choices and usage counts (tokens)."""

    identity: str
    choices: tuple[Choice, ...]
    usage: dict[str, Any]


def compose(prompt: ChatPrompt, seed: int) -> Reply:
    """The answer to a request; the same seed and request give the same answer."""
    identity = f"chatcmpl-sim{Dice(seed).token(24)}"
    choices = tuple(_choice(prompt, seed + index, index) for index in range(prompt.choices))
    completion = sum(choice.words + choice.reasoning for choice in choices)
    reasoning = sum(choice.reasoning for choice in choices)
    return Reply(identity, choices, _usage(prompt, completion, reasoning))


def _usage(prompt: ChatPrompt, completion: int, reasoning: int) -> dict[str, Any]:
    directives = prompt.behaviour.directives
    read: dict[str, int] = {"cached_tokens": min(directives.cached, prompt.words)}
    if directives.cache_write is not None:
        read["cache_write_tokens"] = min(directives.cache_write, prompt.words - read["cached_tokens"])
    read["audio_tokens"] = min(directives.audio, prompt.words - sum(read.values()))
    return {
        "prompt_tokens": prompt.words,
        "completion_tokens": completion,
        "total_tokens": prompt.words + completion,
        "prompt_tokens_details": read,
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _choice(prompt: ChatPrompt, seed: int, index: int) -> Choice:
    if prompt.called:
        return _tool_calls(prompt, seed, index)
    limit = prompt.limit
    reasoning = prompt.behaviour.directives.reasoning
    if prompt.thinks:
        reasoning = reasoning or THOUGHT_WORDS
    if prompt.schema is None:
        parts = _text(prompt.behaviour.words, seed)[prompt.prefill or 0 :]
    else:
        # The standard library's separators leave spaces, so that the JSON has words to stream.
        parts = _WITH_SPACE.findall(json.dumps(instance_of(prompt.schema, seed), ensure_ascii=False))
    finish = "stop"
    if limit is not None and reasoning + len(parts) > limit:
        reasoning = min(reasoning, limit)
        parts = parts[: limit - reasoning]
        finish = "length"
    if prompt.behaviour.fault == "filtered":
        after = prompt.behaviour.directives.after
        parts = parts[: len(parts) // 2 if after is None else after]
        finish = "content_filter"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(parts),
        "refusal": None,
        "annotations": [],
    }
    # Shown thinking is told in words too, and counted as reasoning alone.
    thoughts = _text(reasoning, seed + 1) if prompt.thinks else []
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    pieces = [Piece(index, b'{"reasoning_content":' + orjson.dumps(part) + b"}", 0) for part in thoughts]
    pieces += [Piece(index, b'{"content":' + orjson.dumps(part) + b"}", 1) for part in parts]
    return Choice(
        message=message,
        opening=b'{"role":"assistant","content":"","refusal":null}',
        pieces=tuple(pieces),
        finish=finish,
        reasoning=reasoning,
        words=len(parts),
    )


def _text(words: int, seed: int) -> list[str]:
    """`words` words, the first being the label; each but the first brings its space."""
    if words == 0:
        return []
    dice = Dice(seed)
    return [LABEL, *(" " + dice.pick(_VOCABULARY) for _ in range(words - 1))]


def _tool_calls(prompt: ChatPrompt, seed: int, index: int) -> Choice:
    calls: list[dict[str, Any]] = []
    pieces: list[Piece] = []
    words = 0
    for place, tool in enumerate(prompt.called):
        dice = Dice(seed + 1_000_003 * (place + 1))
        made = instance_of(tool.parameters, dice.throw()) if tool.parameters else {}
        arguments = json.dumps(made if isinstance(made, dict) else {}, ensure_ascii=False)
        identity = f"call_sim{dice.token(20)}"
        head = {
            "index": place,
            "id": identity,
            "type": "function",
            "function": {"name": tool.name, "arguments": ""},
        }
        calls.append(
            {"id": identity, "type": "function", "function": {"name": tool.name, "arguments": arguments}}
        )
        pieces.append(Piece(index, orjson.dumps({"tool_calls": [head]}), count_words(tool.name)))
        size = count_words(arguments)
        words += count_words(tool.name) + size
        for start in range(0, len(arguments), ARGUMENT_PIECE):
            text = arguments[start : start + ARGUMENT_PIECE]
            last = start + ARGUMENT_PIECE >= len(arguments)
            delta = {"tool_calls": [{"index": place, "function": {"arguments": text}}]}
            pieces.append(Piece(index, orjson.dumps(delta), size if last else 0))
    return Choice(
        message={
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "tool_calls": calls,
        },
        opening=b'{"role":"assistant","content":null,"refusal":null}',
        pieces=tuple(pieces),
        # OpenAI ends a call of the tool the client named with `stop`.
        finish="stop" if prompt.forced else "tool_calls",
        reasoning=prompt.behaviour.directives.reasoning,
        words=words,
    )


def plain_body(prompt: ChatPrompt, reply: Reply, created: int) -> dict[str, Any]:
    """The `chat.completion` object. `created` is in seconds since 1970."""
    body: dict[str, Any] = {
        "id": reply.identity,
        "object": "chat.completion",
        "created": created,
        "model": prompt.model,
        "choices": [
            {
                "index": index,
                "message": choice.message,
                "logprobs": None,
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(reply.choices)
        ],
        "usage": reply.usage,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    if prompt.behaviour.fault == "nousage":
        del body["usage"]
    return body
