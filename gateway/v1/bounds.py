"""Bounds on the answer: what it can cost at most, and the bound a provider is told so that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from billing.pricing import Rates, worst_case
from gateway.v1.exchange import Offer
from gateway.v1.facts import DEFAULT_OUTPUT_TOKENS, Facts
from routing.dialects import dialect
from routing.table import DeploymentSpec

# An answer that is cut shorter than this, in tokens, is of no use to anyone.
LEAST_OUTPUT_TOKENS = 16
# The names under which a client bounds the answer.
BOUND_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def most(facts: Facts, offer: Offer, markup: Decimal) -> Decimal:
    """US dollars this request can cost at most there."""
    return most_at(facts, offer.candidate.deployment, offer.cost_rates, offer.price_rates, markup)


def most_at(
    facts: Facts, deployment: DeploymentSpec, cost_rates: Rates, price_rates: Rates | None, markup: Decimal
) -> Decimal:
    """US dollars this request can cost at most at a deployment, by these rates."""
    output = facts.output_bound
    if output is None:
        output = _own_bound(deployment) * facts.choices
    else:
        output += _beside(facts, deployment)
    return worst_case(most_input(facts, deployment), output, cost_rates, price_rates, markup, facts.units)


def most_input(facts: Facts, deployment: DeploymentSpec) -> int:
    """Tokens the prompt can have at most there. Of files no more than the context window holds."""
    files = facts.files_bound
    if files and deployment.context_window is not None:
        files = min(files, deployment.context_window)
    return facts.input_bound + files


def _beside(facts: Facts, deployment: DeploymentSpec) -> int:
    """Tokens that the model may think at most beside an answer that the request bounds."""
    provider = deployment.provider
    if not dialect(provider.kind.name, provider.base_url).thinks_beside_bound(deployment):
        return 0
    return _own_bound(deployment) * facts.choices


def lowered(facts: Facts, offers: Sequence[Offer], markup: Decimal, left: Decimal) -> int | None:
    """The highest bound, in tokens of each choice, whose worst case ``left`` US dollars cover.

    None where not even ``LEAST_OUTPUT_TOKENS`` fit, or where the request's own bound is that low.
    """
    if facts.output_bound is None:
        high = min(_own_bound(offer.candidate.deployment) for offer in offers)
    else:
        high = facts.output_bound // facts.choices

    def fits(tokens: int) -> bool:
        output = tokens * facts.choices
        return all(
            worst_case(
                most_input(facts, offer.candidate.deployment),
                output + _beside(facts, offer.candidate.deployment),
                offer.cost_rates,
                offer.price_rates,
                markup,
                facts.units,
            )
            <= left
            for offer in offers
        )

    low = LEAST_OUTPUT_TOKENS
    if high <= low or not fits(low):
        return None
    # The worst case grows with the bound: halve the way to the last that fits.
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def lower(facts: Facts, tokens: int) -> None:
    """Bound each choice to ``tokens``, by the names the client used."""
    facts.output_bound = tokens * facts.choices
    named = [name for name in BOUND_NAMES if facts.body.get(name) is not None]
    for name in named or BOUND_NAMES[:1]:
        facts.body[name] = tokens


def _own_bound(deployment: DeploymentSpec) -> int:
    """Tokens of one choice where the client set no bound."""
    return deployment.max_output_tokens or DEFAULT_OUTPUT_TOKENS
