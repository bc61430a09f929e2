"""From the key a request carries to whom it belongs and what binds it."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from billing.leases import BudgetRule
from billing.patience import REQUEST_SECONDS, patient
from billing.rate_limits import RateRule
from gateway.v1.errors import NotAllowed, Unauthorized, Unavailable
from tenants.keys import digest

# Principals a worker remembers; the least recently loaded goes first.
CACHE_SIZE = 50_000
# How long, in seconds, an unknown key is refused without asking the database again.
UNKNOWN_FOR = 5.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# An end user, and the model group asked for.
UserGroup = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a key, with its team, organization, and every limit that binds it."""

    key_id: int
    key_label: str
    team_id: int
    team: str
    member_id: int | None
    organization_id: int
    organization: str
    plan: str | None
    markup: Decimal
    # Whether a hard budget that has too little left shortens the answer instead of refusing.
    lowers_output: bool
    # Whether its responses are kept (``gateway.v1.stored``).
    stores_responses: bool
    # Whether what it asks and is answered is stored (``gateway.v1.content_log``).
    logs_content: bool
    expires_at: datetime | None
    allowed_networks: tuple[Network, ...] | None
    # What the organization may use, and what this key may use of it; None: everything.
    organization_groups: frozenset[str] | None
    key_groups: frozenset[str] | None
    budgets: tuple[BudgetRule, ...]
    rates: tuple[RateRule, ...]
    # By the one model group they bind.
    group_budgets: dict[str, tuple[BudgetRule, ...]]
    group_rates: dict[str, tuple[RateRule, ...]]
    # By end user and model group, "" for all groups; user "" is the default for those without their own.
    end_user_budgets: dict[UserGroup, tuple[BudgetRule, ...]]
    end_user_rates: dict[UserGroup, tuple[RateRule, ...]]
    # When the next temporary increase ends, and the same principal from then on.
    until: datetime | None = None
    then: Principal | None = None
    # Requests only go to deployments in one of these; None: anywhere.
    regions: frozenset[str] | None = None
    # Response headers that this caller does not get.
    hidden_headers: frozenset[bytes] = frozenset()
    # Origins of the pages that may read answers in a browser.
    cors_origins: frozenset[bytes] = frozenset()
    # Whether the key is refused until somebody resumes it.
    paused: bool = False

    def may_see(self, group: str) -> bool:
        """Whether the model group exists for this caller's organization."""
        return self.organization_groups is None or group in self.organization_groups

    def may_use(self, group: str) -> bool:
        """Whether this key may use the model group."""
        return self.may_see(group) and (self.key_groups is None or group in self.key_groups)


class Principals:
    """A bounded cache of principals by key digest; a miss asks the database once."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool
        self._known: dict[str, Principal] = {}
        self._unknown: dict[str, float] = {}
        self._generation = 0

    def clear(self) -> None:
        """Forget everything, because a tenant's data changed."""
        self._generation += 1
        self._known.clear()
        self._unknown.clear()

    async def authenticate(self, authorization: str, client: str) -> Principal:
        """The principal of an ``Authorization`` header value used from the address ``client``.

        Raises Unauthorized or NotAllowed.
        """
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized(
                "You didn't provide an API key. Send it in a header: Authorization: Bearer YOUR_KEY.",
                code="missing_api_key",
            )
        name = digest(secret)
        principal = await self.by_digest(name)
        if principal is None:
            raise Unauthorized(f"Incorrect API key provided: {masked(secret)}.")
        if principal.expires_at is not None and principal.expires_at <= datetime.now(UTC):
            raise Unauthorized("This API key has expired.", code="expired_api_key")
        if principal.paused:
            raise Unauthorized(
                "This API key is paused. Whoever manages the team's keys can resume it in the console.",
                code="paused_api_key",
            )
        if principal.allowed_networks is not None and not _within(client, principal.allowed_networks):
            raise NotAllowed("This API key may not be used from your address.", code="ip_not_allowed")
        return principal

    async def by_digest(self, name: str) -> Principal | None:
        """The principal of a key's digest (``tenants.keys.digest``); None for an unknown or revoked key."""
        principal = self._known.get(name)
        if principal is None:
            return await self._load(name)
        while principal.until is not None and principal.until <= datetime.now(UTC):
            assert principal.then is not None  # noqa: S101  # the two come together
            principal = self._known[name] = principal.then
        return principal

    async def _load(self, name: str) -> Principal | None:
        refused_until = self._unknown.get(name)
        if refused_until is not None and refused_until > time.monotonic():
            return None
        generation = self._generation
        try:
            async with (
                patient(self._pool, REQUEST_SECONDS) as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                row = await (await cursor.execute(_KEY, (name,))).fetchone()
                quotas = await (await cursor.execute(_QUOTAS, row)).fetchall() if row is not None else []
        except psycopg.Error:
            raise Unavailable(
                "The gateway cannot look up API keys at the moment.", headers=[(b"retry-after", b"2")]
            ) from None
        if row is None:
            _remember(self._unknown, name, time.monotonic() + UNKNOWN_FOR)
            return None
        principal = _principal(row, quotas, datetime.now(UTC))
        # A change that arrived while the rows were read may not be in them.
        if generation == self._generation:
            _remember(self._known, name, principal)
        return principal


def read_principal(connection: Connection[Any], name: str) -> Principal | None:
    """The principal of a key's digest, as ``connection``, such as Django's, sees it at this moment."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_KEY, (name,)).fetchone()
        if row is None:
            return None
        return _principal(row, cursor.execute(_QUOTAS, row).fetchall(), datetime.now(UTC))


def masked(secret: str) -> str:
    """A key as an error may show it: its last four characters, if it is long enough to hide the rest."""
    return f"{'*' * 8}{secret[-4:]}" if len(secret) >= 20 else "*" * 8


# The secret that a rotation replaced counts as the key that took over.
_KEY = """
SELECT COALESCE(k.successor_id, k.id) AS id, k.name, k.team_id, k.owner_id, k.organization_id, k.expires_at, k.allowed_ips,
       k.paused_at IS NOT NULL AS paused,
       k.model_groups AS key_groups,
       t.slug AS team, t.model_groups AS team_groups, o.slug AS organization, o.model_groups AS organization_groups,
       o.markup, o.lower_max_tokens, o.store_responses, o.log_content, o.regions, o.hidden_headers, o.cors_origins,
       o.time_zone, o.plan_id, p.name AS plan, p.model_groups AS plan_groups
FROM tenants_apikey k
JOIN tenants_team t ON t.id = k.team_id
JOIN tenants_organization o ON o.id = k.organization_id
LEFT JOIN tenants_plan p ON p.id = o.plan_id
WHERE k.digest = %s AND k.revoked_at IS NULL AND o.suspended_at IS NULL
"""
_QUOTAS = """
SELECT id, scope, metric, "limit", raised_to, raised_until, period, hard, end_user, model_group
FROM billing_quota
WHERE (scope = 'plan' AND plan_id = %(plan_id)s)
   OR (organization_id = %(organization_id)s
       AND (scope IN ('organization', 'end_user')
            OR (scope = 'team' AND team_id = %(team_id)s)
            OR (scope = 'member' AND member_id = %(owner_id)s)
            OR (scope = 'key' AND key_id = %(id)s)))
ORDER BY id
"""


def _principal(row: dict[str, Any], quotas: list[dict[str, Any]], at: datetime) -> Principal:
    own = {(quota["metric"], quota["model_group"]) for quota in quotas if quota["scope"] == "organization"}
    # A plan's quota is the default where the organization has none of that kind.
    bound = [
        quota
        for quota in quotas
        if not (quota["scope"] == "plan" and (quota["metric"], quota["model_group"]) in own)
    ]
    ends = [quota["raised_until"] for quota in bound if quota["raised_until"] and quota["raised_until"] > at]
    until = min(ends, default=None)
    wallet = BudgetRule(
        quota_id=None,
        organization_id=row["organization_id"],
        scope="wallet",
        subject_kind="",
        period="total",
        limit=None,
        hard=True,
        time_zone=row["time_zone"],
        label=f"organization {row['organization']}",
    )
    budgets: dict[str, list[BudgetRule]] = {"": [wallet]}
    rates: dict[str, list[RateRule]] = {"": []}
    user_budgets: dict[UserGroup, list[BudgetRule]] = {}
    user_rates: dict[UserGroup, list[RateRule]] = {}
    for quota in bound:
        for_user, group = quota["scope"] == "end_user", quota["model_group"]
        user = quota["end_user"], group
        limit = quota["raised_to"] if quota["raised_until"] and at < quota["raised_until"] else quota["limit"]
        if quota["metric"] == "budget":
            budget = _budget(row, quota, limit)
            (user_budgets.setdefault(user, []) if for_user else budgets.setdefault(group, [])).append(budget)
        else:
            rate = RateRule(
                quota_id=quota["id"],
                scope=quota["scope"],
                metric=quota["metric"],
                limit=int(limit),
                label=_label(row, quota),
            )
            (user_rates.setdefault(user, []) if for_user else rates.setdefault(group, [])).append(rate)
    networks = row["allowed_ips"]
    return Principal(
        key_id=row["id"],
        key_label=row["name"],
        team_id=row["team_id"],
        team=row["team"],
        member_id=row["owner_id"],
        organization_id=row["organization_id"],
        organization=row["organization"],
        plan=row["plan"],
        markup=row["markup"],
        lowers_output=row["lower_max_tokens"],
        stores_responses=row["store_responses"],
        logs_content=row["log_content"],
        expires_at=row["expires_at"],
        allowed_networks=None if networks is None else tuple(map(_network, networks)),
        organization_groups=_narrowed(row["plan_groups"], row["organization_groups"]),
        key_groups=_narrowed(row["team_groups"], row["key_groups"]),
        budgets=tuple(budgets.pop("")),
        rates=tuple(rates.pop("")),
        group_budgets={group: tuple(rules) for group, rules in budgets.items()},
        group_rates={group: tuple(rules) for group, rules in rates.items()},
        end_user_budgets={user: tuple(rules) for user, rules in user_budgets.items()},
        end_user_rates={user: tuple(rules) for user, rules in user_rates.items()},
        until=until,
        then=None if until is None else _principal(row, quotas, until),
        regions=_narrowed(row["regions"]),
        hidden_headers=frozenset(name.encode() for name in row["hidden_headers"]),
        cors_origins=frozenset(origin.encode() for origin in row["cors_origins"]),
        paused=row["paused"],
    )


def _budget(row: dict[str, Any], quota: dict[str, Any], limit: Decimal) -> BudgetRule:
    return BudgetRule(
        quota_id=quota["id"],
        organization_id=row["organization_id"],
        scope=quota["scope"],
        subject_kind="end_user" if quota["scope"] == "end_user" else "",
        period=quota["period"],
        limit=limit,
        hard=quota["hard"],
        time_zone=row["time_zone"],
        label=_label(row, quota),
    )


def _label(row: dict[str, Any], quota: dict[str, Any]) -> str:
    """Whose limit it is, as the caller reads it in a refusal."""
    whose = _whose(row, quota)
    return f"{whose} for model {quota['model_group']}" if quota["model_group"] else whose


def _whose(row: dict[str, Any], quota: dict[str, Any]) -> str:
    match quota["scope"]:
        case "plan":
            return f"plan {row['plan']}"
        case "organization":
            return f"organization {row['organization']}"
        case "team":
            return f"team {row['team']}"
        case "key":
            return f"key {row['name']}"
        case "member":
            return "the owner of this key"
        case _:
            return "this end user"


def _narrowed(*layers: list[str] | None) -> frozenset[str] | None:
    """What all layers allow; a layer that is None does not narrow."""
    result: frozenset[str] | None = None
    for layer in layers:
        if layer is not None:
            result = frozenset(layer) if result is None else result & frozenset(layer)
    return result


def _network(text: str) -> Network:
    return ipaddress.ip_network(text, strict=False)


def _within(client: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _remember(cache: dict[str, Any], name: str, value: object) -> None:
    if len(cache) >= CACHE_SIZE:
        cache.pop(next(iter(cache)))
    cache[name] = value
