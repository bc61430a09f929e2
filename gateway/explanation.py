"""Why a request goes where it goes: the routing policy itself, asked with what a worker has at this moment.

``manage.py explain``, the console's page "why this route" and the preview of a change all ask here.
Nothing is sent to a provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

from django.conf import settings
from django.db import connection

from billing.pricing import worst_case
from gateway.v1.board import Notice, read_board
from gateway.v1.pulse import Pulse, fingerprints
from gateway.v1.rates import RateBook, read_rates
from routing import policy
from routing.access import permitted_names
from routing.health import question
from routing.policy import Need, Route, Signals, Verdict
from routing.table import DeploymentSpec, GroupSpec, RoutingTable, read_table
from tenants.models import ApiKey, Organization, Team

RESTING = {
    "failing": "circuit open",
    "rate_limited": "rate limit of the provider",
    "credential": "credential refused",
    "unknown_model": "model unknown to the provider",
}
CHAT = "chat.completions"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who would send the request. ``permitted`` are the model groups it may use; None: every one."""

    organization_id: int
    plan: str | None = None
    team: str | None = None
    markup: Decimal = Decimal(0)
    regions: frozenset[str] | None = None
    permitted: frozenset[str] | None = None

    def may_use(self, group: str) -> bool:
        """Whether the caller may use the model group."""
        return self.permitted is None or group in self.permitted


def caller_of(organization: Organization, team: Team | None = None, key: ApiKey | None = None) -> Caller:
    """Somebody of ``organization``, in ``team`` and with ``key`` where they are given."""
    narrower = [each.model_groups for each in (team, key) if each is not None]
    return Caller(
        organization.pk,
        organization.plan.name if organization.plan is not None else None,
        team.slug if team is not None else None,
        organization.markup,
        None if organization.regions is None else frozenset(organization.regions),
        permitted_names(organization, *narrower),
    )


@dataclass(frozen=True, slots=True)
class State:
    """Whether a deployment may be asked. ``word`` is ``closed``, ``open`` or ``half-open``, of its circuit;
    or ``resting``, where all of its credentials are. ``why`` is a word of RESTING."""

    word: str
    why: str = ""
    # The end of the pause; None while it is closed.
    until: datetime | None = None
    credentials: int = 1
    credentials_resting: int = 0

    @property
    def well(self) -> bool:
        """Whether nothing stands in a request's way, be it a single credential."""
        return self.word == "closed" and not self.credentials_resting


@dataclass(frozen=True, slots=True)
class Picture:
    """What workers go by: the table, the prices, and the circuits posted in Redis (None: Redis is away)."""

    table: RoutingTable
    rates: RateBook
    notices: Sequence[Notice] | None
    at: datetime
    pulse: Pulse = field(init=False)

    def __post_init__(self) -> None:
        now = self.at.timestamp()
        pulse = Pulse(lambda: now)
        for notice in self.notices or ():
            pulse.health.adopt(notice.key, notice.until, notice.why, notice.openings, now)
        # The frozen dataclass allows no other way to keep what is derived from its fields.
        object.__setattr__(self, "pulse", pulse)

    def state(self, deployment: DeploymentSpec) -> State:
        """What the circuits of ``deployment`` say."""
        posted = {each.key[1]: each for each in self.notices or () if each.key[0] == deployment.id}
        names = fingerprints(deployment.provider)
        resting = [posted[name] for name in names if name in posted]
        own = ("", question(CHAT, deployment.model))
        waits = [(posted[name], "open") for name in own if name in posted]
        if len(resting) == len(names):
            waits.append((min(resting, key=lambda each: each.until), "resting"))
        if not waits:
            return State("closed", "", None, len(names), len(resting))
        # It may be asked when the last of them allows it.
        notice, word = max(waits, key=lambda each: each[0].until)
        until = datetime.fromtimestamp(notice.until, UTC)
        word = "half-open" if until <= self.at else word
        return State(word, notice.why, until, len(names), len(resting))

    def resting(self, deployment: DeploymentSpec) -> str:
        """What keeps requests from ``deployment`` at this moment, in words; empty if nothing does."""
        state = self.state(deployment)
        if state.until is None or state.word == "half-open":
            return ""
        return f"{RESTING[state.why]}, resting until {state.until:%H:%M:%S} UTC"

    def charge(
        self, caller: Caller, group: GroupSpec, deployment: DeploymentSpec, need: Need, endpoint: str = CHAT
    ) -> Decimal | None:
        """US dollars that ``caller`` would be charged at most; None: not priced."""
        cost = self.rates.cost(deployment.id, self.at)
        price = self.rates.price(group.id, caller.organization_id, self.at)
        if cost is None or not cost.priced_for(endpoint):
            return None
        if price is not None and not price.priced_for(endpoint):
            return None
        return worst_case(need.input_tokens, need.output_tokens, cost, price, caller.markup)

    def cost(self, deployment: DeploymentSpec, need: Need, endpoint: str = CHAT) -> Decimal | None:
        """US dollars that the provider would ask at most; None: not priced."""
        found = self.rates.cost(deployment.id, self.at)
        if found is None or not found.priced_for(endpoint):
            return None
        return found.most(need.input_tokens, need.output_tokens)


def picture() -> Picture:
    """What workers go by at this moment."""
    connection.ensure_connection()
    return Picture(
        read_table(connection.connection),
        read_rates(connection.connection),
        asyncio.run(read_board(settings.REDIS_URL)),
        datetime.now(UTC),
    )


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a request: where rules lead it, and each deployment that was looked at."""

    route: Route
    verdicts: Sequence[Verdict]


def explain(
    seen: Picture,
    caller: Caller,
    group: GroupSpec,
    need: Need,
    *,
    endpoint: str = CHAT,
    latency: Callable[[DeploymentSpec], float] | None = None,
    pin: str = "",
) -> Explanation:
    """The route of a request by ``caller`` to ``group``, and why.

    What only a running worker knows (requests in flight, ``latency`` in seconds unless it is given)
    counts as zero. With ``pin``, only of the deployment of this name, which is tried alone. Where chance
    decides among equals, it falls alike each time.
    """

    def cost(deployment: DeploymentSpec) -> Decimal | None:
        return seen.cost(deployment, need, endpoint)

    def charge(group: GroupSpec, deployment: DeploymentSpec) -> Decimal | None:
        return seen.charge(caller, group, deployment, need, endpoint)

    signals = Signals(
        cost,
        seen.pulse.in_flight,
        latency or seen.pulse.latency,
        available=seen.pulse.available,
        resting=seen.resting,
        charge=charge,
    )
    chance = Random(0)  # noqa: S311  # repeatable
    found = policy.explain(seen.table, group, need, signals, chance, caller.may_use)
    found = _by_price(seen, caller, found, endpoint)
    if pin:
        found = [
            replace(verdict, place=verdict.place and 1) for verdict in found if verdict.deployment.name == pin
        ][:1]
    return Explanation(policy.routed(seen.table, group, need, caller.may_use), found)


def _by_price(seen: Picture, caller: Caller, found: list[Verdict], endpoint: str) -> list[Verdict]:
    """``found`` without a place for those whose group has a price for the caller that leaves out what
    ``endpoint`` uses: a worker takes them off the list before it asks."""
    placed: list[Verdict] = []
    removed: list[Verdict] = []
    for verdict in found:
        group = seen.table.groups[verdict.group]
        price = seen.rates.price(group.id, caller.organization_id, seen.at)
        if verdict.place is None:
            removed.append(verdict)
        elif price is not None and not price.priced_for(endpoint):
            reason = f"the price of {group.name} does not cover {endpoint}"
            removed.append(replace(verdict, place=None, removed=reason, resting=""))
        else:
            placed.append(replace(verdict, place=len(placed) + 1))
    return placed + removed
