"""Prices that the packaged catalogue would set for deployments: seen, chosen, set."""

from __future__ import annotations

from decimal import Decimal
from hashlib import blake2s

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render

from billing.services.price_sync import Proposal, apply_proposals, proposals
from billing.services.prices import PriceError
from gateway.operators.access import OperatorRequest, operators_only
from routing.access import deployments

# A rise beyond this share must be confirmed.
BOUND = Decimal("0.25")


def token(proposal: Proposal) -> str:
    """Names a proposal and all it says, so that nothing else is set than what was seen."""
    said = repr([(each.term, each.before, each.after) for each in proposal.differences])
    return f"{proposal.deployment.pk}-{blake2s(said.encode(), digest_size=8).hexdigest()}"


@operators_only
def price_sync(request: OperatorRequest) -> HttpResponse:
    """``/operator/prices/``. POST takes ``chosen`` proposals, and ``confirm`` where one rises by much."""
    found, unknown = proposals(deployments())
    chosen: set[str] = set()
    problem = ""
    if request.method == "POST":
        chosen = set(request.POST.getlist("chosen"))
        wanted = [proposal for proposal in found if token(proposal) in chosen]
        if not wanted or len(wanted) < len(chosen):
            problem = (
                "chosen: choose at least one."
                if not chosen
                else "chosen: a proposal has changed; look again."
            )
        elif any(proposal.exceeds(BOUND) for proposal in wanted) and not request.POST.get("confirm"):
            problem = "confirm: a chosen price rises by more than 25%. Confirm it to set the prices."
        else:
            try:
                apply_proposals(acting_user=request.user, found=wanted)
            except PriceError as error:
                problem = str(error)
            else:
                messages.success(request, f"{len(wanted)} prices are set, from this moment on.")
                return redirect("operator:price_sync")
    return render(
        request,
        "operators/prices.html",
        {
            "found": [
                (each, token(each), token(each) in chosen, each.exceeds(BOUND), (each.rise or 0) * 100)
                for each in found
            ],
            "unknown": unknown,
            "problem": problem,
        },
        status=422 if problem else 200,
    )
