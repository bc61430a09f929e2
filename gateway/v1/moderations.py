"""``/v1/moderations``: is a text, or a picture, harmful?"""

from __future__ import annotations

from gateway.v1.answers import BadAnswer, PlainAnswer, decoded
from gateway.v1.facts import (
    BYTES_PER_TOKEN,
    TOKENS_PER_PART,
    Facts,
    decode,
    end_user_of,
    required,
    wrong_type,
)
from routing.dialects import Dialect

# What OpenAI takes where the client names no model.
DEFAULT_MODEL = "omni-moderation-latest"


def moderation_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a body: ``input`` is a text, texts, or parts with text and images. Raises InvalidRequest."""
    body = decode(raw)
    model = body.get("model") or DEFAULT_MODEL
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    given = required(body, "input")
    if not isinstance(given, str | list):
        raise wrong_type("input", "a string or an array", given)
    size = parts = 0
    for position, item in enumerate([given] if isinstance(given, str) else given):
        text = item.get("text") if isinstance(item, dict) else item
        if isinstance(text, str):
            size += len(text.encode("utf-8", "replace"))
        elif isinstance(item, dict) and item.get("type") == "image_url":
            parts += 1
        else:
            raise wrong_type(f"input[{position}]", "a string, or a part with text or an image_url", item)
    return Facts(
        "moderations",
        body,
        model,
        input_tokens=size // BYTES_PER_TOKEN + 1 + parts * TOKENS_PER_PART,
        input_bound=size + 1 + parts * TOKENS_PER_PART,
        output_bound=0,
        end_user=end_user_of(body, end_user_header),
    )


def moderation_answer(raw: bytes, facts: Facts, speaks: Dialect) -> PlainAnswer:
    """Moderations report no usage: it is the estimate of the input. Raises BadAnswer, ErrorAnswer."""
    answer = decoded(raw, facts.endpoint, speaks)
    if not isinstance(answer.get("results"), list):
        raise BadAnswer("It has no results.")
    return PlainAnswer(raw, None, 0)
