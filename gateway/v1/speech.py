"""``/v1/audio/speech``: a text read aloud. The sound passes as it comes."""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import Any

from billing.token_usage import AUDIO_OUTPUT, CHARACTERS, ESTIMATED, SECONDS, TokenUsage
from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import BYTES_PER_TOKEN, Facts, decode, end_user_of, model_of, required, text, wrong_type

# Seconds and audio tokens of speech are not reported with it. Of tokens there is one for each 50 ms that a
# model says: https://developers.openai.com/api/docs/guides/realtime-costs. How many bytes of text are said in
# a second is documented nowhere. Measured: 4,096 characters of a talk became 268 seconds and about 5,300
# tokens, https://raw.githubusercontent.com/sanand0/blog/main/posts/2025/openai-tts-cost.md.
BYTES_PER_SECOND = 15
TOKENS_PER_SECOND = 20
# `speed` ("Create speech" in OpenAI's reference).
SLOWEST, FASTEST = Decimal("0.25"), Decimal(4)
# The most seconds that a character can take, at the slowest.
MOST_SECONDS = 2


def speech_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a body; raises InvalidRequest naming the parameter."""
    body = decode(raw)
    model = model_of(body)
    spoken = text(body, "input")
    voice = required(body, "voice")
    if not isinstance(voice, str | dict):
        raise wrong_type("voice", "a string or an object", voice)
    if body.get("stream_format") not in (None, "audio"):
        raise InvalidRequest(
            "Unsupported parameter: 'stream_format' may only be 'audio'.",
            param="stream_format",
            code="unsupported_parameter",
        )
    tokens = len(raw) // BYTES_PER_TOKEN + 1
    characters, most = Decimal(len(spoken)), Decimal(len(spoken) * MOST_SECONDS)
    seconds = Decimal(ceil(Decimal(len(spoken.encode("utf-8", "replace"))) / BYTES_PER_SECOND / _speed(body)))
    used = {CHARACTERS: characters, SECONDS: seconds, AUDIO_OUTPUT: seconds * TOKENS_PER_SECOND}
    return Facts(
        "audio.speech",
        body,
        model,
        input_tokens=tokens,
        input_bound=len(raw),
        output_bound=int(most) * TOKENS_PER_SECOND,
        end_user=end_user_of(body, end_user_header),
        units={CHARACTERS: characters, SECONDS: most},
        counted=TokenUsage(tokens, 0, 0, 0, 0, ESTIMATED, used),
        binary=True,
    )


def _speed(body: dict[str, Any]) -> Decimal:
    """How fast it is read, 1 where that is not told. What cannot be is the provider's to refuse."""
    told = body.get("speed")
    if isinstance(told, bool) or not isinstance(told, int | float):
        return Decimal(1)
    return min(max(Decimal(str(told)), SLOWEST), FASTEST)
