"""Which deployments of a group may serve a request, and why not the others. Pure: no clock, no I/O, no state."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple

from routing.table import DeploymentSpec, GroupSpec, Member, RoutingTable, Rule

# A rule may send a request to a group whose rule sends it on; configuration refuses cycles, this bounds them.
MAX_REDIRECTS = 8
# The estimate of the input is rough, so only what is far too long is kept from a provider.
WINDOW_SLACK = 2


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs of a deployment. Token counts are estimates."""

    input_tokens: int = 0
    output_tokens: int = 0
    capabilities: frozenset[str] = frozenset()
    plan: str | None = None
    team: str | None = None
    # US dollars that the caller may be charged at most; None: no ceiling.
    max_cost: Decimal | None = None
    # Only deployments in one of these; None: anywhere.
    regions: frozenset[str] | None = None

    def within(self, group: GroupSpec) -> Need:
        """This need with the group's own ceiling and regions: they narrow, and never widen."""
        if group.max_cost is None and group.regions is None:
            return self
        ceilings = [each for each in (self.max_cost, group.max_cost) if each is not None]
        regions = self.regions
        if group.regions is not None:
            regions = group.regions if regions is None else regions & group.regions
        return replace(self, max_cost=min(ceilings, default=None), regions=regions)


@dataclass(frozen=True, slots=True)
class Signals:
    """What a worker knows of deployments at this moment; each takes a deployment."""

    # US dollars this request would cost there; None: not priced, so not served.
    cost: Callable[[DeploymentSpec], Decimal | None]
    # Requests in flight.
    in_flight: Callable[[DeploymentSpec], int]
    # Seconds to the first token, smoothed, and longer for who fails often; 0 if never measured.
    latency: Callable[[DeploymentSpec], float]
    # Whether it was not asked for a while, so that what is known of it may be out of date.
    due: Callable[[DeploymentSpec], bool] = lambda _: False
    # Whether its circuit lets a request pass.
    available: Callable[[DeploymentSpec], bool] = lambda _: True
    # What keeps requests from it, for people; empty if nothing does.
    resting: Callable[[DeploymentSpec], str] = lambda _: ""
    # Whether it has a price; None: whether it has a cost.
    priced: Callable[[DeploymentSpec], bool] | None = None
    # US dollars that the caller would be charged at most, there and by that group's price; None: not priced.
    charge: Callable[[GroupSpec, DeploymentSpec], Decimal | None] | None = None


class NoCandidate(Exception):
    """Nothing in the group can serve the request; ``reason`` is one of REASONS."""

    REASONS = ("unpriced", "capability", "context_window", "empty", "region", "max_cost", "pinned")

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Route(NamedTuple):
    """Where the rules of groups lead: the group that serves, ``only`` with these of its deployments (None:
    with all), and the need within every group on the way."""

    group: GroupSpec
    only: frozenset[str] | None
    need: Need


def routed(table: RoutingTable, group: GroupSpec, need: Need, permitted: Callable[[str], bool]) -> Route:
    """Follow the rules of ``group``; one that leads to a group that is not ``permitted`` is passed over."""
    need = need.within(group)
    for _ in range(MAX_REDIRECTS):
        rule = next((rule for rule in group.rules if _matches(rule, need)), None)
        if rule is None:
            break
        if rule.use is None:
            return Route(group, rule.deployments, need)
        target = table.groups.get(rule.use)
        if target is None or not permitted(rule.use):
            break
        group = target
        need = need.within(group)
    return Route(group, None, need)


def _matches(rule: Rule, need: Need) -> bool:
    """Whether every condition of the rule holds. An unknown condition never does."""
    for name, value in rule.when.items():
        match name:
            case "plan":
                holds = need.plan == value
            case "team":
                holds = need.team == value
            case "input_tokens_over":
                holds = need.input_tokens > value
            case "needs":
                holds = need.capabilities.issuperset(value)
            case "region":
                # The request must stay in regions, and these are all of them.
                holds = need.regions is not None and 0 < len(need.regions) == len(
                    need.regions.intersection(value)
                )
            case _:
                holds = False
        if not holds:
            return False
    return True


def removed(
    member: Member, group: GroupSpec, need: Need, signals: Signals, only: frozenset[str] | None
) -> str:
    """Why ``_ordered`` leaves a member out; empty if it does not."""
    deployment = member.deployment
    if member.weight <= 0:
        return "drained: its weight is 0"
    if only is not None and deployment.name not in only:
        return "a rule of the group names other deployments"
    if not _capable(deployment, need):
        return f"cannot do: {', '.join(sorted(need.capabilities - (deployment.capabilities or frozenset())))}"
    if not _fits(deployment, need):
        return f"the request is longer than its context window of {deployment.context_window}"
    if signals.cost(deployment) is None:
        return "has no price"
    if need.regions is not None and deployment.region not in need.regions:
        where = f"in the region {deployment.region}" if deployment.region else "in no region"
        return f"is {where}, not in {_listed(need.regions)}"
    if need.max_cost is not None:
        charge = signals.charge(group, deployment) if signals.charge is not None else None
        if charge is None or charge > need.max_cost:
            shown = "nobody knows how much" if charge is None else _dollars(charge)
            return f"may cost up to {shown}, more than the ceiling of {_dollars(need.max_cost)} for a request"
    return ""


def nobody(group: GroupSpec, need: Need, signals: Signals, only: frozenset[str] | None) -> NoCandidate:
    """Which condition left no member of the group over."""
    members = [m for m in group.members if m.weight > 0 and (only is None or m.deployment.name in only)]
    if not members:
        return NoCandidate("empty", f"The model group {group.name} has no deployment in use.")
    capable = [m for m in members if _capable(m.deployment, need)]
    if not capable:
        missing = ", ".join(sorted(need.capabilities))
        return NoCandidate(
            "capability", f"No deployment of {group.name} supports what the request needs: {missing}."
        )
    fitting = [m.deployment for m in capable if _fits(m.deployment, need)]
    if not fitting:
        return NoCandidate(
            "context_window", f"The request is longer than the context window of {group.name}."
        )
    priced = [deployment for deployment in fitting if signals.cost(deployment) is not None]
    if need.regions is not None and priced:
        priced = [deployment for deployment in priced if deployment.region in need.regions]
        if not priced:
            return NoCandidate("region", f"No deployment of {group.name} is in {_listed(need.regions)}.")
    if need.max_cost is not None and priced and signals.charge is not None:
        charges = [charge for each in priced if (charge := signals.charge(group, each)) is not None]
        if charges:
            return NoCandidate(
                "max_cost",
                f"The ceiling for this request to {group.name} is {_dollars(need.max_cost)}, and the cheapest "
                f"deployment for it may cost up to {_dollars(min(charges))}.",
            )
    return NoCandidate("unpriced", f"The model {group.name} has no price, so it is not served.")


def _capable(deployment: DeploymentSpec, need: Need) -> bool:
    return deployment.capabilities is None or need.capabilities <= deployment.capabilities


def _fits(deployment: DeploymentSpec, need: Need) -> bool:
    window = deployment.context_window
    return window is None or need.input_tokens <= WINDOW_SLACK * window


def _dollars(amount: Decimal) -> str:
    return f"${amount.normalize():f}"


def _listed(regions: Collection[str]) -> str:
    return f"the region {' or '.join(sorted(regions))}" if regions else "any region that is allowed here"
