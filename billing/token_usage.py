"""How much a request used, in one shape whatever the provider's words: tokens, and what is counted otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

# A larger count is a fault of the provider; it would also not fit the columns it ends in.
MOST_TOKENS = 10**10

REPORTED = "reported"
COUNTED = "counted"
ESTIMATED = "estimated"
NONE = "none"

# Whose rules say which counts contain which: `from_openai`, `from_anthropic`, `from_gemini`.
OPENAI = "openai"
ANTHROPIC = "anthropic"
GEMINI = "gemini"

CACHE_WRITE_1H = "cache_write_1h"
AUDIO_INPUT = "audio_input"
AUDIO_OUTPUT = "audio_output"
IMAGE_INPUT = "image_input"
IMAGE_OUTPUT = "image_output"
IMAGES = "images"
SECONDS = "seconds"
CHARACTERS = "characters"
SEARCHES = "searches"

# Classes of `quantities` that are tokens, by the side they are on; the others are counted one by one.
INPUT_QUANTITIES = (CACHE_WRITE_1H, AUDIO_INPUT, IMAGE_INPUT)
OUTPUT_QUANTITIES = (AUDIO_OUTPUT, IMAGE_OUTPUT)
UNIT_QUANTITIES = (IMAGES, SECONDS, CHARACTERS, SEARCHES)
QUANTITIES = (*INPUT_QUANTITIES, *OUTPUT_QUANTITIES, *UNIT_QUANTITIES)

NO_QUANTITIES: Mapping[str, Decimal] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What one request used, in disjoint classes.

    ``input`` excludes ``cached_input`` (read from the provider's prompt cache) and ``cache_write``
    (written to it for minutes). ``reasoning`` is a part of ``output``. ``source`` says who counted:
    ``reported`` (the provider), ``counted`` (by us, from the text), ``estimated`` or ``none`` (nothing
    was used). ``quantities`` holds the rarer classes of ``QUANTITIES``, tokens among them, outside of
    the five counts; only those above zero. ``semantics`` is whose rules the provider's counts followed.
    """

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    source: str
    quantities: Mapping[str, Decimal] = field(default_factory=lambda: NO_QUANTITIES)
    semantics: str = OPENAI

    @property
    def prompt(self) -> int:
        """All tokens that went in, each counted once."""
        plain = self.input + self.cached_input + self.cache_write
        return plain + _tokens(self.quantities, INPUT_QUANTITIES) if self.quantities else plain

    @property
    def completion(self) -> int:
        """All tokens that came out, each counted once."""
        if self.quantities:
            return self.output + _tokens(self.quantities, OUTPUT_QUANTITIES)
        return self.output

    @property
    def total(self) -> int:
        """All tokens, each counted once."""
        return self.prompt + self.completion


NOTHING = TokenUsage(0, 0, 0, 0, 0, NONE)


def _tokens(quantities: Mapping[str, Decimal], names: Iterable[str]) -> int:
    return sum(int(quantities[name]) for name in names if name in quantities)


def _count(holder: object, *names: str) -> int | None:
    """The first member of ``holder`` among ``names`` that is a sane count."""
    if not isinstance(holder, Mapping):
        return None
    for name in names:
        value = holder.get(name)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value <= MOST_TOKENS:
            return value
    return None


def _seconds(value: object) -> Decimal | None:
    """A duration in seconds, to the millisecond; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return Decimal(str(value)).quantize(Decimal("0.001"))


def _some(**counts: int | Decimal | None) -> Mapping[str, Decimal]:
    """The quantities that are above zero."""
    found = {name: Decimal(count) for name, count in counts.items() if count}
    return found or NO_QUANTITIES


def _cut(whole: int, *parts: int | None) -> list[int]:
    """``parts`` made to fit in ``whole``, the earlier ones first, and what is left of it."""
    fitting = []
    for part in parts:
        fits = min(part or 0, whole)
        whole -= fits
        fitting.append(fits)
    return [*fitting, whole]


def from_openai(usage: Mapping[str, object]) -> TokenUsage | None:
    """Read a usage object of the OpenAI kind, in its chat, embeddings, responses, images or transcription
    spelling.

    None if it holds no usable number: members that are missing, null, negative, absurd or of a wrong
    type count as absent, and providers also send all zeros as a placeholder. The parts never exceed
    their whole: cached, written, audio and image tokens are cut to the prompt, reasoning, audio and
    image tokens to the output.
    """
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    output = _count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    prompt_details = (
        usage.get("prompt_tokens_details")
        or usage.get("input_tokens_details")
        or usage.get("input_token_details")
    )
    output_details = (
        usage.get("completion_tokens_details")
        or usage.get("output_tokens_details")
        or usage.get("output_token_details")
    )
    cached = _count(prompt_details, "cached_tokens")
    if cached is None:
        cached = _count(usage, "cached_tokens", "prompt_cache_hit_tokens") or 0
    written = _count(prompt_details, "cache_write_tokens", "cache_creation_input_tokens") or 0
    reasoning = _count(output_details, "reasoning_tokens")
    if reasoning is None:
        reasoning = _count(usage, "reasoning_tokens") or 0

    if total is None:
        total = (prompt or 0) + (output or 0)
    elif prompt is None:
        # Some embedding services report the total alone.
        prompt = max(total - (output or 0), 0)
    elif output is None:
        output = max(total - prompt, 0)
    prompt, output = prompt or 0, output or 0
    seconds = _seconds(usage.get("seconds")) if usage.get("type") == "duration" else None
    if prompt + output == 0:
        # A transcription is reported in seconds instead of tokens.
        return TokenUsage(0, 0, 0, 0, 0, REPORTED, _some(seconds=seconds)) if seconds else None
    # Where the parts do not add up to the total, it may tell what the parts leave out.
    surplus = total - prompt - output
    if surplus > 0:
        if surplus == reasoning:
            # xAI counts reasoning beside the completion, others inside it.
            output += reasoning
        elif surplus == cached + written:
            # Relays of Anthropic's own counts leave cached tokens out of the prompt.
            prompt += surplus
    audio_in, image_in = _count(prompt_details, "audio_tokens"), _count(prompt_details, "image_tokens")
    audio_out, image_out = _count(output_details, "audio_tokens"), _count(output_details, "image_tokens")
    for_hour = min(_written_for_an_hour(prompt_details) or _written_for_an_hour(usage), written)
    quantities = NO_QUANTITIES
    if audio_in or image_in or audio_out or image_out or for_hour:
        cached, for_hour, written, audio, image, plain = _cut(
            prompt, cached, for_hour, written - for_hour, audio_in, image_in
        )
        heard, seen, output = _cut(output, audio_out, image_out)
        quantities = _some(
            cache_write_1h=for_hour,
            audio_input=audio,
            audio_output=heard,
            image_input=image,
            image_output=seen,
        )
    else:
        cached = min(cached, prompt)
        written = min(written, prompt - cached)
        plain = prompt - cached - written
    return TokenUsage(
        input=plain,
        cached_input=cached,
        cache_write=written,
        output=output,
        reasoning=min(reasoning, output),
        source=REPORTED,
        quantities=quantities,
    )


def from_anthropic(usage: Mapping[str, object]) -> TokenUsage | None:
    """Read a usage object of Anthropic's Messages API.

    ``input_tokens`` excludes what was read from the cache and what was written to it; those written for
    an hour are told apart by ``cache_creation`` only. Thinking is a part of ``output_tokens``. None if no
    number above zero is in it. Source: Anthropic's API reference, "Messages", ``usage``.
    """
    plain = _count(usage, "input_tokens") or 0
    read = _count(usage, "cache_read_input_tokens") or 0
    parts = usage.get("cache_creation")
    for_hour = _written_for_an_hour(usage)
    written = _count(usage, "cache_creation_input_tokens")
    if written is None:
        written = (_count(parts, "ephemeral_5m_input_tokens") or 0) + for_hour
    for_hour = min(for_hour, written)
    output = _count(usage, "output_tokens") or 0
    searches = _count(usage.get("server_tool_use"), "web_search_requests")
    thought = _count(usage.get("output_tokens_details"), "thinking_tokens") or 0
    if plain + read + written + output == 0:
        return None
    return TokenUsage(
        input=plain,
        cached_input=read,
        cache_write=written - for_hour,
        output=output,
        reasoning=min(thought, output),
        source=REPORTED,
        quantities=_some(cache_write_1h=for_hour, searches=searches),
        semantics=ANTHROPIC,
    )


def _written_for_an_hour(holder: object) -> int:
    """Tokens written to a cache that lasts an hour: Anthropic's member, which relays repeat in theirs."""
    parts = holder.get("cache_creation") if isinstance(holder, Mapping) else None
    return _count(parts, "ephemeral_1h_input_tokens") or 0


def from_gemini(usage: Mapping[str, object]) -> TokenUsage | None:
    """Read Gemini's ``usageMetadata``.

    ``promptTokenCount`` includes ``cachedContentTokenCount``. ``thoughtsTokenCount`` stands beside
    ``candidatesTokenCount``, and ``toolUsePromptTokenCount`` beside the prompt; ``totalTokenCount`` is
    the sum of those four. Audio and image tokens are told by the lists by modality. None if no number
    above zero is in it. Source: Gemini API reference, ``UsageMetadata``.
    """
    prompt = _count(usage, "promptTokenCount")
    tools = _count(usage, "toolUsePromptTokenCount") or 0
    answer = _count(usage, "candidatesTokenCount")
    thoughts = _count(usage, "thoughtsTokenCount") or 0
    total = _count(usage, "totalTokenCount")
    if total is not None:
        # Of embeddings and blocked prompts only some are told.
        if prompt is None:
            prompt = max(total - tools - (answer or 0) - thoughts, 0)
        elif answer is None:
            answer = max(total - prompt - tools - thoughts, 0)
    prompt, answer = (prompt or 0) + tools, answer or 0
    if prompt + answer + thoughts == 0:
        return None
    cached = _count(usage, "cachedContentTokenCount")
    read = usage.get("cacheTokensDetails")
    asked = usage.get("promptTokensDetails")
    audio, image = (max(_of(asked, kind) - _of(read, kind), 0) for kind in ("AUDIO", "IMAGE"))
    cached, audio, image, plain = _cut(prompt, cached, audio, image)
    told = usage.get("candidatesTokensDetails")
    heard, seen, text = _cut(answer, _of(told, "AUDIO"), _of(told, "IMAGE"))
    return TokenUsage(
        input=plain,
        cached_input=cached,
        cache_write=0,
        output=text + thoughts,
        reasoning=thoughts,
        source=REPORTED,
        quantities=_some(audio_input=audio, audio_output=heard, image_input=image, image_output=seen),
        semantics=GEMINI,
    )


def _of(details: object, modality: str) -> int:
    """The tokens of ``modality`` in a list of ``{modality, tokenCount}``."""
    if not isinstance(details, list):
        return 0
    return sum(
        _count(each, "tokenCount") or 0
        for each in details
        if isinstance(each, Mapping) and each.get("modality") == modality
    )
