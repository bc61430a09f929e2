"""Amounts in other currencies, at the rate of their moment."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest

from billing.currencies import NoExchangeRate, rate_at
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


def test_a_rate_is_in_force_from_its_moment_on() -> None:
    enter("0.92", NOVEMBER)
    enter("0.9", DECEMBER)
    assert rate_at("EUR", NOVEMBER) == rate_at("EUR", utc("2026-11-30T23:59")) == Decimal("0.92")
    assert rate_at("EUR", DECEMBER) == Decimal("0.9")


def test_us_dollars_need_no_rate() -> None:
    assert rate_at("USD", NOVEMBER) == 1


def test_before_its_first_rate_a_currency_has_none() -> None:
    enter("0.92", DECEMBER)
    with pytest.raises(NoExchangeRate, match="EUR"):
        rate_at("EUR", NOVEMBER)


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
