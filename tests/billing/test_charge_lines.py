"""The explanation of a charge: tokens times price is the amount, and the lines add up to the charge."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing.charge_lines import explain
from billing.models import Price
from routing.models import Deployment, ModelGroup, Provider
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def price(**rates: str) -> Price:
    """A price of the deployment ``gpt-small``."""
    provider = Provider.objects.create(name="openai", kind="openai", base_url="https://openai.example")
    deployment = Deployment.objects.create(name="gpt-small", provider=provider, model="gpt")
    amounts: dict[str, Any] = {name: Decimal(rate) for name, rate in rates.items()}
    return Price.objects.create(deployment=deployment, effective_from=utc("2026-01-01"), **amounts)


def test_each_class_is_tokens_times_price_and_the_lines_add_up(acme: Tenant) -> None:
    group = ModelGroup.objects.create(name="fast")
    row = Price.objects.create(
        model_group=group, effective_from=utc("2026-01-01"), input=Decimal("0.30"),
        cached_input=Decimal("0.03"), cache_write=Decimal("0.5"), output=Decimal("2.40"),
    )  # fmt: skip
    used = event(
        acme.backend, "2026-03-01T10:00", "req-1", "0.003321", charge_price_id=row.pk, cost_price_id=9,
        input_tokens=1000, cached_input_tokens=200, cache_write_tokens=30, output_tokens=1250, markup=Decimal("0.2"),
    )  # fmt: skip
    found = explain(used)
    # 1000 x 0.30 = 300; 200 x 0.03 = 6; 30 x 0.5 = 15; 1250 x 2.40 = 3000 millionths: 3321 in all.
    assert found.source == "model"
    assert [(line.quantity, line.price, line.amount) for line in found.lines] == [
        (Decimal(1000), Decimal("0.30"), Decimal("0.0003")),
        (Decimal(200), Decimal("0.03"), Decimal("0.000006")),
        (Decimal(30), Decimal("0.5"), Decimal("0.000015")),
        (Decimal(1250), Decimal("2.40"), Decimal("0.003")),
    ]
    assert found.worth == Decimal("0.003321")
    assert found.agrees


def test_a_markup_is_in_every_price(acme: Tenant) -> None:
    row = price(input="0.25", output="2")
    used = event(
        acme.backend, "2026-03-01T10:00", "req-1", "0.0027", cost_price_id=row.pk, markup=Decimal("0.2"),
        input_tokens=1000, output_tokens=1000,
    )  # fmt: skip
    found = explain(used)
    # A fifth on top: 0.30 and 2.40 a million.
    assert (found.source, found.lines[0].price, found.lines[3].price) == (
        "provider",
        Decimal("0.30"),
        Decimal("2.4"),
    )
    assert found.agrees


def test_a_class_without_a_price_costs_what_input_costs_and_an_explicit_zero_is_a_price(acme: Tenant) -> None:
    row = price(input="1", cache_write="0", output="1")
    used = event(
        acme.backend, "2026-03-01T10:00", "req-1", "0.000002", cost_price_id=row.pk,
        cached_input_tokens=2, cache_write_tokens=50,
    )  # fmt: skip
    found = explain(used)
    assert [line.price for line in found.lines] == [1, 1, 0, 1]
    assert found.agrees


def test_what_policy_did_not_charge_is_told(acme: Tenant) -> None:
    row = price(input="1", output="1")
    lost = event(
        acme.backend, "2026-03-01T10:00", "req-1", "0", cost_price_id=row.pk, input_tokens=1000,
        end_reason="interrupted", status=500,
    )  # fmt: skip
    found = explain(lost)
    assert (found.worth, found.charge, found.agrees) == (Decimal("0.001"), Decimal(0), False)


def test_a_deleted_price_leaves_the_charge_as_it_was(acme: Tenant) -> None:
    found = explain(
        event(acme.backend, "2026-03-01T10:00", "req-1", "5", cost_price_id=10**9, input_tokens=1)
    )
    assert (found.source, found.lines, found.worth, found.agrees) == ("gone", [], Decimal(5), True)


def test_a_refused_request_has_nothing_to_explain(acme: Tenant) -> None:
    found = explain(event(acme.backend, "2026-03-01T10:00", "req-1", end_reason="refused", status=429))
    assert (found.source, found.lines, found.agrees) == ("none", [], True)
