"""Which deployments to try, in which order. Pure: no clock, no I/O, no state of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from random import Random
from typing import NamedTuple

from routing.conditions import WINDOW_SLACK, Need, NoCandidate, Route, Signals, nobody, removed, routed
from routing.table import DeploymentSpec, GroupSpec, Member, RoutingTable

__all__ = [
    "Candidate",
    "Need",
    "NoCandidate",
    "Route",
    "Signals",
    "Verdict",
    "explain",
    "fallbacks",
    "order",
    "pinned",
    "routed",
]

# Of the fastest, and up to so many times slower, two are chosen from.
NEAR = 2.0


class Candidate(NamedTuple):
    """A deployment to try, and the group it is tried for (whose price applies)."""

    group: GroupSpec
    deployment: DeploymentSpec


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
    reason = removed(member, route.group, route.need, signals, route.only)
    if not reason:
        return Candidate(route.group, member.deployment)
    if member.weight <= 0 or (route.only is not None and name not in route.only):
        raise NoCandidate("pinned", f"{group.name}/{name} is not in use for this request: {reason}.")
    raise nobody(route.group, route.need, signals, frozenset({name}))


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
                    removed(member, each, route.need.within(each), signals, names)
                    or "already in the order by another group"
                )
                found.append(Verdict(each.name, member.deployment, None, reason))
    return found


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
    if (regions := narrowed.regions) is not None:
        found = [m for m in found if m.deployment.region in regions]
    if (ceiling := narrowed.max_cost) is not None:
        charge = signals.charge or (lambda _group, _deployment: None)
        found = [m for m in found if (most := charge(group, m.deployment)) is not None and most <= ceiling]
    if not found:
        raise nobody(group, narrowed, signals, only)
    return [Candidate(group, m.deployment) for m in _sorted(group.strategy, found, signals, random)]


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
