"""Amounts in other currencies, at the rate of their moment."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest

from billing.currencies import NoExchangeRate, convert
from billing.services.exchange_rates import BadRate, RateExists, set_exchange_rate
from gateway.configuration.apply import apply_configuration, load
from gateway.configuration.export import export
from gateway.configuration.problems import ConfigurationError
from tenants.models import Organization
from tests.billing.made_usage import utc

pytestmark = pytest.mark.django_db
NOVEMBER, DECEMBER = utc("2026-11-01"), utc("2026-12-01")


def enter(rate: str, begins: datetime) -> bool:
    """Whether it is new."""
    return set_exchange_rate(acting_user=None, currency="EUR", rate=Decimal(rate), effective_from=begins)[1]


def test_an_amount_is_converted_at_the_rate_of_its_moment() -> None:
    enter("0.92", NOVEMBER)
    enter("0.9", DECEMBER)
    assert convert(Decimal(10), "EUR", utc("2026-11-30T23:59")) == Decimal("9.2")
    assert convert(Decimal(10), "EUR", DECEMBER) == Decimal(9)
    assert convert(Decimal("0.03187545"), "EUR", NOVEMBER) == Decimal("0.029325414")


def test_us_dollars_need_no_rate() -> None:
    assert convert(Decimal("1.5"), "USD", NOVEMBER) == Decimal("1.5")


def test_without_a_rate_nothing_is_converted() -> None:
    enter("0.92", DECEMBER)
    with pytest.raises(NoExchangeRate, match="EUR"):
        convert(Decimal(1), "EUR", NOVEMBER)


def test_a_rate_is_entered_once_and_never_changed() -> None:
    assert enter("0.92", NOVEMBER)
    assert not enter("0.920", NOVEMBER)
    with pytest.raises(RateExists):
        enter("0.93", NOVEMBER)
    with pytest.raises(BadRate):
        enter("0", DECEMBER)


RATES = """\
exchange_rates:
  - {currency: EUR, rate: "0.92", effective_from: 2026-11-01}
organizations:
  - {slug: acme, name: Acme, currency: EUR}
"""


def test_the_file_enters_rates_once_and_sets_the_currency_of_an_organization() -> None:
    configuration, document = load(RATES, "weir.yaml", {})
    first = apply_configuration(configuration, document)
    assert "+ exchange rate 0.92 EUR from 2026-11-01" in [str(change) for change in first.changes]
    assert Organization.objects.get(slug="acme").currency == "EUR"
    assert apply_configuration(configuration, document).changes == []
    # And what is exported says the same.
    configuration, document = load(export(), "export.yaml", {})
    assert apply_configuration(configuration, document).changes == []


def test_a_currency_without_a_rate_is_refused() -> None:
    configuration, document = load(RATES.replace("currency: EUR}", "currency: CHF}"), "weir.yaml", {})
    with pytest.raises(ConfigurationError, match="no exchange rate for CHF"):
        apply_configuration(configuration, document)
