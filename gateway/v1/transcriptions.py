"""``/v1/audio/transcriptions`` and ``/translations``: what is said in a file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

from billing.token_usage import (
    AUDIO_INPUT,
    ESTIMATED,
    REPORTED,
    SECONDS,
    TokenUsage,
    from_openai,
)
from gateway.v1.answers import PlainAnswer, decoded
from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import BYTES_PER_TOKEN, Facts, end_user_of, model_of
from gateway.v1.forms import Form, Part
from routing.dialects import Dialect

# Bytes of a second of sound: the least that speech is coded with (Opus at 6 kbit/s), for what it may cost at
# most; and the usual (32 kbit/s), where neither the provider nor the file says how long it is.
LEAST_BYTES, USUAL_BYTES = 750, 4_000
# Audio tokens of a second (one for each 100 ms that a model hears,
# https://developers.openai.com/api/docs/guides/realtime-costs), and the most tokens of text that are said in one.
TOKENS_PER_SECOND, MOST_SAID = 10, 10
# What may come as a stream.
STREAMED = "audio.transcriptions"
TEXTS = {
    "text": b"text/plain; charset=utf-8",
    "srt": b"text/plain; charset=utf-8",
    "vtt": b"text/vtt; charset=utf-8",
}
# As much of a file as its header may take.
HEADER_BYTES = 4_096


def _facts(endpoint: str, form: Form, end_user_header: str) -> Facts:
    body: dict[str, Any] = form.fields()
    model = model_of(body)
    files = form.files("file")
    if len(files) != 1 or not files[0].size:
        raise InvalidRequest(
            "Missing required parameter: 'file', one that is not empty.",
            param="file",
            code="missing_required_parameter",
        )
    stream = body.get("stream", "").lower() in ("true", "1")
    if stream and endpoint != STREAMED:
        raise InvalidRequest(
            "Unsupported parameter: 'stream' is not supported for translations. Ask without it.",
            param="stream",
            code="unsupported_parameter",
        )
    (file,) = files
    known = wav_seconds(form.head(file, HEADER_BYTES), file.size)
    seconds = known if known is not None else _at(file, USUAL_BYTES)
    # A header may say less than there is.
    most = max(seconds, _at(file, LEAST_BYTES))
    words = len(body.get("prompt", ""))
    used = {SECONDS: seconds, AUDIO_INPUT: (seconds * TOKENS_PER_SECOND).to_integral_value()}
    return Facts(
        endpoint,
        body,
        model,
        stream,
        input_tokens=words // BYTES_PER_TOKEN + 1 + int(seconds * TOKENS_PER_SECOND),
        input_bound=words * 4 + 1 + int(most * TOKENS_PER_SECOND),
        output_bound=int(most * MOST_SAID) + 1,
        end_user=end_user_of(body, end_user_header),
        units={SECONDS: most},
        counted=TokenUsage(
            # Of a WAV file the seconds are known, and its tokens are estimated all the same.
            *(words // BYTES_PER_TOKEN, 0, 0, 0, 0),
            ESTIMATED,
            used,
        ),
        form=form,
    )


transcription_facts = partial(_facts, STREAMED)
translation_facts = partial(_facts, "audio.translations")


def _at(file: Part, rate: int) -> Decimal:
    return Decimal(-(-file.size // rate))


def wav_seconds(head: bytes, size: int) -> Decimal | None:
    """How long a WAV file of ``size`` bytes plays, by the header it begins with; None if it is none."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    place, rate = 12, 0
    while place + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, place)
        if name == b"fmt " and place + 20 <= len(head):
            (rate,) = struct.unpack_from("<I", head, place + 16)
        if name == b"data":
            # Recorders that stream leave the length open.
            played = min(length, size - place - 8)
            return (Decimal(played) / rate).quantize(Decimal("0.001")) if rate else None
        place += 8 + length + length % 2
    return None


def transcription_answer(raw: bytes, facts: Facts, speaks: Dialect) -> PlainAnswer:
    """The answer as it came. Seconds are what the provider says (``usage``, or ``duration`` in
    verbose_json), else those of the file. Raises BadAnswer, ErrorAnswer."""
    kind = TEXTS.get(facts.body.get("response_format", "json"))
    counted = facts.counted
    assert counted is not None  # noqa: S101  # by the facts
    if kind is not None:
        return PlainAnswer(raw, replace(counted, output=len(raw) // BYTES_PER_TOKEN), 0, kind)
    answer = decoded(raw, facts.endpoint, speaks)
    return PlainAnswer(raw, heard(answer, facts), 0)


def heard(answer: Mapping[str, Any], facts: Facts) -> TokenUsage:
    """What an answer, or the event that ends a stream, used."""
    counted = facts.counted
    assert counted is not None  # noqa: S101  # by the facts
    usage, duration = answer.get("usage"), answer.get("duration")
    told = from_openai(usage) if isinstance(usage, dict) else None
    if told is None and duration is not None:
        told = from_openai({"type": "duration", "seconds": _number(duration)})
    text = answer.get("text")
    said = len(text) // BYTES_PER_TOKEN if isinstance(text, str) else 0
    if told is None:
        return replace(counted, output=said)
    seconds = told.quantities.get(SECONDS)
    if seconds is None:
        # Tokens are told: the seconds are those of the file.
        return replace(told, quantities={**told.quantities, SECONDS: counted.quantities[SECONDS]})
    tokens = (seconds * TOKENS_PER_SECOND).to_integral_value()
    return TokenUsage(counted.input, 0, 0, said, 0, REPORTED, {SECONDS: seconds, AUDIO_INPUT: tokens})


def _number(value: object) -> object:
    """A duration that some providers tell as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None
