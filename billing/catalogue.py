"""What providers ask, by the packaged catalogue of `genai-prices`; nothing is fetched.

Only what the catalogue says is taken over. What it prices in units that Weir does not count (pages,
video), and what cannot be said as a price of ours, is told in ``Entry.left_out``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices, TimeOfDateConstraint

from billing.money import rounded

# The catalogue's names of providers, by our kinds. Kinds that are not here run models of their own.
PROVIDERS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "azure": "azure",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "gemini": "google",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
    "xai": "x-ai",
    "zhipu": "zai",
}
# Our class of each of the catalogue's prices, and how many of ours one of its units is.
CLASSES: Mapping[str, tuple[str, int]] = {
    "input_mtok": ("input", 1),
    "cache_read_mtok": ("cached_input", 1),
    "cache_write_mtok": ("cache_write", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "output_mtok": ("output", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "input_audio_mtok": ("audio_input", 1),
    "output_audio_mtok": ("audio_output", 1),
    "input_image_mtok": ("image_input", 1),
    "output_image_mtok": ("image_output", 1),
    "input_mchars": ("character", 1),
    "input_audio_hours": ("second", 3600),
    "audio_hours": ("second", 3600),
    "web_searches_kcount": ("search", 1000),
    "requests_kcount": ("request", 1000),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue: its price in the shape of ``billing.price_terms``."""

    terms: dict[str, Any]
    left_out: tuple[str, ...]


def entry_of(kind: str, model: str, at: datetime | None = None) -> Entry | None:
    """The price of ``model`` at a provider of ``kind``, as it is at ``at``; None if the catalogue knows none."""
    provider = PROVIDERS.get(kind)
    if provider is None:
        return None
    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    standard, hours = _standard(found, at or datetime.now(UTC))
    terms, left_out = _terms(standard)
    if not terms:
        return None
    peaks = []
    for constraint, price in hours:
        multiplier = _proportion(_terms(price)[0], terms)
        if multiplier is None:
            left_out = (*left_out, f"other prices from {constraint.start_time:%H:%M}")
            continue
        peaks.append(
            {
                "start": f"{constraint.start_time:%H:%M}",
                "end": f"{constraint.end_time:%H:%M}",
                "time_zone": "UTC",
                "multiplier": f"{multiplier:f}",
            }
        )
    return Entry({**terms, "peaks": peaks} if peaks else terms, left_out)


def _standard(
    model: ModelInfo, at: datetime
) -> tuple[ModelPrice, list[tuple[TimeOfDateConstraint, ModelPrice]]]:
    """The price that holds all day, and those of certain hours, the first that fits first."""
    if isinstance(model.prices, ModelPrice):
        return model.prices, []
    standard = model.prices[0].prices
    hours: list[tuple[TimeOfDateConstraint, ModelPrice]] = []
    for conditional in model.prices:
        constraint = conditional.constraint
        if isinstance(constraint, TimeOfDateConstraint):
            # The catalogue lets the last that fits win.
            hours.insert(0, (constraint, conditional.prices))
        elif constraint is None or constraint.active(at):
            standard, hours = conditional.prices, []
    return standard, hours


def _terms(price: ModelPrice) -> tuple[dict[str, Any], tuple[str, ...]]:
    terms: dict[str, Any] = {}
    left_out = []
    steps: dict[str, list[tuple[int, Decimal]]] = {}
    for name, value in vars(price).items():
        if value is None or name.startswith("_"):
            continue
        if name not in CLASSES:
            left_out.append(name)
            continue
        ours, units = CLASSES[name]
        base = value.base if isinstance(value, TieredPrices) else value
        terms[ours] = rounded(base / units)
        if isinstance(value, TieredPrices):
            steps[ours] = [(tier.start, rounded(tier.price / units)) for tier in value.tiers]
    starts = sorted({start for tiers in steps.values() for start, _ in tiers})
    if starts:
        terms["tiers"] = [{"above": start, **_reached(steps, start)} for start in starts]
    return terms, tuple(sorted(left_out))


def _reached(steps: Mapping[str, list[tuple[int, Decimal]]], start: int) -> dict[str, str]:
    """What each class costs in the tier from ``start`` on."""
    found = {}
    for ours, tiers in steps.items():
        for from_, rate in tiers:
            if from_ <= start:
                found[ours] = f"{rate.normalize():f}"
    return found


def _proportion(peak: Mapping[str, Any], base: Mapping[str, Any]) -> Decimal | None:
    """By how much the hours' price is another; None if not by one figure for all its classes."""
    if peak.keys() != base.keys() or "tiers" in base or not all(base.values()):
        return None
    quotients = {(peak[name] / base[name]).normalize() for name in base}
    return quotients.pop() if len(quotients) == 1 else None
