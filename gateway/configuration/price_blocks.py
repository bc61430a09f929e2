"""Prices between the file and the database."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from billing.models import Price
from billing.pricing import CLASSES
from billing.services.prices import end_price, price_in_force, set_price
from gateway.configuration.changes import FieldChange
from gateway.configuration.schema import PriceBlock
from routing.models import Deployment, ModelGroup
from tenants.models import Organization


def match_price(
    block: PriceBlock | None,
    field: str,
    *,
    deployment: Deployment | None = None,
    model_group: ModelGroup | None = None,
    organization: Organization | None = None,
) -> list[FieldChange]:
    """Make the price in force what the file says, or end it where the file says none. Raises ``PriceError``."""
    current = price_in_force(deployment=deployment, model_group=model_group, organization=organization)
    if block is None:
        if current is None:
            return []
        end_price(acting_user=None, deployment=deployment, model_group=model_group, organization=organization)
        return [FieldChange(field, _said(current), None)]
    price = set_price(
        acting_user=None,
        deployment=deployment,
        model_group=model_group,
        organization=organization,
        **terms_of(block),
    )
    if price == current:
        return []
    return [FieldChange(field, _said(current), _said(price))]


def terms_of(block: PriceBlock) -> dict[str, Any]:
    """A price of the file in the shape that is stored: amounts within lists as strings."""
    terms: dict[str, Any] = {name: getattr(block, name) for name in CLASSES}
    return {
        **terms,
        "minimum": block.minimum,
        "tiers": [_stored(tier.model_dump(exclude_none=True)) for tier in block.tiers],
        "peaks": [_stored(peak.model_dump(exclude_none=True)) for peak in block.peaks],
    }


def _stored(members: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in members.items()
        if value != []
    }


def _said(price: Price | None) -> dict[str, Any] | None:
    if price is None:
        return None
    return {name: value for name, value in price.terms().items() if value is not None and value != []}


def match_own_prices(blocks: dict[str, PriceBlock], organization: Organization) -> list[FieldChange]:
    """Make an organization's own prices those of the file, by model group; others end. Raises ``PriceError``."""
    known = ModelGroup.objects.filter(prices__organization=organization).distinct()
    groups = {group.name: group for group in known}
    groups |= {group.name: group for group in ModelGroup.objects.filter(name__in=blocks)}
    shown: list[FieldChange] = []
    for name, group in sorted(groups.items()):
        shown += match_price(blocks.get(name), f"prices.{name}", model_group=group, organization=organization)
    return shown
