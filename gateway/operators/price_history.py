"""What the provider of a deployment has asked over time, and will ask as far as that is set."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from billing.models import Price
from gateway.console.model_prices import TenantPrice
from gateway.console.price_history import shown
from gateway.console.price_steps import Offer, Step
from gateway.operators.access import OperatorRequest, operators_only
from routing.models import Deployment


def steps_of(found: Deployment) -> list[Step]:
    """Each price of ``found``, oldest first; one without any rate ends the one before."""
    rows = list(Price.objects.filter(deployment=found).order_by("effective_from", "pk"))
    ends = [*(row.effective_from for row in rows[1:]), None]
    return [
        Step(
            row.effective_from,
            until,
            (Offer(TenantPrice("cost", row.rates), ()),) if row.rates.priced else (),
        )
        for row, until in zip(rows, ends, strict=True)
    ]


@operators_only
def deployment_prices(request: OperatorRequest, name: str) -> HttpResponse:
    """``/operator/deployments/<name>/prices/``. ``?class=`` chooses what the chart shows."""
    found = get_object_or_404(Deployment.objects.select_related("provider"), name=name)
    return render(
        request,
        "operators/deployments/prices.html",
        {"deployment": found, **shown(steps_of(found), request.GET, datetime.now(UTC))},
    )
