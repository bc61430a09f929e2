"""The answers of `sim-fast`: rendered once and sent as they are, to measure others by.

The counts are fixed, whatever was asked: 10 prompt tokens and as many completion tokens as
words, 20 or the number in the name (`sim-fast-100`, `sim-fast-60-5ms`: 5 ms before each word).
"""

import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from routing.simulator.connection import Client
from routing.simulator.delivery import DONE, EVENTS_TYPE, headers_for, send_body
from routing.simulator.record import Outcome
from routing.simulator.reply import FINGERPRINT, LABEL

PROMPT_TOKENS = 10
DEFAULT_WORDS = 20

_NAME = re.compile(r"sim-fast(?:-(\d{1,5}))?(?:-(\d{1,5})ms)?\Z")


@dataclass(frozen=True, slots=True)
class Rendered:
    """The finished bytes of a `sim-fast` answer. `pace` is in seconds; `opening` is the role
    chunk, `words` the content chunks, `close` the finish chunk."""

    body: bytes
    opening: bytes
    words: tuple[bytes, ...]
    close: bytes
    usage: bytes
    pace: float


@lru_cache(maxsize=64)
def rendered(model: str) -> Rendered | None:
    """The answer for a `sim-fast` name, or None if the name is another's."""
    match = _NAME.match(model)
    if match is None:
        return None
    count = max(1, int(match[1] or DEFAULT_WORDS))
    pace = int(match[2] or 0) / 1000
    texts = [LABEL, *(" word" for _ in range(count - 1))]
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": count,
        "total_tokens": PROMPT_TOKENS + count,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    shared = {
        "id": "chatcmpl-simfast",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts),
        "refusal": None,
        "annotations": [],
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    plain = {**shared, "object": "chat.completion", "choices": [choice], "usage": usage}

    def event(delta: dict[str, str | None], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: " + orjson.dumps({**shared, "choices": [choice]}) + b"\n\n"

    return Rendered(
        body=orjson.dumps(plain),
        opening=event({"role": "assistant", "content": "", "refusal": None}),
        words=tuple(event({"content": text}) for text in texts),
        close=event({}, "stop"),
        usage=b"data: " + orjson.dumps({**shared, "choices": [], "usage": usage}) + b"\n\n",
        pace=pace,
    )


async def deliver(
    client: Client, answer: Rendered, *, number: int, stream: bool, include_usage: bool
) -> Outcome:
    """Send the rendered answer: as one body, or each word as an event of its own."""
    count = len(answer.words)
    if not stream:
        await send_body(client, answer.body, number=number)
        return Outcome(200, "done", PROMPT_TOKENS, count, count)
    send, pace = client.send, answer.pace
    headers = headers_for(EVENTS_TYPE, number)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.opening, "more_body": True})
    if pace > 0:
        client.watch()
    for sent, word in enumerate(answer.words):
        if pace > 0 and not await client.pause(pace):
            return Outcome(200, "client_gone", PROMPT_TOKENS, sent, sent)
        await send({"type": "http.response.body", "body": word, "more_body": True})
    ending = answer.close + answer.usage + DONE if include_usage else answer.close + DONE
    if client.left():
        return Outcome(200, "client_gone", PROMPT_TOKENS, count, count)
    await send({"type": "http.response.body", "body": ending})
    return Outcome(200, "done", PROMPT_TOKENS, count, count)
