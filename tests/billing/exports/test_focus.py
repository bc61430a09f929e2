"""FOCUS: the specification's columns, and rows that add up to what was charged, to the last digit."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import focus_validator  # type: ignore[import-untyped]  # it has no types
import pandas  # type: ignore[import-untyped]  # as above
import pytest
from focus_validator.rules.spec_rules import SpecRules  # type: ignore[import-untyped]  # it has no types
from focus_validator.validator import DEFAULT_VERSION_SETS_PATH  # type: ignore[import-untyped]  # it has no types

from billing.exports.focus import TABLE, focus_rows
from billing.exports.sheets import Row, sheet
from billing.models import Price
from routing.models import Deployment, ModelGroup, Provider
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db

# March in Berlin: the clocks change on the 29th.
MARCH = (utc("2026-02-28T23:00"), utc("2026-03-31T22:00"))
# The validator's names for columns that the specification calls otherwise.
VALIDATOR = {
    "ProviderName": "Provider",
    "PublisherName": "Publisher",
    "InvoiceIssuerName": "InvoiceIssuer",
    "ResourceId": "ResourceID",
}


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def group_price(tenant: Tenant | None = None, since: str = "2026-01-01", **rates: str) -> Price:
    """A price of the model group ``fast``; of one tenant, or of all."""
    group, _ = ModelGroup.objects.get_or_create(name="fast")
    amounts: dict[str, Any] = {name: Decimal(rate) for name, rate in rates.items()}
    return Price.objects.create(
        model_group=group,
        organization=tenant.organization if tenant else None,
        effective_from=utc(since),
        **amounts,
    )


def rows_of(tenant: Tenant) -> list[Row]:
    return list(focus_rows(tenant.organization, *MARCH))


def billed(rows: list[Row]) -> Decimal:
    return sum((Decimal(str(row["BilledCost"])) for row in rows), Decimal(0))


def test_a_request_is_one_row_for_each_class(acme: Tenant) -> None:
    price = group_price(input="0.30", output="2.40")
    # 1000 x 0.30 + 500 x 2.40 = 1500 millionths.
    event(
        acme.backend, "2026-03-02T10:00", "req-1", "0.0015", charge_price_id=price.pk, input_tokens=1000,
        output_tokens=500,
    )  # fmt: skip
    rows = rows_of(acme)
    assert [
        (row["SkuId"], row["ConsumedQuantity"], row["PricingQuantity"], row["PricingUnit"], row["BilledCost"])
        for row in rows
    ] == [
        ("fast/input", Decimal(1000), Decimal("0.001"), "1000000 Tokens", Decimal("0.0003")),
        ("fast/output", Decimal(500), Decimal("0.0005"), "1000000 Tokens", Decimal("0.0012")),
    ]
    assert {row["SubAccountId"] for row in rows} == {"search"}
    assert {(row["ResourceName"], row["x_Member"]) for row in rows} == {("backend", "ann@acme.example")}


def test_requests_of_a_day_and_key_are_one_row_by_the_organizations_calendar(acme: Tenant) -> None:
    price = group_price(input="1", output="1")
    used: dict[str, Any] = {"charge_price_id": price.pk, "input_tokens": 1_000_000}
    # 1 March ends at 23:00 UTC in Berlin; the 29th begins there and ends at 22:00, when the clocks have changed.
    for number, at in enumerate(
        ("2026-03-01T10:00", "2026-03-01T22:59", "2026-03-01T23:00", "2026-03-29T21:59")
    ):
        event(acme.backend, at, f"req-{number}", "1", **used)
    event(acme.banner, "2026-03-01T10:00", "req-9", "1", **used)
    assert [
        (row["ChargePeriodStart"], row["ChargePeriodEnd"], row["ResourceName"], row["BilledCost"])
        for row in rows_of(acme)
    ] == [
        ("2026-02-28T23:00:00Z", "2026-03-01T23:00:00Z", "backend", Decimal(2)),
        ("2026-02-28T23:00:00Z", "2026-03-01T23:00:00Z", "banner", Decimal(1)),
        ("2026-03-01T23:00:00Z", "2026-03-02T23:00:00Z", "backend", Decimal(1)),
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "backend", Decimal(1)),
    ]
    assert {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in rows_of(acme)} == {
        ("2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z")
    }


def test_what_is_lost_by_rounding_goes_to_the_largest_class(acme: Tenant) -> None:
    price = group_price(input="0.0000005", output="0.0000003")
    # Each: 1 x 0.5 + 1 x 0.3 = 0.8 of the last digit, charged as 1. Of three: 1.5 and 0.9 are 2 and 1, which
    # happens to be 3. Of four: 2 and 1.2 are 2 and 1, one is missing; input is the largest.
    for number in range(4):
        event(
            acme.backend, "2026-03-02T10:00", f"req-{number}", "0.000000000001", charge_price_id=price.pk,
            input_tokens=1, output_tokens=1,
        )  # fmt: skip
    rows = rows_of(acme)
    assert [(row["x_ChargeClass"], row["BilledCost"]) for row in rows] == [
        ("input", Decimal("0.000000000003")),
        ("output", Decimal("0.000000000001")),
    ]


def test_two_prices_of_a_class_are_two_rows(acme: Tenant) -> None:
    old, new = group_price(input="1"), group_price(input="2", since="2026-03-02")
    for number, price in enumerate((old, new)):
        event(
            acme.backend, "2026-03-02T10:00", f"req-{number}", str(number + 1), charge_price_id=price.pk,
            input_tokens=1_000_000,
        )  # fmt: skip
    assert [(row["ContractedUnitPrice"], row["BilledCost"]) for row in rows_of(acme)] == [
        (Decimal(1), Decimal(1)),
        (Decimal(2), Decimal(2)),
    ]


def test_an_own_price_stands_beside_the_list_price(acme: Tenant) -> None:
    group_price(input="3")
    own = group_price(acme, input="2")
    event(
        acme.backend, "2026-03-02T10:00", "req-1", "4", charge_price_id=own.pk, input_tokens=2_000_000,
    )  # fmt: skip
    (row,) = rows_of(acme)
    assert (row["ListUnitPrice"], row["ListCost"]) == (Decimal(3), Decimal(6))
    assert (row["ContractedUnitPrice"], row["ContractedCost"]) == (Decimal(2), Decimal(4))
    assert (row["BilledCost"], row["EffectiveCost"]) == (Decimal(4), Decimal(4))


def test_the_markup_is_in_the_price(acme: Tenant) -> None:
    provider = Provider.objects.create(name="openai", kind="openai", base_url="https://openai.example")
    deployment = Deployment.objects.create(name="gpt-small", provider=provider, model="gpt")
    price = Price.objects.create(deployment=deployment, effective_from=utc("2026-01-01"), input=Decimal(10))
    event(
        acme.backend, "2026-03-02T10:00", "req-1", "12", cost_price_id=price.pk, markup=Decimal("0.2"),
        input_tokens=1_000_000,
    )  # fmt: skip
    (row,) = rows_of(acme)
    assert (row["ContractedUnitPrice"], row["BilledCost"], row["PublisherName"]) == (
        Decimal(12), Decimal(12), "openai",
    )  # fmt: skip


@pytest.mark.parametrize("price_id", [None, 999_999])
def test_what_no_price_explains_is_one_row_charged_by_policy(acme: Tenant, price_id: int | None) -> None:
    event(acme.backend, "2026-03-02T10:00", "req-1", "0.25", charge_price_id=price_id, input_tokens=10)
    (row,) = rows_of(acme)
    assert (row["x_ChargeClass"], row["PricingUnit"], row["PricingQuantity"], row["BilledCost"]) == (
        "policy", "Requests", Decimal(1), Decimal("0.25"),
    )  # fmt: skip


def test_a_refused_request_has_no_row(acme: Tenant) -> None:
    event(acme.backend, "2026-03-02T10:00", "req-1", "0", status=429, end_reason="refused")
    assert rows_of(acme) == []


def test_another_tenants_usage_is_never_in(acme: Tenant) -> None:
    event(make_tenant("globex").backend, "2026-03-02T10:00", "theirs", "1")
    assert rows_of(acme) == []


def as_csv(tenant: Tenant) -> str:
    file = io.BytesIO()
    with sheet(file, TABLE, "csv") as begun:
        begun.add(focus_rows(tenant.organization, *MARCH))
    return file.getvalue().decode()


def test_the_validator_finds_nothing_and_the_total_is_what_was_charged(
    acme: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = group_price(
        input="0.30", cached_input="0.03", output="2.40", image="0.04", request="0.001", minimum="0.01"
    )
    used: dict[str, Any] = {"charge_price_id": price.pk, "input_tokens": 1000, "quantities": {"images": "2"}}
    # 0.0003 + 0.08 + 0.001; then one below the minimum; then one by policy, and one of a key called like a formula.
    event(acme.backend, "2026-03-02T10:00", "req-1", "0.0813", **used)
    event(acme.backend, "2026-03-02T11:00", "req-2", "0.01", charge_price_id=price.pk, input_tokens=10)
    event(acme.batch, "2026-03-04T10:00", "req-3", "0.000000000007", end_reason="interrupted")
    acme.banner.name = "=1+1"
    acme.banner.save(update_fields=["name"])
    event(acme.banner, "2026-03-04T10:00", "req-4", "0.0813", **used)
    text = as_csv(acme)
    assert "'=1+1" in text
    parsed = list(csv.DictReader(io.StringIO(text, newline="")))
    # 0.0813 + 0.01 + 0.000000000007 + 0.0813
    for column in ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost"):
        assert sum(Decimal(row[column]) for row in parsed) == Decimal("0.172600000007")
    first, _, rest = text.partition("\r\n")
    renamed = ",".join(VALIDATOR.get(name, name) for name in first.split(","))
    file = tmp_path / "focus.csv"
    file.write_text(f"{renamed}\r\n{rest}")
    data = pandas.read_csv(file)
    # One of its rules still asks for a column of version 0.5.
    data["ChargeType"] = data["ChargeCategory"]
    # It looks for its list of currencies below the working directory.
    monkeypatch.chdir(Path(focus_validator.__file__).parent.parent)
    rules = SpecRules(
        override_filename=None,
        rule_set_path=DEFAULT_VERSION_SETS_PATH,
        rules_version="1.0",
        column_namespace=None,
    )
    rules.load()
    result = rules.validate(data)
    assert len(result.checklist) > 100
    assert result.failure_cases is None, result.failure_cases
