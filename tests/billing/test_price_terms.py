"""Prices beyond four token rates: rarer classes, tiers, peak hours, a fee, a minimum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charge_lines import explained
from billing.models import Price, UsageEvent
from billing.price_terms import rates_of
from billing.pricing import CLASSES, Rates, charge_of, worst_case
from billing.token_usage import QUANTITIES, TokenUsage, from_anthropic, from_openai

D = Decimal
MONDAY = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)  # 10:00 in Shanghai


def rates(**terms: Any) -> Rates:
    """Rates of a row; amounts may be given as strings."""
    return rates_of(1, {name: D(value) if isinstance(value, str) else value for name, value in terms.items()})


def usage(
    plain: int = 0, cached: int = 0, written: int = 0, output: int = 0, reasoning: int = 0, **rare: str
) -> TokenUsage:
    """A reported usage with rarer ``quantities``."""
    return TokenUsage(
        plain,
        cached,
        written,
        output,
        reasoning,
        "reported",
        {name: D(value) for name, value in rare.items()},
    )


def test_golden_openai_cached_within_the_prompt() -> None:
    read = from_openai(
        {
            "prompt_tokens": 24_643,
            "completion_tokens": 3_110,
            "total_tokens": 27_753,
            "prompt_tokens_details": {"cached_tokens": 24_503},
        }
    )
    assert read is not None
    price = rates(input="1.5", cached_input="0.15", output="9")
    assert charge_of(read, price, price, D(0)) == (D("0.03187545"), D("0.03187545"))


def test_golden_anthropic_cache_read_beside_the_input() -> None:
    read = from_anthropic({"input_tokens": 56_322, "cache_read_input_tokens": 72_960, "output_tokens": 87})
    assert read is not None
    price = rates(input="1", cached_input="0.1", output="5")
    assert charge_of(read, price, None, D(0)) == (D("0.064053"), D("0.064053"))


def test_golden_anthropic_with_a_cache_write() -> None:
    read = from_anthropic(
        {
            "input_tokens": 24_951,
            "cache_read_input_tokens": 64_126,
            "cache_creation_input_tokens": 2_805,
            "output_tokens": 854,
        }
    )
    assert read is not None
    price = rates(input="1.75", cached_input="0.175", cache_write="2.1875", output="8.75")
    assert charge_of(read, price, None, D(0)) == (D("0.0684947375"), D("0.0684947375"))


@pytest.mark.parametrize(
    ("terms", "used", "amount"),
    [
        # 10 for an hour at 4 = 40, 10 written at 2.5 = 25, millionths.
        ({"cache_write": "2.5", "cache_write_1h": "4"}, usage(0, 0, 10, cache_write_1h="10"), "0.000065"),
        ({"cache_write": "2.5"}, usage(cache_write_1h="10"), "0.000025"),
        ({}, usage(cache_write_1h="10"), "0.00001"),
        # 7 of 10 at 2 = 14, 3 of reasoning at 5 = 15.
        ({"reasoning": "5"}, usage(output=10, reasoning=3), "0.000029"),
        ({"reasoning": "0"}, usage(output=10, reasoning=3), "0.000014"),
        ({}, usage(output=10, reasoning=3), "0.00002"),
        (
            {"audio_input": "40", "audio_output": "80"},
            usage(1, audio_input="2", audio_output="3"),
            "0.000321",
        ),
        ({"image_input": "10", "image_output": "30"}, usage(image_input="2", image_output="3"), "0.00011"),
        # Without a rate of their own, image tokens cost what text costs.
        ({}, usage(image_input="2", image_output="3"), "0.000008"),
        ({"image": "0.04"}, usage(images="3"), "0.12"),
        ({"second": "0.0001"}, usage(seconds="9.5"), "0.00095"),
        ({"character": "15"}, usage(characters="2000"), "0.03"),
        ({"search": "0.01"}, usage(1, searches="2"), "0.020001"),
        ({"request": "0.005"}, usage(1), "0.005001"),
    ],
)
def test_each_class_has_its_rate_and_its_unit(terms: dict[str, str], used: TokenUsage, amount: str) -> None:
    assert rates(input="1", output="2", **terms).amount(used) == D(amount)


TIERED = {
    "input": "1.25",
    "cached_input": "0.125",
    "output": "10",
    "tiers": [{"above": 200_000, "input": "2.50", "output": "15"}, {"above": 500_000, "input": "5"}],
}


@pytest.mark.parametrize(
    ("plain", "cached", "amount"),
    [
        # The whole request at the tier its prompt, cached tokens included, reaches.
        (100_000, 100_000, "0.1475"),  # 0.125 + 0.0125 + 0.01
        (100_001, 100_000, "0.2775025"),  # 0.2500025 + 0.0125 + 0.015
        (200_001, 0, "0.5150025"),
        # What the second tier does not name costs what it costs without tiers.
        (500_001, 0, "2.510005"),
    ],
)
def test_a_long_prompt_pays_other_rates_for_the_whole_request(plain: int, cached: int, amount: str) -> None:
    assert rates(**TIERED).amount(usage(plain, cached, 0, 1000)) == D(amount)


def test_a_minimum_is_the_least_a_request_costs() -> None:
    price = rates(input="1", minimum="0.001")
    assert price.amount(usage(10)) == D("0.001")
    assert price.amount(usage(1001)) == D("0.001001")


PEAKS = [
    {"start": "09:00", "end": "12:00", "time_zone": "Asia/Shanghai", "days": ["mon"], "multiplier": "2"},
    {"start": "22:00", "end": "02:00", "time_zone": "Asia/Shanghai", "multiplier": "0.5"},
]


@pytest.mark.parametrize(
    ("hours", "rate"),
    [
        (0, "2"),  # Monday 10:00 in Shanghai
        (1.99, "2"),
        (2, "1"),  # noon is over
        (24, "1"),  # Tuesday
        (-1, "2"),
        (-1.01, "1"),
        (12, "0.5"),  # 22:00
        (15.99, "0.5"),  # 01:59 on Tuesday
        (16, "1"),
    ],
)
def test_peak_hours_follow_the_clock_of_their_zone(hours: float, rate: str) -> None:
    price = rates(input="1", minimum="0.1", peaks=PEAKS)
    found = price.during(MONDAY + timedelta(hours=hours))
    assert found.rate("input") == D(rate)
    assert found.minimum == D("0.1")


def test_peak_hours_that_cross_midnight_belong_to_the_day_they_began_on() -> None:
    price = rates(input="1", peaks=[{"start": "22:00", "end": "02:00", "days": ["fri"], "multiplier": "3"}])
    saturday = datetime(2026, 3, 7, 1, 0, tzinfo=UTC)
    assert price.during(saturday).rate("input") == 3
    assert price.during(saturday - timedelta(days=1)).rate("input") == 1


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"tiers": [{"above": 0, "input": "1"}]}, "above must be"),
        ({"tiers": [{"above": 5}]}, "must name classes"),
        ({"tiers": [{"above": 5, "inptu": "1"}]}, "must name classes"),
        ({"tiers": [{"above": 5, "input": "-1"}]}, "tiers: input"),
        ({"tiers": [{"above": 5, "input": "1"}, {"above": 5, "input": "2"}]}, "must ascend"),
        ({"peaks": [{"start": "9 am", "end": "12:00", "multiplier": "2"}]}, "start must be a time"),
        ({"peaks": [{"start": "09:00", "end": "12:00", "multiplier": 2}]}, "multiplier"),
        ({"peaks": [{"start": "09:00", "end": "12:00", "time_zone": "Mars", "multiplier": "2"}]}, "Mars"),
        ({"peaks": [{"start": "09:00", "end": "12:00", "days": ["sol"], "multiplier": "2"}]}, "days are"),
    ],
)
def test_terms_that_say_nothing_definite_are_refused(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(input="1", **terms)


@pytest.mark.parametrize(
    ("endpoint", "classes", "terms", "served"),
    [
        ("chat.completions", (), {"input": "0", "output": "0"}, True),
        ("chat.completions", (), {"input": "0"}, False),
        ("chat.completions", ("audio_input",), {"input": "1", "output": "1"}, False),
        ("chat.completions", ("audio_input",), {"input": "1", "output": "1", "audio_input": "0"}, True),
        ("chat.completions", ("search",), {"input": "1", "output": "1"}, False),
        ("embeddings", (), {"input": "1"}, True),
        ("images.generations", (), {"image": "0.04"}, True),
        ("images.generations", (), {"input": "5", "image_output": "40"}, True),
        ("images.generations", (), {"input": "5"}, False),
        ("audio.speech", (), {"character": "15"}, True),
        ("audio.speech", (), {"input": "15", "output": "1"}, False),
        ("audio.transcriptions", (), {"second": "0.0001"}, True),
        ("audio.transcriptions", (), {"input": "1", "output": "1"}, False),
        ("rerank", (), {"search": "0.002"}, True),
        ("rerank", (), {"second": "0.002"}, False),
    ],
)
def test_what_is_not_priced_is_not_served(
    endpoint: str, classes: tuple[str, ...], terms: dict[str, str], served: bool
) -> None:
    assert rates(**terms).priced_for(endpoint, classes) is served


def test_what_a_provider_used_unasked_and_nothing_prices_is_named() -> None:
    used = usage(1, searches="2", audio_input="3", images="1")
    assert rates(input="1", output="1").unpriced(used, "chat.completions") == ["search", "image"]
    # Priced by its tokens, an image has no other price and needs none.
    assert rates(input="1", output="1").unpriced(used, "images.generations") == ["search"]


rate = st.decimals(min_value=0, max_value=10**4, places=12)
count = st.integers(min_value=0, max_value=10**6)
some_rates = st.dictionaries(st.sampled_from(list(CLASSES)), rate, min_size=1)
tiers = st.lists(
    st.tuples(st.integers(1, 2 * 10**6), some_rates), max_size=3, unique_by=lambda tier: tier[0]
).map(lambda found: sorted(found, key=lambda tier: tier[0]))
clock = st.times().map(lambda at: at.replace(second=0, microsecond=0).isoformat("minutes"))
peaks = st.lists(
    st.fixed_dictionaries(
        {
            "start": clock,
            "end": clock,
            "time_zone": st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]),
            "multiplier": st.sampled_from(["0", "0.25", "1.5", "2"]),
        }
    ),
    max_size=2,
)


@st.composite
def price_rows(draw: st.DrawFn) -> dict[str, Any]:
    """The terms of a price row."""
    terms: dict[str, Any] = dict(draw(some_rates))
    terms["minimum"] = draw(st.none() | rate)
    terms["tiers"] = [
        {"above": above, **{name: f"{value:f}" for name, value in named.items()}}
        for above, named in draw(tiers)
    ]
    terms["peaks"] = draw(peaks)
    return terms


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Any usage a provider could report."""
    output = draw(count)
    return TokenUsage(
        draw(count),
        draw(count),
        draw(count),
        output,
        draw(st.integers(0, output)),
        "reported",
        {
            name: Decimal(amount)
            for name, amount in draw(st.dictionaries(st.sampled_from(QUANTITIES), count)).items()
        },
    )


moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # made aware
markups = st.decimals(min_value=0, max_value=9, places=6)


@given(price_rows(), price_rows() | st.none(), markups, usages(), count, count, moments)
def test_no_charge_exceeds_the_worst_case_under_any_tier_or_peak(
    cost: dict[str, Any], price: dict[str, Any] | None, markup: Decimal, used: TokenUsage, more: int, longer: int,
    at: datetime,
) -> None:  # fmt: skip
    """A reservation bounds the prompt, the answer, and what is counted one by one; usage keeps within it."""
    cost_rates = rates_of(1, cost).during(at)
    price_rates = None if price is None else rates_of(2, price).during(at)
    units = {name: amount for name, amount in used.quantities.items() if name in QUANTITIES[5:]}
    most = worst_case(used.prompt + more, used.completion + longer, cost_rates, price_rates, markup, units)
    assert charge_of(used, cost_rates, price_rates, markup)[1] <= most


@given(price_rows(), markups, usages(), moments, st.booleans())
def test_an_explanation_reproduces_every_charge_exactly(
    terms: dict[str, Any], markup: Decimal, used: TokenUsage, at: datetime, own: bool
) -> None:
    """``own``: by the model group's price; otherwise by the provider's and the markup."""
    row = Price(pk=7, effective_from=at, **terms)
    found = row.rates.during(at)
    _, charge = charge_of(used, found, found if own else None, markup)
    event = UsageEvent(
        started_at=at,
        input_tokens=used.input,
        cached_input_tokens=used.cached_input,
        cache_write_tokens=used.cache_write,
        output_tokens=used.output,
        reasoning_tokens=used.reasoning,
        usage_source="reported",
        quantities={name: f"{amount:f}" for name, amount in used.quantities.items()},
        charge=charge,
        cost_price_id=7,
        charge_price_id=7 if own else None,
        markup=markup,
    )
    explanation = explained(event, row)
    if used.total or used.quantities:
        assert explanation.worth == charge
    else:
        assert explanation.worth == 0
