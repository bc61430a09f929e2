"""Which deployments to try, in which order. Pure: no clock, no I/O, no state of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from operator import itemgetter
from random import Random
from typing import NamedTuple

from routing.table import DeploymentSpec, GroupSpec, Member, RoutingTable, Rule

# A rule may send a request to a group whose rule sends it on; configuration refuses cycles, this bounds them.
MAX_REDIRECTS = 8
# Of the fastest, and up to so many times slower, two are chosen from.
NEAR = 2.0
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


class Candidate(NamedTuple):
    """A deployment to try, and the group it is tried for (whose price applies)."""

    group: GroupSpec
    deployment: DeploymentSpec


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


def order(
    table: RoutingTable,
    group: GroupSpec,
    need: Need,
    signals: Signals,
    random: Random,
    permitted: Callable[[str], bool],
) -> list[Candidate]:
    """The candidates for a request to ``group``, best first, then those of its ``on_error`` fallbacks.

    ``permitted`` tells whether the caller may use a group; a fallback or redirect to another one is
    passed over. Raises NoCandidate where nothing is left.
    """
    route = routed(table, group, need, permitted)
    target, need = route.group, route.need
    found: list[Candidate] = []
    problem: NoCandidate | None = None
    for each, names in [
        (target, route.only),
        *((fallback, None) for fallback in _groups(table, target.on_error, permitted)),
    ]:
        try:
            found += _ordered(each, need, signals, random, names)
        except NoCandidate as error:
            problem = problem or error
    if not found:
        raise problem or NoCandidate("empty", f"The model group {group.name} has no deployment.")
    return _available_first(found, signals)


def pinned(
    table: RoutingTable,
    group: GroupSpec,
    name: str,
    need: Need,
    signals: Signals,
    permitted: Callable[[str], bool],
) -> Candidate:
    """The deployment ``name`` of ``group``, which the caller asked for, if the group would use it for this request.

    Raises NoCandidate, with the reason ``pinned`` where rules or weights leave it out.
    """
    route = routed(table, group, need, permitted)
    member = next((m for m in route.group.members if m.deployment.name == name), None)
    if member is None:
        raise NoCandidate("pinned", f"A rule of {group.name} sends this request elsewhere than to {name}.")
    reason = _removed(member, route.group, route.need, signals, route.only)
    if not reason:
        return Candidate(route.group, member.deployment)
    if member.weight <= 0 or (route.only is not None and name not in route.only):
        raise NoCandidate("pinned", f"{group.name}/{name} is not in use for this request: {reason}.")
    raise _nobody(route.group, route.need, signals, frozenset({name}))


def _available_first(found: Iterable[Candidate], signals: Signals) -> list[Candidate]:
    """Each deployment once; those whose circuit is open after all others, in case it closes meanwhile."""
    first: list[Candidate] = []
    last: list[Candidate] = []
    seen: set[int] = set()
    for candidate in found:
        deployment = candidate.deployment
        if deployment.id not in seen:
            seen.add(deployment.id)
            (first if signals.available(deployment) else last).append(candidate)
    return first + last


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one deployment of a group: its ``place`` in the order (from 1), or why it was ``removed``.

    ``resting`` tells what keeps requests from one that has a place, such as an open circuit.
    """

    group: str
    deployment: DeploymentSpec
    place: int | None
    removed: str
    resting: str = ""


def explain(
    table: RoutingTable,
    group: GroupSpec,
    need: Need,
    signals: Signals,
    random: Random,
    permitted: Callable[[str], bool],
) -> list[Verdict]:
    """Every deployment that ``order`` looked at for this request, in the order of trying, then those removed."""
    try:
        ordered = order(table, group, need, signals, random, permitted)
    except NoCandidate:
        ordered = []
    route = routed(table, group, need, permitted)
    found = [
        Verdict(candidate.group.name, candidate.deployment, place, "", signals.resting(candidate.deployment))
        for place, candidate in enumerate(ordered, start=1)
    ]
    placed = {(verdict.group, verdict.deployment.id) for verdict in found}
    looked_at = [
        (route.group, route.only),
        *((each, None) for each in _groups(table, route.group.on_error, permitted)),
    ]
    for each, names in looked_at:
        for member in each.members:
            if (each.name, member.deployment.id) not in placed:
                reason = (
                    _removed(member, each, route.need.within(each), signals, names)
                    or "already in the order by another group"
                )
                found.append(Verdict(each.name, member.deployment, None, reason))
    return found


def _removed(
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


def _dollars(amount: Decimal) -> str:
    return f"${amount.normalize():f}"


def _listed(regions: Collection[str]) -> str:
    return f"the region {' or '.join(sorted(regions))}" if regions else "any region that is allowed here"


def fallbacks(
    table: RoutingTable,
    names: Collection[str],
    need: Need,
    signals: Signals,
    random: Random,
    permitted: Callable[[str], bool],
    tried: Collection[int],
) -> list[Candidate]:
    """The candidates of the groups ``names``, in order, without the deployments already ``tried``."""
    found: list[Candidate] = []
    for group in _groups(table, names, permitted):
        try:
            found += _ordered(group, need, signals, random, None)
        except NoCandidate:
            continue
    return _available_first((each for each in found if each.deployment.id not in tried), signals)


def _groups(
    table: RoutingTable, names: Iterable[str], permitted: Callable[[str], bool]
) -> Iterator[GroupSpec]:
    for name in names:
        group = table.groups.get(name)
        if group is not None and permitted(name):
            yield group


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
            case _:
                holds = False
        if not holds:
            return False
    return True


def _ordered(
    group: GroupSpec, need: Need, signals: Signals, random: Random, only: frozenset[str] | None
) -> list[Candidate]:
    needs, tokens, priced = need.capabilities, need.input_tokens, signals.priced
    if priced is None:

        def priced(deployment: DeploymentSpec) -> bool:
            return signals.cost(deployment) is not None

    # One loop over all that is asked; which of it left nobody over is only looked into if it did.
    found = [
        m
        for m in group.members
        if m.weight > 0
        and (only is None or m.deployment.name in only)
        and ((can := m.deployment.capabilities) is None or needs <= can)
        and ((window := m.deployment.context_window) is None or tokens <= WINDOW_SLACK * window)
        and priced(m.deployment)
    ]
    narrowed = need.within(group)
    if narrowed.regions is not None or narrowed.max_cost is not None:
        found = [m for m in found if not _removed(m, group, narrowed, signals, only)]
    if not found:
        raise _nobody(group, narrowed, signals, only)
    return [Candidate(group, m.deployment) for m in _sorted(group.strategy, found, signals, random)]


def _nobody(group: GroupSpec, need: Need, signals: Signals, only: frozenset[str] | None) -> NoCandidate:
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


def _sorted(strategy: str, members: Sequence[Member], signals: Signals, random: Random) -> list[Member]:
    if len(members) == 1:
        return list(members)
    shuffled = _weighted(members, random)
    match strategy:
        case "priority":
            return sorted(shuffled, key=lambda m: m.priority)
        case "cheapest":
            return sorted(shuffled, key=lambda m: signals.cost(m.deployment) or Decimal(0))
        case "least_busy":
            return sorted(shuffled, key=lambda m: signals.in_flight(m.deployment) / m.weight)
        case "fastest":
            return _fastest(shuffled, signals)
        case _:
            return shuffled


def _weighted(members: Sequence[Member], random: Random) -> list[Member]:
    """A random order in which each member comes first in proportion to its weight.

    Sorting by ``u ** (1 / weight)`` is weighted sampling without replacement (Efraimidis and
    Spirakis, 2006).
    """
    return sorted(members, key=lambda m: random.random() ** (1 / m.weight), reverse=True)


def _fastest(shuffled: list[Member], signals: Signals) -> list[Member]:
    """Of two by chance, the one with less to do and quicker to answer; then the others.

    The two are taken from those that come near the best, or the second best would get a third of the
    requests however bad it is. The others come last, the better ones first, except that one which was
    not asked for a while comes first: only so is its recovery noticed.
    """
    known = [signals.latency(m.deployment) for m in shuffled]
    # Nothing speaks against who was never measured.
    unknown = min(filter(None, known), default=1.0)
    passing = [signals.available(m.deployment) for m in shuffled]
    bound = NEAR * min(
        (each or unknown for each, passes in zip(known, passing, strict=True) if passes), default=0.0
    )
    near: list[tuple[float, Member]] = []
    far: list[tuple[float, Member]] = []
    look: Member | None = None
    for member, seconds, passes in zip(shuffled, known, passing, strict=True):
        if passes and seconds <= bound:
            near.append((seconds or unknown, member))
        elif passes and look is None and signals.due(member.deployment):
            look = member
        else:
            far.append((seconds, member))
    if len(near) > 1:
        first, second = (seconds * (signals.in_flight(m.deployment) + 1) for seconds, m in near[:2])
        if second < first:
            near[0], near[1] = near[1], near[0]
    far.sort(key=itemgetter(0))
    ordered = [member for _, member in [*near, *far]]
    return ordered if look is None else [look, *ordered]
