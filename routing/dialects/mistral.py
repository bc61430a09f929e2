"""Mistral."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routing.dialects.base import Prefill, Repaired
from routing.dialects.demands import BOOKKEEPING, Demands
from routing.dialects.usage import find_usage


class Mistral(Repaired):
    """Refuses members it does not know; has its own words for a seed and for tools that must be called."""

    # https://docs.mistral.ai/api/#tag/chat
    prefill = Prefill({"prefix": True})
    demands = Demands(
        bound="max_tokens",
        renamed={"seed": "random_seed"},
        hushed=BOOKKEEPING,
        stripped=frozenset({"name", "reasoning_content"}),
        required="any",
        named_by_offer=True,
        loose_tools=True,
        id_length=9,
        # Usage comes unasked.
        asks_usage=False,
    )

    def read_usage(self, holder: Mapping[str, Any]) -> dict[str, Any] | None:
        """See Dialect. Cached tokens have three spellings here."""
        usage = find_usage(holder)
        if usage is None or usage.get("prompt_tokens_details"):
            return usage
        other = usage.get("prompt_token_details")
        cached = other.get("cached_tokens") if isinstance(other, dict) else usage.get("num_cached_tokens")
        return usage if cached is None else {**usage, "prompt_tokens_details": {"cached_tokens": cached}}
