"""Which deployments may serve a request, in which order, at which prices."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Protocol

from billing.pricing import Rates
from gateway.v1.affinity import LEAST_TOKENS, Homes, conversation_of, keep
from gateway.v1.bounds import most_at
from gateway.v1.errors import InvalidRequest, NotAllowed, NotFound, Unavailable, V1Error
from gateway.v1.exchange import Exchange, Offer
from gateway.v1.facts import DEFAULT_OUTPUT_TOKENS, Facts
from gateway.v1.pulse import Pulse
from gateway.v1.rates import RateBook
from gateway.v1.turns import MAX_ATTEMPTS, unserved
from routing import policy
from routing.policy import Candidate, Need, NoCandidate, Signals
from routing.table import DeploymentSpec, GroupSpec, RoutingTable

# More than can be tried for one request, as some may have opened their circuit by their turn.
MOST_OFFERS = 2 * MAX_ATTEMPTS
_random = Random()  # noqa: S311  # spreads load, guards nothing


class Sight(Protocol):
    """What offers are made from: a worker has it, and so has whoever tries a request without sending it."""

    @property
    def table(self) -> RoutingTable:
        """The deployments and groups in use."""
        ...

    @property
    def rates(self) -> RateBook:
        """Every price."""
        ...

    @property
    def pulse(self) -> Pulse:
        """What is known of circuits and requests in flight."""
        ...

    @property
    def affinity(self) -> Homes:
        """Where conversations are cached."""
        ...


def offers_for(worker: Sight, exchange: Exchange) -> list[Offer]:
    """The offers for a request, best first.

    Raises NotFound, NotAllowed, InvalidRequest or Unavailable, each saying what is wrong with the model.
    """
    principal, facts = exchange.principal, exchange.facts
    assert principal is not None and facts is not None  # noqa: S101, PT018  # read before routing
    name, pin = facts.model, ""
    group = worker.table.groups.get(name)
    if group is None:
        # No group's name has a slash.
        name, _, pin = name.partition("/")
        group = worker.table.groups.get(name)
    if group is None or not principal.may_see(name) or (pin and not may_pin(group, pin)):
        raise no_model(facts.model)
    if not principal.may_use(name):
        raise NotAllowed(
            f"This API key may not use the model `{printable(facts.model)}`.",
            param="model",
            code="model_not_allowed",
        )
    # Quotas of the group bind its deployments too.
    facts.model, facts.pin = name, pin
    try:
        need, signals = _need(exchange), _signals(worker, exchange)
        if pin:
            found = [policy.pinned(worker.table, group, pin, need, signals, principal.may_use)]
        else:
            found = policy.order(worker.table, group, need, signals, _random, principal.may_use)
    except NoCandidate as problem:
        if problem.reason == "unpriced":
            raise _unpriced(group.name, facts) from None
        raise _unserved(problem) from None
    found, credential = _where_cached(worker, exchange, found)
    offers = _priced(worker, exchange, found)
    if not offers:
        raise _unpriced(group.name, facts)
    if credential:
        offers[0] = replace(offers[0], credential=credential)
    if not worker.pulse.available(offers[0].candidate.deployment):
        # The available ones come first, so there is none.
        raise unserved(worker.pulse, [offer.candidate.deployment for offer in offers], facts.endpoint)
    return offers


def offers_after(worker: Sight, exchange: Exchange, reason: str, tried: set[int]) -> list[Offer]:
    """Offers of the groups named for a refusal (``context_window``, ``content_filter``), without those tried."""
    principal, offer, facts = exchange.principal, exchange.offer, exchange.facts
    assert principal is not None and offer is not None and facts is not None  # noqa: S101, PT018  # an attempt was made
    asked = worker.table.groups.get(facts.model)
    if facts.pin or asked is None:
        return []
    group = offer.candidate.group
    names = {"context_window": group.on_context_window, "content_filter": group.on_content_filter}.get(
        reason, ()
    )
    if not names:
        return []
    signals = _signals(worker, exchange)
    # What narrows the group that was asked for holds for every other too.
    need = policy.routed(worker.table, asked, _need(exchange), principal.may_use).need
    found = policy.fallbacks(worker.table, names, need, signals, _random, principal.may_use, tried)
    return _priced(worker, exchange, found)


def _where_cached(worker: Sight, exchange: Exchange, found: list[Candidate]) -> tuple[list[Candidate], str]:
    """The candidates, first of them who has the conversation's prompt cached, if that saves money; and the
    credential to ask that one with."""
    facts, principal = exchange.facts, exchange.principal
    assert facts is not None and principal is not None  # noqa: S101, PT018  # read before routing
    first = found[0]
    if (
        exchange.endpoint != "chat.completions"
        or not first.group.affinity
        or (len(found) == 1 and len(first.deployment.provider.secrets) < 2)
        or facts.input_tokens < LEAST_TOKENS
    ):
        return found, ""
    exchange.conversation = conversation_of(facts, principal.organization_id)
    home = worker.affinity.home(exchange.conversation)
    if home is None:
        return found, ""
    return keep(found, home, facts, worker.pulse, worker.rates, exchange)


def may_pin(group: GroupSpec, name: str) -> bool:
    """Whether clients may ask for ``group/name``."""
    return group.pin and any(member.deployment.name == name for member in group.members)


def no_model(name: str) -> NotFound:
    """The error for a model that is not there, as far as the caller can see; in OpenAI's words."""
    return NotFound(
        f"The model `{printable(name)}` does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def no_address(method: str, path: str) -> NotFound:
    """The error for an address that is not there, in OpenAI's words."""
    return NotFound(f"Invalid URL ({method} {printable(path)})", code="unknown_url")


def printable(text: str) -> str:
    """What a client sent, as an error may repeat it: short and without control characters."""
    return "".join(character for character in text[:200] if character.isprintable())


def _priced(worker: Sight, exchange: Exchange, candidates: list[Candidate]) -> list[Offer]:
    """The candidates with the prices in force; those that are not priced for this endpoint are left out."""
    principal, facts = exchange.principal, exchange.facts
    assert principal is not None and facts is not None  # noqa: S101, PT018  # read before routing
    organization, endpoint, classes = principal.organization_id, exchange.endpoint, facts.classes
    offers = []
    for candidate in candidates:
        cost = worker.rates.cost(candidate.deployment.id, exchange.started_at)
        price = worker.rates.price(candidate.group.id, organization, exchange.started_at)
        if cost is None or not cost.priced_for(endpoint, classes):
            continue
        if price is not None and not price.priced_for(endpoint, classes):
            continue
        offers.append(Offer(candidate, cost, price))
        if len(offers) == MOST_OFFERS:
            break
    return offers


def _need(exchange: Exchange) -> Need:
    facts, principal = exchange.facts, exchange.principal
    assert principal is not None and facts is not None  # noqa: S101, PT018  # read before routing
    regions = principal.regions
    if facts.regions is not None:
        regions = facts.regions if regions is None else regions & facts.regions
    return Need(
        facts.input_tokens,
        facts.output_bound or 0,
        facts.needs,
        principal.plan,
        principal.team,
        facts.max_cost,
        regions,
    )


def _signals(worker: Sight, exchange: Exchange) -> Signals:
    facts, principal = exchange.facts, exchange.principal
    assert facts is not None and principal is not None  # noqa: S101, PT018  # read before routing
    tokens, output = facts.input_tokens, facts.output_bound or DEFAULT_OUTPUT_TOKENS
    rates, organization, markup, at = (
        worker.rates,
        principal.organization_id,
        principal.markup,
        exchange.started_at,
    )
    in_force, units = rates.in_force(at), facts.units
    asked, served = in_force.rates, in_force.priced(exchange.endpoint, facts.classes)

    def priced(deployment: DeploymentSpec) -> bool:
        return deployment.id in served

    def cost(deployment: DeploymentSpec) -> Decimal | None:
        if deployment.id not in served:
            return None
        return asked[deployment.id].during(at).most(tokens, output, units)

    prices: dict[int, Rates | None] = {}
    known: dict[tuple[int, int | None], Decimal] = {}

    def charge(group: GroupSpec, deployment: DeploymentSpec) -> Decimal | None:
        # It is only asked of deployments that have a price of their own.
        if group.id not in prices:
            prices[group.id] = rates.price(group.id, organization, at)
        price = prices[group.id]
        if price is None:
            return most_at(facts, deployment, asked[deployment.id].during(at), None, markup)
        # Whoever answers, the group's price holds; only the bound of an answer may differ.
        key = group.id, deployment.max_output_tokens
        if key not in known:
            known[key] = most_at(facts, deployment, price, price, markup)
        return known[key]

    pulse = worker.pulse
    # Positional, since this is made for each request.
    return Signals(
        cost,
        pulse.in_flight,
        pulse.latency,
        pulse.due,
        pulse.available,
        pulse.why,
        priced,
        charge,
    )


def _unpriced(model: str, facts: Facts) -> NotFound:
    asked = f" for {', '.join(sorted(facts.classes))}" if facts.classes else ""
    return NotFound(
        f"The model {model} has no price{asked}, so it is not served.", param="model", code="model_not_priced"
    )


def _unserved(problem: NoCandidate) -> V1Error:
    match problem.reason:
        case "context_window":
            return InvalidRequest(str(problem), param="messages", code="context_length_exceeded")
        case "capability":
            return InvalidRequest(str(problem), code="unsupported_by_model")
        case "max_cost":
            return InvalidRequest(str(problem), code="max_cost_exceeded")
        case "region":
            return InvalidRequest(str(problem), code="region_unavailable")
        case "pinned":
            return NotFound(str(problem), param="model", code="model_not_found")
        case _:
            return Unavailable(str(problem), code="no_deployment")
