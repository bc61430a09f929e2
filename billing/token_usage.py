"""How many tokens a request took, in one shape whatever the provider's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A larger count is a fault of the provider; it would also not fit the columns it ends in.
MOST_TOKENS = 10**10

REPORTED = "reported"
COUNTED = "counted"
ESTIMATED = "estimated"
NONE = "none"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one request, in disjoint classes.

    ``input`` excludes ``cached_input`` (read from the provider's prompt cache) and ``cache_write``
    (written to it). ``reasoning`` is a part of ``output``. ``source`` says who counted: ``reported``
    (the provider), ``counted`` (by us, from the text), ``estimated`` or ``none`` (nothing was used).
    """

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    source: str

    @property
    def total(self) -> int:
        """All tokens, each counted once."""
        return self.input + self.cached_input + self.cache_write + self.output


NOTHING = TokenUsage(0, 0, 0, 0, 0, NONE)


def _count(holder: object, *names: str) -> int | None:
    """The first member of ``holder`` among ``names`` that is a sane count of tokens."""
    if not isinstance(holder, Mapping):
        return None
    for name in names:
        value = holder.get(name)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value <= MOST_TOKENS:
            return value
    return None


def from_openai(usage: Mapping[str, object]) -> TokenUsage | None:
    """Read a usage object of the OpenAI kind, in its chat, embeddings or responses spelling.

    None if it holds no usable number: members that are missing, null, negative, absurd or of a wrong
    type count as absent, and providers also send all zeros as a placeholder. The parts never exceed
    their whole: cached tokens are cut to the prompt, reasoning tokens to the output.
    """
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    output = _count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    prompt_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
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
    if prompt + output == 0:
        return None
    # Where the parts do not add up to the total, it may tell what the parts leave out.
    surplus = total - prompt - output
    if surplus > 0:
        if surplus == reasoning:
            # xAI counts reasoning beside the completion, others inside it.
            output += reasoning
        elif surplus == cached + written:
            # Relays of Anthropic's own counts leave cached tokens out of the prompt.
            prompt += surplus
    cached = min(cached, prompt)
    written = min(written, prompt - cached)
    return TokenUsage(
        input=prompt - cached - written,
        cached_input=cached,
        cache_write=written,
        output=output,
        reasoning=min(reasoning, output),
        source=REPORTED,
    )
