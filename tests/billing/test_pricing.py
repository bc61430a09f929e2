"""Token counts in one shape, and what they cost to the last place."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import Rates, charge_of, worst_case
from billing.token_usage import MOST_TOKENS, TokenUsage, from_openai

ONE_FIFTY = Rates(1, Decimal("1.5"), Decimal("0.15"), None, Decimal(9))
CACHE_WRITING = Rates(2, Decimal("1.75"), Decimal("0.175"), Decimal("2.1875"), Decimal("8.75"))


def usage(uncached: int = 0, cached: int = 0, write: int = 0, output: int = 0) -> TokenUsage:
    """A reported usage."""
    return TokenUsage(uncached, cached, write, output, 0, "reported")


def classes(read: TokenUsage | None) -> tuple[int, int, int, int, int] | None:
    """(input, cached, written, output, reasoning)."""
    if read is None:
        return None
    return read.input, read.cached_input, read.cache_write, read.output, read.reasoning


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            {
                "prompt_tokens": 339,
                "completion_tokens": 83,
                "total_tokens": 422,
                "prompt_tokens_details": {"cached_tokens": 320},
                "completion_tokens_details": {"reasoning_tokens": 39},
                "prompt_cache_hit_tokens": 320,
                "prompt_cache_miss_tokens": 19,
            },
            (19, 320, 0, 83, 39),
            id="DeepSeek: cached inside the prompt, reasoning inside the completion",
        ),
        pytest.param(
            {
                "prompt_tokens": 12,
                "completion_tokens": 1,
                "total_tokens": 303,
                "completion_tokens_details": {"reasoning_tokens": 290},
            },
            (12, 0, 0, 291, 290),
            id="xAI: reasoning beside the completion",
        ),
        pytest.param({"prompt_tokens": 8, "total_tokens": 8}, (8, 0, 0, 0, 0), id="embeddings"),
        pytest.param({"total_tokens": 8}, (8, 0, 0, 0, 0), id="Voyage: the total alone"),
        pytest.param(
            {
                "prompt_tokens": 13,
                "completion_tokens": 564,
                "cached_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 22},
            },
            (3, 10, 0, 564, 22),
            id="Kimi K3: cached at the top level",
        ),
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "total_tokens": 105,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_input_tokens": 30},
            },
            (10, 60, 30, 5, 0),
            id="Alibaba: cached and written inside the prompt",
        ),
        pytest.param(
            {
                "input_tokens": 20,
                "output_tokens": 7,
                "total_tokens": 27,
                "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            (10, 4, 6, 7, 2),
            id="the responses spelling",
        ),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "prompt_tokens_details": None,
                "reasoning_tokens": 0,
            },
            (9, 0, 0, 3, 0),
            id="null details",
        ),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "total_tokens": 112,
                "prompt_tokens_details": {"cached_tokens": 100},
            },
            (9, 100, 0, 3, 0),
            id="cached outside the prompt, as the total proves",
        ),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": 100},
                "completion_tokens_details": {"reasoning_tokens": 50},
            },
            (0, 9, 0, 3, 3),
            id="parts cut to their whole",
        ),
        pytest.param(
            {"prompt_tokens": 12.0, "completion_tokens": 3, "total_tokens": 15}, (12, 0, 0, 3, 0), id="floats"
        ),
        pytest.param(
            {"prompt_tokens": "9", "completion_tokens": -3, "total_tokens": True}, None, id="nothing usable"
        ),
        pytest.param(
            {"prompt_tokens": MOST_TOKENS + 1, "completion_tokens": 3},
            (0, 0, 0, 3, 0),
            id="absurd count dropped",
        ),
        pytest.param({"total_tokens": 0, "total_characters": 0}, None, id="MiniMax: placeholder"),
        pytest.param({}, None, id="empty"),
    ],
)
def test_usage_is_read_in_disjoint_classes(body: dict[str, Any], expected: tuple[int, ...] | None) -> None:
    assert classes(from_openai(body)) == expected


count = st.integers(min_value=0, max_value=10**7)
garbage = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.lists(count, max_size=2),
    count,
)
details = st.one_of(
    garbage,
    st.dictionaries(
        st.sampled_from(
            ["cached_tokens", "cache_write_tokens", "cache_creation_input_tokens", "reasoning_tokens"]
        ),
        garbage,
    ),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": garbage,
            "completion_tokens": garbage,
            "input_tokens": garbage,
            "output_tokens": garbage,
            "total_tokens": garbage,
            "cached_tokens": garbage,
            "reasoning_tokens": garbage,
            "prompt_tokens_details": details,
            "completion_tokens_details": details,
        },
    )
)
def test_no_class_is_ever_negative_whatever_the_provider_sends(body: dict[str, Any]) -> None:
    read = from_openai(body)
    if read is not None:
        assert min(read.input, read.cached_input, read.cache_write, read.output, read.reasoning) >= 0
        assert read.reasoning <= read.output
        assert read.total > 0


@given(
    prompt=count,
    output=count,
    cached=count,
    written=count,
    reasoning=count,
    beside=st.booleans(),
    with_total=st.booleans(),
)
def test_the_classes_add_up_to_what_the_provider_calls_the_total(
    prompt: int, output: int, cached: int, written: int, reasoning: int, beside: bool, with_total: bool
) -> None:
    """``beside``: reasoning is counted beside the completion, as xAI does, and the total shows it."""
    beside = beside and with_total
    total = prompt + output + (reasoning if beside else 0)
    body: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    if with_total:
        body["total_tokens"] = total
    read = from_openai(body)
    if read is None:
        assert prompt + output == 0
    else:
        assert read.total == total
        assert read.input + read.cached_input + read.cache_write == prompt


def test_cached_tokens_cost_their_own_rate() -> None:
    read = from_openai(
        {
            "prompt_tokens": 24_643,
            "completion_tokens": 3_110,
            "total_tokens": 27_753,
            "prompt_tokens_details": {"cached_tokens": 24_503},
        }
    )
    assert read is not None
    assert ONE_FIFTY.amount(read) == Decimal("0.03187545")


def test_cache_writes_cost_their_own_rate() -> None:
    assert CACHE_WRITING.amount(usage(24_951, 64_126, 2_805, 854)) == Decimal("0.0684947375")


def test_a_class_without_a_rate_costs_what_input_costs() -> None:
    rates = Rates(3, Decimal(2), None, None, Decimal(5))
    assert rates.amount(usage(1, 10, 100, 1000)) == Decimal("0.005222")


def test_an_explicit_zero_is_a_price_and_a_missing_one_is_not() -> None:
    assert Rates(1, Decimal(0), None, None, Decimal(0)).priced_for("chat.completions")
    assert not Rates(1, Decimal(1)).priced_for("chat.completions")
    assert Rates(1, Decimal(1)).priced_for("embeddings")
    assert not Rates(1, None, None, None, Decimal(1)).priced_for("embeddings")


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Rates(1, Decimal(1), output=Decimal("-0.1"))


def test_the_charge_is_the_cost_with_its_markup() -> None:
    cost, charge = charge_of(usage(140, 24_503, 0, 3_110), ONE_FIFTY, None, Decimal("0.2"))
    assert (cost, charge) == (Decimal("0.03187545"), Decimal("0.03825054"))


def test_the_price_of_the_model_group_wins_over_the_markup() -> None:
    group = Rates(9, Decimal(10), output=Decimal(20))
    cost, charge = charge_of(usage(100, output=50), ONE_FIFTY, group, Decimal("0.2"))
    assert (cost, charge) == (Decimal("0.0006"), Decimal("0.002"))


def test_the_charge_is_rounded_once_and_not_after_the_cost() -> None:
    """One token at 0.0000015 per million is 1.5e-12, twice that 3e-12; a rounded cost would give 4e-12."""
    rates = Rates(1, Decimal("0.0000015"), output=Decimal(0))
    assert charge_of(usage(1), rates, None, Decimal(1)) == (Decimal("2E-12"), Decimal("3E-12"))


def test_long_numbers_are_not_rounded_before_the_end() -> None:
    rates = Rates(1, Decimal("123456789012.123456789012"), output=Decimal(0))
    assert rates.amount(usage(9_999_999_999)) == Decimal("1234567889997777.778877996543210988")


def test_a_worst_case_takes_the_dearest_class_of_input_and_rounds_up() -> None:
    assert worst_case(1_000_000, 1_000_000, CACHE_WRITING, None, Decimal(0)) == Decimal("10.9375")
    assert worst_case(1, 0, Rates(1, Decimal("0.0000001"), output=Decimal(0)), None, Decimal(0)) == Decimal(
        "1E-12"
    )
    assert worst_case(10, 10, CACHE_WRITING, Rates(2, Decimal(1), output=Decimal(2)), Decimal(9)) == Decimal(
        "0.00003"
    )


rate = st.decimals(min_value=0, max_value=10**6, places=12)


@given(
    st.builds(Rates, st.just(1), rate, st.none() | rate, st.none() | rate, rate),
    st.builds(Rates, st.just(2), rate, st.none() | rate, st.none() | rate, rate) | st.none(),
    st.decimals(min_value=0, max_value=9, places=6),
    st.tuples(count, count, count, count),
)
def test_no_charge_exceeds_the_worst_case_of_its_tokens(
    cost_rates: Rates, group: Rates | None, markup: Decimal, tokens: tuple[int, int, int, int]
) -> None:
    plain, cached, written, output = tokens
    _, charge = charge_of(usage(plain, cached, written, output), cost_rates, group, markup)
    assert charge <= worst_case(plain + cached + written, output, cost_rates, group, markup)
