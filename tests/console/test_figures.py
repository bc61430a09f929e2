"""How the console writes money, counts, shares and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from gateway.templatetags.console import ago, compact, exact, meter, money, number, percent


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        ("0", "$0.00"),
        ("1234567.891", "$1,234,567.89"),
        ("-0.5", "-$0.50"),
        ("0.01", "$0.01"),
        # Below a cent, two significant digits.
        ("0.004", "$0.0040"),
        ("0.0000123", "$0.000012"),
        ("123456789012.123456789012", "$123,456,789,012.12"),
    ],
)
def test_money_is_written_in_cents_or_two_significant_digits(amount: str, written: str) -> None:
    assert money(Decimal(amount)) == written


def test_the_exact_amount_keeps_every_digit() -> None:
    assert exact(Decimal("123456789012.123456789012")) == "123456789012.123456789012"
    assert exact(Decimal("1.500000000000")) == "1.50"


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1200, "1.2k"),
        (999_999, "1M"),
        (3_432_100, "3.43M"),
        (150_000, "150k"),
    ],
)
def test_a_large_count_is_written_in_three_digits(count: int, written: str) -> None:
    assert compact(count) == written


def test_counts_and_shares() -> None:
    assert number(1234567) == "1,234,567"
    assert number(Decimal("3000.000000000000")) == "3,000"
    assert percent(1, 3) == "33%"
    assert percent(1, 40) == "2.5%"
    assert percent(5, 0) == "100%"
    assert percent(0, 0) == "0%"


def test_a_meter_never_leaves_its_frame_and_warns_in_time() -> None:
    over = meter(Decimal(150), Decimal(100), Decimal(50))
    assert 'class="meter bad ' in over
    assert 'width="100.00"' in over
    assert 'x="100.00" width="0.00"' in over
    assert 'class="meter warn ' in meter(Decimal(80), Decimal(100))
    assert 'class="meter  ' in meter(Decimal("79.9"), Decimal(100))


@pytest.mark.parametrize(
    ("distance", "written"),
    [
        (timedelta(seconds=10), "just now"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=3, minutes=2), "3 h ago"),
        (timedelta(days=1, hours=1), "1 day ago"),
        (timedelta(days=30), "30 days ago"),
        (timedelta(days=-9), "in 9 days"),
    ],
)
def test_a_moment_is_told_by_its_distance(distance: timedelta, written: str) -> None:
    assert ago(datetime.now(UTC) - distance) == written
