"""Three charges worked out elsewhere, from the provider's own words to the report of every scope."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django_scopes import scopes_disabled

from billing import rollups
from billing.models import DirtyBucket
from billing.price_terms import rates_of
from billing.pricing import charge_of
from billing.reports import cost_report
from billing.token_usage import TokenUsage, from_anthropic, from_openai
from tests.billing.made_usage import event, make_tenant, utc

pytestmark = pytest.mark.django_db


def used(read: TokenUsage | None, *rates: str) -> tuple[TokenUsage, Decimal]:
    """The usage and its charge at ``rates``: input, cached input, cache write, output."""
    assert read is not None
    names = "input", "cached_input", "cache_write", "output"
    price = rates_of(1, {name: Decimal(rate) for name, rate in zip(names, rates, strict=True)})
    return read, charge_of(read, price, None, Decimal(0))[1]


def test_the_golden_charges_hold_at_every_scope() -> None:
    acme = make_tenant("acme")
    cached = {
        "prompt_tokens": 24_643,
        "completion_tokens": 3_110,
        "prompt_tokens_details": {"cached_tokens": 24_503},
    }
    read = {"input_tokens": 56_322, "cache_read_input_tokens": 72_960, "output_tokens": 87}
    written = {
        "input_tokens": 24_951, "cache_read_input_tokens": 64_126, "cache_creation_input_tokens": 2_805,
        "output_tokens": 854,
    }  # fmt: skip
    requests = (
        (acme.backend, used(from_openai(cached), "1.5", "0.15", "1.5", "9")),
        (acme.batch, used(from_anthropic(read), "1", "0.1", "1", "5")),
        (acme.banner, used(from_anthropic(written), "1.75", "0.175", "2.1875", "8.75")),
    )
    for number, (key, (usage, charge)) in enumerate(requests):
        event(
            key, f"2026-03-01T10:0{number}", f"req-{number}", f"{charge}", end_user=f"u{number}",
            input_tokens=usage.input, cached_input_tokens=usage.cached_input,
            cache_write_tokens=usage.cache_write, output_tokens=usage.output,
        )  # fmt: skip
    with scopes_disabled():
        DirtyBucket.objects.create(organization=acme.organization, hour=utc("2026-03-01T10:00"))
    rollups.refresh()
    openai, anthropic, cache_write = Decimal("0.03187545"), Decimal("0.064053"), Decimal("0.0684947375")
    expected = {
        "key": {openai, anthropic, cache_write},
        "end_user": {openai, anthropic, cache_write},
        "team": {Decimal("0.09592845"), cache_write},
        # Ann owns one key; the other two are services.
        "member": {openai, Decimal("0.1325477375")},
    }
    for by, charges in expected.items():
        report = cost_report(acme.organization, by, utc("2026-03-01"), utc("2026-03-02"))  # type: ignore[arg-type]  # four of its dimensions
        assert {row.sums.charge for row in report.rows} == charges, by
        # The organization's.
        assert report.totals.charge == Decimal("0.1644231875")
