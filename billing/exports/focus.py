"""Usage in the columns of FOCUS 1.0, the FinOps Open Cost and Usage Specification.

A row is what one key used of one class of one model group on one day at one price. The rows of a day and
key add up to what its requests were charged, to the last digit: each request was rounded once as a whole,
so what the classes lose or gain by rounding goes to the largest of them.
Source of the columns and their values: focus.finops.org, version 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby

from django.conf import settings
from django.db.models import Q
from django_scopes import scope

from billing.access import Names, names_of
from billing.calendars import period_bounds
from billing.charge_lines import ChargeLine, explained
from billing.exports.sheets import Row, Table
from billing.models import Price, UsageEvent
from billing.money import EXACT, MILLION, rounded
from billing.reports import days_of
from billing.usage_export import CHUNK, CURRENCY
from tenants.models import Organization

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_ChargeClass",
    "x_Deployment",
    "x_Member",
    "x_Requests",
)
_COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
TABLE = Table("focus", COLUMNS, {name: f"x_{name}Exact" for name in _COSTS})
ZERO = Decimal(0)
# What a policy charged, and what fills a request up to the minimum, is counted by the request.
POLICY, MINIMUM = "policy", "minimum"
DESCRIPTIONS = {
    POLICY: "Charged by policy: the request ended in another way than it was priced for",
    MINIMUM: "Up to the minimum charge of a request",
}
# Plural units of the specification's unit format; what is not here is tokens.
UNITS = {
    "image": "Images",
    "second": "Seconds",
    "character": "Characters",
    "search": "Searches",
    "request": "Requests",
    POLICY: "Requests",
    MINIMUM: "Requests",
}
_GROUPED = ("team_id", "key_id", "member_id", "model_group", "provider", "deployment")


@dataclass(frozen=True, slots=True)
class _Sku:
    """What a line is counted by: a class at a price."""

    name: str
    description: str
    price_id: int | None
    # US dollars per million or per one.
    price: Decimal | None
    list_price: Decimal | None
    per_million: bool


@dataclass(slots=True)
class _Line:
    quantity: Decimal = ZERO
    # US dollars, not rounded.
    amount: Decimal = ZERO
    list_amount: Decimal = ZERO
    requests: int = 0

    def add(self, quantity: Decimal, amount: Decimal, list_amount: Decimal) -> None:
        self.quantity = EXACT.add(self.quantity, quantity)
        self.amount = EXACT.add(self.amount, amount)
        self.list_amount = EXACT.add(self.list_amount, list_amount)
        self.requests += 1


@dataclass(slots=True)
class _Prices:
    """Price rows by id, and those of each model group that hold for everybody; read once each."""

    rows: dict[int, Price | None] = field(default_factory=dict)
    public: dict[int, list[Price]] = field(default_factory=dict)

    def row(self, price_id: int) -> Price | None:
        """The price row ``price_id``; None if it is gone."""
        if price_id not in self.rows:
            self.rows[price_id] = Price.objects.filter(pk=price_id).first()
        return self.rows[price_id]

    def listed(self, own: Price, at: datetime) -> Price | None:
        """What everybody else paid for the model group of ``own`` at ``at``; None where nothing said so."""
        group = own.model_group_id
        if group is None:
            return None
        if group not in self.public:
            prices = Price.objects.filter(model_group_id=group, organization=None)
            self.public[group] = list(prices.order_by("-effective_from"))
        found = next((price for price in self.public[group] if price.effective_from <= at), None)
        return found if found is not None and found.rates.priced else None


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one key and model group on one day, its requests and their charge, in US dollars."""

    rows: list[Row]
    requests: int
    charge: Decimal


def focus_rows(
    organization: Organization, start: datetime, end: datetime, *, where: Q | None = None
) -> Iterator[Row]:
    """The rows for the requests begun in ``[start, end)``."""
    for part in focus_parts(organization, start, end, where=where):
        yield from part.rows


def focus_parts(
    organization: Organization, start: datetime, end: datetime, *, where: Q | None = None
) -> Iterator[Part]:
    """The same part by part, day by day of the organization's calendar, the requests of each day at one moment.

    Memory grows with the classes a key used on a day, not with the requests.
    """
    names, prices = names_of(organization), _Prices()
    firsts = [max(first, start) for _, first in days_of(organization, start, end)]
    for first, after in zip(firsts, [*firsts[1:], end], strict=True):
        with scope(organization=organization):
            events = (
                UsageEvent.objects.filter(
                    where or Q(), organization=organization, started_at__gte=first, started_at__lt=after
                )
                .defer("attempts", "tags", "budget_ids")
                .order_by(*_GROUPED, "started_at", "request_id")
            )
        found = events.iterator(chunk_size=CHUNK)
        for _, of_group in groupby(found, key=lambda event: [getattr(event, name) for name in _GROUPED]):
            group = _summed(of_group, prices)
            yield Part(list(_rows(organization, (first, after), group, names)), group.requests, group.charge)


@dataclass(slots=True)
class _Group:
    """What one key used of one model group at one deployment on a day."""

    sample: UsageEvent
    lines: dict[_Sku, _Line]
    charge: Decimal
    requests: int = 0


def _summed(events: Iterator[UsageEvent], prices: _Prices) -> _Group:
    """The sums of ``events``, of which there is at least one."""
    group: _Group | None = None
    for event in events:
        if group is None:
            group = _Group(event, {}, ZERO)
        group.charge = EXACT.add(group.charge, event.charge)
        group.requests += 1
        for sku, quantity, amount, list_amount in _priced(event, prices):
            group.lines.setdefault(sku, _Line()).add(quantity, amount, list_amount)
    assert group is not None  # noqa: S101  # groupby makes no empty group
    return group


def _priced(event: UsageEvent, prices: _Prices) -> Iterator[tuple[_Sku, Decimal, Decimal, Decimal]]:
    """The classes of one request: quantity, amount and amount at the list price."""
    price_id = event.cost_price_id if event.charge_price_id is None else event.charge_price_id
    row = None if price_id is None else prices.row(price_id)
    found = None if row is None else explained(event, row)
    if row is None or found is None or not found.agrees:
        if event.charge:
            sku = _Sku(POLICY, DESCRIPTIONS[POLICY], price_id, None, None, per_million=False)
            yield sku, Decimal(1), event.charge, event.charge
        return
    listed: dict[str, ChargeLine] = {}
    if row.organization_id is not None and (public := prices.listed(row, event.started_at)) is not None:
        listed = {line.name: line for line in explained(event, public).lines}
    for line in found.lines:
        if line.quantity == 0:
            continue
        at_list = listed.get(line.name, line)
        sku = _Sku(
            line.name,
            DESCRIPTIONS.get(line.name, line.label),
            price_id,
            line.price,
            at_list.price,
            line.per_million,
        )
        yield sku, Decimal(1) if line.quantity is None else line.quantity, line.amount, at_list.amount


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _rows(
    organization: Organization, day: tuple[datetime, datetime], group: _Group, names: Names
) -> Iterator[Row]:
    sample = group.sample
    month = period_bounds("month", sample.started_at, organization.time_zone)
    issuer = settings.STATEMENT_ISSUER.partition("\n")[0]
    team, model = names.team(sample.team_id), sample.model_group or "none"
    costs = {sku: rounded(line.amount) for sku, line in group.lines.items()}
    if costs:
        # Of equals the first; dictionaries keep their order.
        largest = max(costs, key=lambda sku: costs[sku])
        rest = EXACT.subtract(group.charge, sum(costs.values(), ZERO))
        costs[largest] = EXACT.add(costs[largest], rest)
    for sku, line in group.lines.items():
        unit = UNITS.get(sku.name, "Tokens")
        cost = costs[sku]
        yield {
            "BilledCost": cost,
            "BillingAccountId": organization.slug,
            "BillingAccountName": organization.name,
            "BillingCurrency": CURRENCY,
            "BillingPeriodEnd": _moment(month[1] or day[1]),
            "BillingPeriodStart": _moment(month[0]),
            "ChargeCategory": "Usage",
            "ChargeClass": None,
            "ChargeDescription": f"{model}: {sku.description}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodEnd": _moment(day[1]),
            "ChargePeriodStart": _moment(day[0]),
            "CommitmentDiscountCategory": None,
            "CommitmentDiscountId": None,
            "CommitmentDiscountName": None,
            "CommitmentDiscountStatus": None,
            "CommitmentDiscountType": None,
            "ConsumedQuantity": line.quantity,
            "ConsumedUnit": unit,
            "ContractedCost": cost,
            "ContractedUnitPrice": sku.price,
            "EffectiveCost": cost,
            "InvoiceIssuerName": issuer,
            "ListCost": cost if sku.price == sku.list_price else rounded(line.list_amount),
            "ListUnitPrice": sku.list_price,
            "PricingCategory": "Other" if sku.name == POLICY else "Standard",
            "PricingQuantity": EXACT.divide(line.quantity, MILLION) if sku.per_million else line.quantity,
            "PricingUnit": f"1000000 {unit}" if sku.per_million else unit,
            "ProviderName": issuer,
            "PublisherName": sample.provider or issuer,
            "RegionId": None,
            "RegionName": None,
            "ResourceId": f"key-{sample.key_id}",
            "ResourceName": names.key(sample.key_id),
            "ResourceType": "API key",
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": model,
            "SkuId": f"{model}/{sku.name}",
            "SkuPriceId": f"{sku.price_id or 'none'}/{sku.name}",
            "SubAccountId": team,
            "SubAccountName": team,
            "Tags": {"model_group": model, "team": team},
            "x_ChargeClass": sku.name,
            "x_Deployment": sample.deployment,
            "x_Member": names.member(sample.member_id),
            "x_Requests": line.requests,
        }
