"""May this request pass? Rate limits first (cheap to give back), then money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import TypeVar

from billing.leases import BudgetExceeded, BudgetRule, LeaseBook, MoneyUnavailable, Reservation
from billing.money import plain
from billing.rate_limits import (
    CONCURRENCY,
    REQUESTS,
    TOKENS,
    RateLimited,
    RateLimiter,
    RateRule,
    Standing,
    Ticket,
)
from gateway.v1.bounds import lower, lowered, most
from gateway.v1.errors import NO_RETRY, BudgetSpent, Headers, LimitReached, Unavailable
from gateway.v1.exchange import Exchange, Offer
from gateway.v1.facts import Facts
from gateway.v1.principals import Principal, UserGroup

UNITS = {
    REQUESTS: "requests per minute",
    TOKENS: "tokens per minute",
    CONCURRENCY: "requests at a time",
}
# How often the answer's bound may be lowered for one request.
LOWERINGS = 3

Rule = TypeVar("Rule", BudgetRule, RateRule)


@dataclass(slots=True)
class Grant:
    """What one request was given. Ended exactly once, by ``settle`` or ``release``."""

    reservation: Reservation
    ticket: Ticket | None
    limiter: RateLimiter

    def covers(self, facts: Facts, offer: Offer, markup: Decimal) -> bool:
        """Whether what was reserved is also enough for ``offer``."""
        return most(facts, offer, markup) <= self.reservation.amount

    def leave(self) -> None:
        """The client has left while a provider goes on: its slot is free, its money is not yet."""
        if self.ticket is not None:
            self.limiter.leave(self.ticket)

    def settle(self, charge: Decimal, tokens: int) -> None:
        """The request cost ``charge`` US dollars and took ``tokens`` tokens."""
        self.reservation.settle(charge)
        if self.ticket is not None:
            self.limiter.release(self.ticket, tokens)

    def release(self) -> None:
        """The request cost nothing."""
        self.reservation.release()
        if self.ticket is not None:
            self.limiter.release(self.ticket, 0)


class Admission:
    """The gate of one worker, over its leases and the shared rate limiter."""

    def __init__(self, leases: LeaseBook, limiter: RateLimiter) -> None:
        self._leases = leases
        self._limiter = limiter

    async def admit(self, exchange: Exchange, offers: list[Offer]) -> tuple[Grant, Headers]:
        """Reserve the worst case of ``offers``; returns the grant and the ``x-ratelimit-*`` headers.

        Raises LimitReached, BudgetSpent or Unavailable; then nothing is reserved.
        """
        principal, facts = exchange.principal, exchange.facts
        assert principal is not None and facts is not None  # noqa: S101, PT018  # read before admission
        budgets, rates, subjects = binding(principal, facts)
        ticket, headers = None, []
        if rates:
            ticket = await self._limit(rates, subjects, counted_tokens(facts), exchange.request_id)
            headers = rate_headers(ticket)
        try:
            reservation = await self._reserve(exchange, offers, budgets)
        except BaseException:
            # Whatever happened, also a client that went away: the rate limits are given back.
            if ticket is not None:
                self._limiter.release(ticket, 0)
            raise
        exchange.budget_ids = reservation.budget_ids
        # What was reserved must be what it can cost at most.
        facts.tells_bound = facts.output_bound is None and reservation.binding
        if exchange.lowered_to is not None:
            headers = [*headers, (b"x-weir-max-tokens-lowered", str(exchange.lowered_to).encode())]
        return Grant(reservation, ticket, self._limiter), headers

    async def one_request(self, principal: Principal, request_id: str) -> Headers:
        """Count one request that asks no model; returns the ``x-ratelimit-*`` headers. Raises LimitReached."""
        rules = tuple(rule for rule in principal.rates if rule.metric == REQUESTS)
        if not rules:
            return []
        subjects = [str(principal.organization_id)] * len(rules)
        ticket = await self._limit(rules, subjects, 0, request_id)
        self._limiter.release(ticket, 0)
        return rate_headers(ticket)

    async def _limit(
        self, rules: tuple[RateRule, ...], subjects: list[str], tokens: int, request_id: str
    ) -> Ticket:
        try:
            return await self._limiter.acquire(rules, subjects, tokens, request_id)
        except RateLimited as refused:
            raise limit_error(refused) from None

    async def _reserve(
        self, exchange: Exchange, offers: list[Offer], rules: tuple[BudgetRule, ...]
    ) -> Reservation:
        """The worst case of ``offers``, or of as long an answer as what is left allows."""
        principal, facts = exchange.principal, exchange.facts
        assert principal is not None and facts is not None  # noqa: S101, PT018  # as above
        asked = amount = worst_of(facts, offers, principal)
        try:
            # What is left can shrink between a look and a grant, and another budget can have less.
            for _ in range(LOWERINGS):
                try:
                    return await self._leases.reserve(rules, facts.end_user, amount, exchange.started_at)
                except BudgetExceeded as refused:
                    tokens = shortened(facts, offers, principal, refused.left)
                    if tokens is None:
                        raise
                    lower(facts, tokens)
                    exchange.lowered_to = tokens
                    amount = worst_of(facts, offers, principal)
            return await self._leases.reserve(rules, facts.end_user, amount, exchange.started_at)
        except BudgetExceeded as refused:
            exchange.lowered_to = None
            raise budget_error(refused, asked) from None
        except MoneyUnavailable:
            raise Unavailable(
                "The gateway cannot check budgets at the moment, so it takes no new requests.",
                headers=[(b"retry-after", b"2")],
            ) from None


def binding(
    principal: Principal, facts: Facts
) -> tuple[tuple[BudgetRule, ...], tuple[RateRule, ...], list[str]]:
    """Every budget and every rate limit that binds a request, in the order of asking, and for whom each of
    the latter counts."""
    # A quota on a model group binds what is asked for by that name, whoever answers in the end.
    budgets = principal.budgets + principal.group_budgets.get(facts.model, ())
    rates = principal.rates + principal.group_rates.get(facts.model, ())
    shared = len(rates)
    if facts.end_user:
        budgets += _of_user(principal.end_user_budgets, facts)
        rates += _of_user(principal.end_user_rates, facts)
    # A plan's quota counts each organization apart, an end user's default each end user.
    subjects = [str(principal.organization_id)] * shared + [facts.end_user] * (len(rates) - shared)
    return budgets, rates, subjects


def counted_tokens(facts: Facts) -> int:
    """What a request counts in limits on tokens, until it is known."""
    return facts.input_tokens + (facts.output_bound or 0)


def worst_of(facts: Facts, offers: list[Offer], principal: Principal) -> Decimal:
    """US dollars to reserve: whoever of ``offers`` answers, it cannot be charged more."""
    return max(most(facts, offer, principal.markup) for offer in offers)


def shortened(facts: Facts, offers: list[Offer], principal: Principal, left: Decimal) -> int | None:
    """How long an answer ``left`` US dollars allow, in tokens of each choice; None where it is refused instead."""
    if not principal.lowers_output or facts.endpoint != "chat.completions":
        return None
    return lowered(facts, offers, principal.markup, left)


def _of_user(rules: dict[UserGroup, tuple[Rule, ...]], facts: Facts) -> tuple[Rule, ...]:
    """The rules of this end user, or the default of all end users: for every model, and for this one."""
    if not rules:
        return ()
    user, model = facts.end_user, facts.model
    return (rules.get((user, "")) or rules.get(("", ""), ())) + (
        rules.get((user, model)) or rules.get(("", model), ())
    )


def limit_error(refused: RateLimited) -> LimitReached:
    """What the client gets where a limit refuses."""
    rule, wait = refused.rule, refused.retry_after_seconds
    stands = standing_headers({rule.metric: refused.standing})
    what = (
        f"Rate limit reached for {rule.label}: {rule.limit} {UNITS[rule.metric]} (a limit of this gateway)."
    )
    if wait is None:
        return LimitReached(f"{what} The request alone is more than the limit.", headers=[*NO_RETRY, *stands])
    return LimitReached(
        f"{what} Try again in {max(wait, 0.001):.3f} s.",
        headers=[
            (b"retry-after", str(ceil(wait) or 1).encode()),
            (b"retry-after-ms", str(ceil(wait * 1000) or 1).encode()),
            *stands,
        ],
    )


def budget_error(refused: BudgetExceeded, amount: Decimal) -> BudgetSpent:
    """What the client gets where a budget does not cover ``amount`` US dollars."""
    return BudgetSpent(_budget_message(refused, amount), headers=NO_RETRY)


def _budget_message(refused: BudgetExceeded, amount: Decimal) -> str:
    rule = refused.rule
    if rule.scope == "wallet":
        what = f"The balance of {rule.label} does not cover this request"
    else:
        limit = "" if refused.limit is None else f" of ${plain(refused.limit)}"
        period = "" if rule.period == "total" else f" per {rule.period}"
        what = f"You exceeded your current quota: the budget{limit}{period} of {rule.label} does not cover this request"
    reset = "" if refused.resets_at is None else f" It resets at {refused.resets_at:%Y-%m-%dT%H:%M:%SZ}."
    return f"{what}, which may cost up to ${plain(amount)} (spent: ${plain(refused.spent)}).{reset}"


def rate_headers(ticket: Ticket) -> Headers:
    """``x-ratelimit-*`` in OpenAI's form, of the tightest requests and tokens rule."""
    return standing_headers(ticket.remaining)


def standing_headers(remaining: Mapping[str, Standing]) -> Headers:
    """``x-ratelimit-*`` of limits by their metric; a limit of requests at a time has none."""
    found: Headers = []
    for metric, word in ((REQUESTS, b"requests"), (TOKENS, b"tokens")):
        standing = remaining.get(metric)
        if standing is not None:
            found += [
                (b"x-ratelimit-limit-" + word, str(standing.limit).encode()),
                (b"x-ratelimit-remaining-" + word, str(max(0, standing.remaining)).encode()),
                (b"x-ratelimit-reset-" + word, _go_duration(standing.reset_seconds).encode()),
            ]
    return found


def _go_duration(seconds: float) -> str:
    """``120ms``, ``1.5s``, ``6m0s``, as Go writes durations and OpenAI its reset headers."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(seconds, 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{shown}s" if minutes else f"{shown}s"
