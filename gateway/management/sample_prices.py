"""Prices that were and will be, for pictures of price histories."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from billing.models import Price
from billing.services.prices import set_price
from routing.models import Deployment, ModelGroup
from tenants.models import Organization


def make_price_story(organization: Organization, now: datetime) -> None:
    """``organization`` has been there for half a year, in which prices of ``sonnet`` and ``gpt-small`` fell, and
    had a price of its own for a while; the next ones are announced."""
    Organization.objects.filter(pk=organization.pk).update(created_at=now - timedelta(days=190))
    for name, days, price_in, cached, price_out in (
        ("gpt-small", 400, "0.40", None, "3.20"),
        ("gpt-small", 150, "0.30", "0.03", "2.40"),
        ("sonnet", 300, "4.00", "0.40", "20.00"),
        ("sonnet", 75, "3.50", "0.35", "17.50"),
        ("flash", 120, "0.10", None, "0.40"),
    ):
        Price.objects.create(
            deployment=Deployment.objects.get(name=name),
            effective_from=now - timedelta(days=days),
            input=Decimal(price_in),
            cached_input=None if cached is None else Decimal(cached),
            output=Decimal(price_out),
        )
    group = ModelGroup.objects.get(name="fast")
    for days, amounts in ((100, ("0.25", "1.90")), (35, (None, None))):
        Price.objects.create(
            model_group=group,
            organization=organization,
            effective_from=now - timedelta(days=days),
            input=amounts[0] and Decimal(amounts[0]),
            output=amounts[1] and Decimal(amounts[1]),
        )
    set_price(
        acting_user=None,
        deployment=Deployment.objects.get(name="gpt-small"),
        effective_from=now + timedelta(days=21),
        input=Decimal("0.20"),
        cached_input=Decimal("0.02"),
        output=Decimal("1.60"),
        tiers=[{"above": 200_000, "input": "0.40", "output": "2.40"}],
        peaks=[
            {
                "start": "09:00",
                "end": "12:00",
                "time_zone": "Asia/Shanghai",
                "days": ["mon", "tue", "wed", "thu", "fri"],
                "multiplier": "2",
            }
        ],
    )
