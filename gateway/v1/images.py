"""``/v1/images/generations`` and ``/edits``: pictures for a prompt."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

from billing.token_usage import ESTIMATED, IMAGE_OUTPUT, IMAGES, TokenUsage, from_openai
from gateway.v1.answers import BadAnswer, PlainAnswer, decoded
from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import (
    BYTES_PER_TOKEN,
    Facts,
    boolean,
    decode,
    end_user_of,
    model_of,
    text,
    whole,
    wrong_type,
)
from gateway.v1.forms import Form
from routing.dialects import Dialect

MOST_IMAGES = 10
# Tokens of one picture of a usual size, at most and where nothing is told: gpt-image-1 has up to 6,240
# (quality high, 1024x1536: $0.25 at $40 a million), gpt-image-2 up to 7,024 (high, 1024x1024).
TOKENS_PER_IMAGE = 8_192
# Larger ones have more, by their pixels: what OpenAI's calculator gives a square of quality high, which is the
# dearest shape (community.openai.com/t/1382699; it gives 12,329 for 3584x2048, and this 21,520). OpenAI takes
# sizes up to 3840x2160 ("Create image", `size`).
USUAL_PIXELS, MOST_PIXELS = 1536 * 1024, 3840 * 2160
_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", re.ASCII)


def generation_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a body; raises InvalidRequest naming the parameter."""
    body = decode(raw)
    return image_facts("images.generations", body, end_user_header)


def edit_facts(form: Form, end_user_header: str) -> Facts:
    """Facts of a form with ``image`` (or several), perhaps ``mask``, and fields. Raises InvalidRequest."""
    body: dict[str, Any] = form.fields()
    if not form.files("image", "image[]"):
        raise InvalidRequest(
            "Missing required parameter: 'image'.", param="image", code="missing_required_parameter"
        )
    if (count := body.get("n")) is not None:
        # As JSON would have it; what is no number is told as such.
        body["n"] = int(count) if count.isascii() and count.isdecimal() and len(count) < 9 else count
    if (stream := body.pop("stream", "")).lower() in ("true", "1"):
        body["stream"] = True
    elif stream.lower() not in ("", "false", "0"):
        raise wrong_type("stream", "a boolean", stream)
    facts = image_facts("images.edits", body, end_user_header, len(form.files("image", "image[]", "mask")))
    facts.form = form
    return facts


def image_facts(endpoint: str, body: dict[str, Any], end_user_header: str, pictures: int = 0) -> Facts:
    """Facts of a request for pictures, with ``pictures`` of the client's own in it. Raises InvalidRequest."""
    model = model_of(body)
    size = len(text(body, "prompt").encode("utf-8", "replace"))
    images = whole(body, "n", 1, MOST_IMAGES) or 1
    stream = boolean(body, "stream")
    if stream and images > 1:
        # What several would cost together is told nowhere.
        raise InvalidRequest(
            "Invalid 'n': a stream has one image. Ask for one at a time, or without 'stream'.",
            param="n",
            code="invalid_value",
        )
    tokens = size // BYTES_PER_TOKEN + 1 + pictures * TOKENS_PER_IMAGE
    most = images * tokens_of(body.get("size"))
    made = {IMAGES: Decimal(images), IMAGE_OUTPUT: Decimal(most)}
    return Facts(
        endpoint,
        body,
        model,
        stream,
        input_tokens=tokens,
        input_bound=size + 1 + pictures * TOKENS_PER_IMAGE,
        output_bound=most,
        end_user=end_user_of(body, end_user_header),
        units={IMAGES: Decimal(images)},
        counted=TokenUsage(tokens, 0, 0, 0, 0, ESTIMATED, made),
    )


def tokens_of(size: object) -> int:
    """At most so many tokens has a picture of the ``size`` that was asked for, such as 1024x1024."""
    told = _SIZE.fullmatch(size) if isinstance(size, str) else None
    pixels = 0 if told is None else min(int(told[1]) * int(told[2]), MOST_PIXELS)
    if pixels <= USUAL_PIXELS:
        return TOKENS_PER_IMAGE
    return -(-96 * 96 * (2_000_000 + pixels) // 4_000_000)


def image_answer(raw: bytes, facts: Facts, speaks: Dialect) -> PlainAnswer:
    """The answer as it came. Usage is its pictures, and the tokens that are reported. Raises BadAnswer,
    ErrorAnswer."""
    answer = decoded(raw, facts.endpoint, speaks)
    data, usage = answer.get("data"), answer.get("usage")
    if not isinstance(data, list) or not data or not all(_pictured(each) for each in data):
        raise BadAnswer("It has no images.")
    return PlainAnswer(raw, pictures_used(len(data), usage, facts), 0)


def pictures_used(count: int, usage: Any, facts: Facts) -> TokenUsage:
    """What ``count`` pictures used, by the usage that is reported with them, if it is."""
    images = Decimal(count)
    told = from_openai(usage) if isinstance(usage, dict) else None
    if told is None:
        assert facts.counted is not None  # noqa: S101  # by image_facts
        used = {IMAGES: images, IMAGE_OUTPUT: images * tokens_of(facts.body.get("size"))}
        return replace(facts.counted, quantities=used)
    if not told.quantities.get(IMAGE_OUTPUT) and told.output:
        # Where it is not said what the output is, it is pictures.
        quantities = {**told.quantities, IMAGE_OUTPUT: Decimal(told.output)}
        told = replace(told, output=0, reasoning=0, quantities=quantities)
    return replace(told, quantities={**told.quantities, IMAGES: images})


def _pictured(item: Any) -> bool:
    return isinstance(item, dict) and bool(item.get("b64_json") or item.get("url"))
