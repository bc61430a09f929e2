"""The routing table: an immutable picture of providers, deployments and model groups.

A worker holds one and swaps it for a newer one whole; nothing in it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row
from psycopg.types.json import JsonbLoader

from routing.credentials import decrypt
from routing.kinds import KINDS, Kind


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider as a worker needs it. Timeouts are in seconds; ``secrets`` never leave this object."""

    id: int
    name: str
    kind: Kind
    base_url: str
    connect_timeout: float
    first_token_timeout: float
    idle_timeout: float
    total_timeout: float
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """One model at one provider. ``capabilities`` None: assumed to do whatever is asked."""

    id: int
    name: str
    model: str
    provider: ProviderSpec
    context_window: int | None
    max_output_tokens: int | None
    capabilities: frozenset[str] | None
    # Where it runs; empty: not said.
    region: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A deployment's place in a group: lower ``priority`` first, ``weight`` among equals, 0 drains."""

    deployment: DeploymentSpec
    priority: int
    weight: int


@dataclass(frozen=True, slots=True)
class Rule:
    """``when`` it matches, use another group or only the named deployments of this one."""

    when: Mapping[str, Any]
    use: str | None
    deployments: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A model group: what a client names as ``model``."""

    id: int
    name: str
    created: int
    strategy: str
    members: tuple[Member, ...]
    on_error: tuple[str, ...]
    on_context_window: tuple[str, ...]
    on_content_filter: tuple[str, ...]
    rules: tuple[Rule, ...]
    # US dollars that a request may be charged at most; None: no ceiling.
    max_cost: Decimal | None = None
    # Only deployments in one of these; None: anywhere.
    regions: frozenset[str] | None = None
    # Whether clients may ask for one of its deployments by name.
    pin: bool = True
    # Words of routing.exactness.
    structured_output: str = "repair"
    validate_tools: bool = False
    unsupported_params: str = "map"
    # Whether a conversation goes on where its prompt is cached, while that saves money.
    affinity: bool = True
    # Whether a request that is late is sent to a second deployment too.
    hedge: bool = False
    # Whether a stream that breaks off is continued by another deployment.
    resume: bool = False


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Every model group by name."""

    groups: Mapping[str, GroupSpec]


EMPTY = RoutingTable(MappingProxyType({}))

_PROVIDERS = """
SELECT p.id, p.name, p.kind, p.base_url,
       p.connect_timeout, p.first_token_timeout, p.idle_timeout, p.total_timeout,
       COALESCE(array_agg(c.ciphertext ORDER BY c.id) FILTER (WHERE c.id IS NOT NULL), '{}') AS ciphertexts
FROM routing_provider p LEFT JOIN routing_credential c ON c.provider_id = p.id GROUP BY p.id
"""
_DEPLOYMENTS = """
SELECT id, name, model, provider_id, context_window, max_output_tokens, capabilities, region
FROM routing_deployment
"""
_GROUPS = """
SELECT id, name, extract(epoch FROM created_at)::bigint AS created, strategy, fallbacks, rules,
       max_cost, regions, pin, structured_output, validate_tools, unsupported_params,
       affinity, hedge, resume
FROM routing_modelgroup
"""
_MEMBERS = (
    "SELECT group_id, deployment_id, priority, weight FROM routing_groupdeployment ORDER BY priority, id"
)


_QUERIES = (_PROVIDERS, _DEPLOYMENTS, _MEMBERS, _GROUPS)
Rows = list[dict[str, Any]]


async def load_table(connection: AsyncConnection[Any]) -> RoutingTable:
    """Read the table from PostgreSQL, in one snapshot of the database."""
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return _table(*[await (await cursor.execute(query)).fetchall() for query in _QUERIES])


def read_table(connection: Connection[Any]) -> RoutingTable:
    """The table as ``connection``, such as Django's, sees it at this moment."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.adapters.register_loader("jsonb", JsonbLoader)
        return _table(*[cursor.execute(query).fetchall() for query in _QUERIES])


def _table(providers: Rows, deployments: Rows, members: Rows, groups: Rows) -> RoutingTable:
    provider = {row["id"]: _provider(row) for row in providers}
    deployment = {
        row["id"]: DeploymentSpec(
            row["id"],
            row["name"],
            row["model"],
            provider[row["provider_id"]],
            row["context_window"],
            row["max_output_tokens"],
            None if row["capabilities"] is None else _capabilities(row["capabilities"]),
            row["region"],
        )
        for row in deployments
    }
    places: dict[int, list[Member]] = {}
    for row in members:
        member = Member(deployment[row["deployment_id"]], row["priority"], row["weight"])
        places.setdefault(row["group_id"], []).append(member)
    return RoutingTable(
        MappingProxyType({row["name"]: _group(row, tuple(places.get(row["id"], ()))) for row in groups})
    )


def _provider(row: dict[str, Any]) -> ProviderSpec:
    return ProviderSpec(
        row["id"],
        row["name"],
        KINDS[row["kind"]],
        row["base_url"].rstrip("/"),
        row["connect_timeout"],
        row["first_token_timeout"],
        row["idle_timeout"],
        row["total_timeout"],
        tuple(decrypt(bytes(ciphertext)) for ciphertext in row["ciphertexts"]),
    )


def _capabilities(said: list[str]) -> frozenset[str]:
    """What a deployment can do, in the words of what requests need: it streams unless it is said not to."""
    streams = () if "no_streaming" in said else ("streaming",)
    return frozenset((*said, *streams)) - {"no_streaming"}


def _group(row: dict[str, Any], members: tuple[Member, ...]) -> GroupSpec:
    fallbacks = row["fallbacks"] or {}
    return GroupSpec(
        row["id"],
        row["name"],
        row["created"],
        row["strategy"],
        members,
        tuple(fallbacks.get("on_error", ())),
        tuple(fallbacks.get("on_context_window", ())),
        tuple(fallbacks.get("on_content_filter", ())),
        tuple(
            Rule(
                MappingProxyType(dict(rule["when"])),
                rule.get("use"),
                frozenset(rule["deployments"]) if rule.get("deployments") is not None else None,
            )
            for rule in row["rules"] or ()
        ),
        row["max_cost"],
        None if row["regions"] is None else frozenset(row["regions"]),
        row["pin"],
        row["structured_output"],
        row["validate_tools"],
        row["unsupported_params"],
        row["affinity"],
        row["hedge"],
        row["resume"],
    )
