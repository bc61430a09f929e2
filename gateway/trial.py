"""Would this request pass? What a worker would decide, by the same functions, with nothing taken or sent.

The principal, the offers and their worst case, the limits that bind and their words are the data plane's own
(``gateway.v1``). Only what asks Redis and PostgreSQL to take something is replaced by its look
(``billing.rate_limits.look``, ``billing.leases.look``). What only a running worker knows is left out: the
part of a lease that is free in it, and circuits that it has not posted yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import orjson
from django.conf import settings
from django.db import connection
from redis import Redis, RedisError

from billing.leases import BudgetRule
from billing.leases.look import BudgetLook, look_at_budgets
from billing.rate_limits import RateLimited, RateRule
from billing.rate_limits.look import RateLook, look_at_rates
from gateway.explanation import Picture, picture
from gateway.v1.admission import (
    LOWERINGS,
    binding,
    budget_error,
    counted_tokens,
    limit_error,
    shortened,
    worst_of,
)
from gateway.v1.affinity import Home
from gateway.v1.blocking import demand_not_blocked, read_blocked
from gateway.v1.bounds import lower
from gateway.v1.errors import Unauthorized, V1Error
from gateway.v1.exchange import Exchange, Offer
from gateway.v1.facts import BYTES_PER_TOKEN, Facts, chat_facts, chat_facts_of
from gateway.v1.offers import offers_for
from gateway.v1.principals import Principal, read_principal
from gateway.v1.pulse import Pulse
from gateway.v1.rates import RateBook
from routing.table import RoutingTable
from tenants.models import ApiKey

PATIENCE_SECONDS = 0.25
CHAT = "chat.completions"


@dataclass(frozen=True, slots=True)
class Trial:
    """What would become of a request.

    ``error`` is what the client would get; None: it passes. ``refused_by`` is ``end_user``, ``model``,
    ``rate`` or ``budget``, whichever refuses first, or empty. ``amount`` is what would be reserved, in US
    dollars; None where no deployment would be asked. ``rates`` is None where Redis is away.
    """

    error: V1Error | None
    refused_by: str
    budgets: Sequence[BudgetLook]
    rates: Sequence[RateLook] | None
    amount: Decimal | None = None
    tokens: int = 0
    # Whether the budget that refuses has enough but for what workers hold, which they may give back.
    uncertain: bool = False
    # Tokens of each choice that the answer would be shortened to; None: it is not.
    lowered_to: int | None = None
    offers: Sequence[Offer] = ()


class _NoHomes:
    """Affinity decides who answers first, not what the request can cost."""

    def home(self, conversation: bytes) -> Home | None:  # noqa: ARG002  # as Homes has it
        return None


@dataclass(frozen=True, slots=True)
class _Sight:
    """A picture, as offers are made from it."""

    table: RoutingTable
    rates: RateBook
    pulse: Pulse
    affinity: _NoHomes


def chat_request(
    model: str, *, end_user: str = "", text: str = "", input_tokens: int = 0, max_tokens: int | None = None
) -> tuple[Facts, bytes | None]:
    """A chat request of one message ``text``, and its body; without a text, one of about ``input_tokens``
    tokens, and no body. Raises InvalidRequest as the data plane does."""
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if end_user:
        body["user"] = end_user
    if text:
        raw = orjson.dumps(body)
        return chat_facts(raw, ""), raw
    return chat_facts_of(body, max(0, input_tokens - 1) * BYTES_PER_TOKEN, ""), None


def try_request(key: ApiKey, facts: Facts) -> Trial:
    """What would become of a request with ``key``. Nothing is reserved, counted, journaled or sent."""
    connection.ensure_connection()
    principal = read_principal(connection.connection, key.digest)
    if principal is None:
        return Trial(Unauthorized("Incorrect API key provided."), "key", (), ())
    seen, exchange = picture(), Exchange(CHAT)
    exchange.principal, exchange.facts = principal, facts
    error, refused_by = _blocked(principal, facts), "end_user"
    offers: list[Offer] = []
    try:
        offers = offers_for(_sight(seen), exchange)
    except V1Error as problem:
        if error is None:
            error, refused_by = problem, "model"
    budgets, rates, subjects = binding(principal, facts)
    tokens = counted_tokens(facts)
    looked = _look_at_rates(rates, subjects, tokens)
    if not offers:
        return Trial(
            error, refused_by, _look(budgets, facts, Decimal(0), exchange.started_at), looked, None, tokens
        )
    bites = next((each for each in looked or () if each.bites), None)
    if error is None and bites is not None:
        error, refused_by = _rate_error(bites), "rate"
    asked = amount = worst_of(facts, offers, principal)
    found = _look(budgets, facts, amount, exchange.started_at)
    refusing = _first_refusing(found)
    lowered_to = None
    for _ in range(LOWERINGS):
        shorter = None if refusing is None else shortened(facts, offers, principal, refusing.left)
        if shorter is None:
            break
        lower(facts, shorter)
        amount = worst_of(facts, offers, principal)
        again = _look(budgets, facts, amount, exchange.started_at)
        refusing = _first_refusing(again)
        if refusing is None:
            found, lowered_to = again, shorter
    if error is None and refusing is not None:
        error, refused_by = budget_error(refusing.refusal(), asked), "budget"
    return Trial(
        error,
        refused_by if error is not None else "",
        found,
        looked,
        asked if lowered_to is None else amount,
        tokens,
        uncertain=refused_by == "budget" and refusing is not None and refusing.held_in_the_way,
        lowered_to=lowered_to,
        offers=offers,
    )


def _sight(seen: Picture) -> _Sight:
    return _Sight(seen.table, seen.rates, seen.pulse, _NoHomes())


def _blocked(principal: Principal, facts: Facts) -> V1Error | None:
    blocked = read_blocked(connection.connection, principal.organization_id)
    try:
        demand_not_blocked(blocked, principal, facts)
    except V1Error as error:
        return error
    return None


def _look(rules: Sequence[BudgetRule], facts: Facts, amount: Decimal, at: datetime) -> list[BudgetLook]:
    return look_at_budgets(connection.connection, rules, facts.end_user, amount, at)


def _look_at_rates(
    rules: Sequence[RateRule], subjects: Sequence[str], tokens: int
) -> Sequence[RateLook] | None:
    if not rules:
        return ()
    try:
        with Redis.from_url(
            settings.REDIS_URL, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        ) as redis:
            return look_at_rates(redis, rules, subjects, tokens)
    except RedisError:
        return None


def _first_refusing(found: Sequence[BudgetLook]) -> BudgetLook | None:
    return next((each for each in found if not each.fits), None)


def _rate_error(look: RateLook) -> V1Error:
    left = max(look.rule.limit - look.used, 0)
    return limit_error(RateLimited(look.rule, look.rule.limit, left, look.wait_seconds))
