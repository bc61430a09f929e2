"""From journal records to rows: usage events, the counters and leases they settle, the hours they
touch. All of a batch is one transaction, and a record that is already there changes nothing.

Raw SQL on a psycopg connection of its own: the shipper lives outside Django's request cycle.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

import orjson
import psycopg

from billing import partitions
from billing.money import EXACT
from billing.token_usage import QUANTITIES
from tenants.models import LEAST_DETAIL_DAYS

Connection = psycopg.Connection[tuple[Any, ...]]

# What PostgreSQL raises because of a value; everything else is its own trouble, to be tried again.
REFUSALS = (psycopg.DataError, psycopg.IntegrityError)
# A start outside these is a broken clock, and would make partitions nobody wants.
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=1)

# An amount among the quantities.
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
# Labels are cut to their columns and may be absent, since a charge matters more than the end of a
# name. Identities, counts and money must be right as they are.
_INSERT: LiteralString = """
INSERT INTO billing_usageevent (
    request_id, started_at, ended_at, organization_id, team_id, key_id, member_id, end_user, model_group,
    deployment, provider, provider_model, endpoint, streamed, status, end_reason, error_code, attempts,
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, quantities,
    usage_source, cost, charge, cost_price_id, charge_price_id, markup, budget_ids, first_token_ms, duration_ms,
    tags
)
SELECT
    request_id, started_at, ended_at, organization_id, team_id, key_id, member_id,
    coalesce(left(end_user, 256), ''), coalesce(left(model_group, 100), ''),
    coalesce(left(deployment, 100), ''), coalesce(left(provider, 100), ''),
    coalesce(left(provider_model, 200), ''), coalesce(left(endpoint, 40), ''), streamed, status, end_reason,
    coalesce(left(error_code, 64), ''), coalesce(attempts, '[]'),
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
    coalesce(quantities, '{}'), usage_source, cost, charge, cost_price_id, charge_price_id, coalesce(markup, 0),
    ARRAY(SELECT DISTINCT unnest(budget_ids) ORDER BY 1), first_token_ms, duration_ms, coalesce(tags, '{}')
FROM jsonb_to_recordset(%(records)s::jsonb) AS r(
    request_id text, started_at timestamptz, ended_at timestamptz, organization_id bigint, team_id bigint,
    key_id bigint, member_id bigint, end_user text, model_group text, deployment text, provider text,
    provider_model text, endpoint text, streamed boolean, status smallint, end_reason text, error_code text,
    attempts jsonb, input_tokens bigint, cached_input_tokens bigint, cache_write_tokens bigint,
    output_tokens bigint, reasoning_tokens bigint, quantities jsonb, usage_source text, cost numeric, charge numeric,
    cost_price_id bigint, charge_price_id bigint, markup numeric, budget_ids bigint[], first_token_ms integer,
    duration_ms integer, tags jsonb
)
ON CONFLICT DO NOTHING
RETURNING request_id, organization_id, date_trunc('minute', started_at, 'UTC'), budget_ids, charge
"""
# Counters first, in order of id, then leases, as everyone who touches both does.
_LOCK_BUDGETS: LiteralString = (
    "SELECT FROM billing_budget WHERE id = ANY(%(budgets)s) ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_LEASES: LiteralString = """
SELECT FROM billing_lease WHERE budget_id = ANY(%(budgets)s) AND worker = ANY(%(workers)s)
ORDER BY budget_id, worker FOR NO KEY UPDATE
"""
_SETTLE: LiteralString = """
WITH share AS (
    SELECT s.budget_id, s.worker, s.charge,
           least(greatest(coalesce(l.remaining, 0), 0), s.charge) AS leased
    FROM unnest(%(budgets)s::bigint[], %(workers)s::uuid[], %(charges)s::numeric[])
        AS s(budget_id, worker, charge)
    LEFT JOIN billing_lease l ON l.budget_id = s.budget_id AND l.worker = s.worker
), lease AS (
    UPDATE billing_lease l SET remaining = l.remaining - share.leased, updated_at = now()
    FROM share WHERE l.budget_id = share.budget_id AND l.worker = share.worker AND share.leased > 0
)
UPDATE billing_budget b SET spent = b.spent + total.charge, held = greatest(b.held - total.leased, 0)
FROM (SELECT budget_id, sum(charge) AS charge, sum(leased) AS leased FROM share GROUP BY budget_id) AS total
WHERE b.id = total.budget_id
"""
# An organization that is gone has no rollups; its events stay.
_MARK: LiteralString = """
INSERT INTO billing_dirtybucket (organization_id, hour, minute)
SELECT o.id, date_trunc('hour', mark.minute, 'UTC'), extract(minute FROM mark.minute AT TIME ZONE 'UTC')
FROM unnest(%(organizations)s::bigint[], %(minutes)s::timestamptz[]) AS mark(organization_id, minute)
JOIN tenants_organization o ON o.id = mark.organization_id
"""
# Details are removed up to a time; whoever is about to move it on waits for this, or this for them.
_MOVE_BACK: LiteralString = """
UPDATE billing_detailremoval r SET done_until = least(r.done_until, late.minute)
FROM (
    SELECT organization_id, min(minute) AS minute
    FROM unnest(%(organizations)s::bigint[], %(minutes)s::timestamptz[]) AS mark(organization_id, minute)
    GROUP BY organization_id
) AS late
WHERE r.organization_id = late.organization_id
"""
_PUT_ASIDE: LiteralString = """
INSERT INTO billing_deadletter (record, reason)
SELECT %(record)s, %(reason)s
WHERE NOT EXISTS (
    SELECT FROM billing_deadletter WHERE md5(record) = md5(%(record)s) AND record = %(record)s
)
"""
_LOCK_LEASED: LiteralString = """
SELECT FROM billing_budget WHERE id IN (SELECT budget_id FROM billing_lease WHERE worker = %(worker)s)
ORDER BY id FOR NO KEY UPDATE
"""
_RETURN_LEASES: LiteralString = """
WITH lease AS (DELETE FROM billing_lease WHERE worker = %(worker)s RETURNING budget_id, remaining)
UPDATE billing_budget b SET held = greatest(b.held - lease.remaining, 0)
FROM lease WHERE b.id = lease.budget_id
"""
_RECORDED: LiteralString = "SELECT request_id FROM billing_usageevent WHERE request_id = ANY(%(requests)s)"


@dataclass(frozen=True, slots=True)
class Ended:
    """A request's end, as the journal of ``worker`` has it: the record, and the JSON it came from."""

    worker: UUID
    record: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What cannot become an event, and why."""

    raw: bytes
    reason: str


class ImpossibleRecord(ValueError):  # says what is the matter, as callers read it
    """A record that no database could take."""


def settle(
    connection: Connection, ends: Sequence[Ended], aside: Sequence[Unreadable] = ()
) -> tuple[int, int]:
    """Insert the events of ``ends`` in one transaction, settle their charges, mark their hours.

    What PostgreSQL refuses is put aside as a dead letter together with ``aside``, and the others are
    inserted all the same. Returns how many events are new and how many records were put aside. Raises
    psycopg.Error if the database is in trouble; then nothing has happened.
    """
    with connection.transaction():
        possible: list[tuple[Ended, bytes]] = []
        months = set()
        refused = list(aside)
        for ended in ends:
            try:
                months.add(partitions.first_of(_start(ended.record)))
                possible.append((ended, _storable(ended)))
            except ImpossibleRecord as error:
                refused.append(Unreadable(ended.raw, str(error)))
        with connection.cursor() as cursor:
            for month in sorted(months):
                partitions.ensure(cursor, month)
        inserted = _settle(connection, possible, refused) if possible else 0
        for letter in refused:
            put_aside(connection, letter)
    return inserted, len(refused)


def put_aside(connection: Connection, letter: Unreadable) -> None:
    """Keep a record as a dead letter, unless it already is one."""
    text = letter.raw.decode(errors="replace").replace("\0", "\ufffd")
    connection.execute(_PUT_ASIDE, {"record": text, "reason": letter.reason[:500]})


def return_leases(connection: Connection, worker: UUID) -> None:
    """Give what a dead worker held back to the counters it came from."""
    with connection.transaction():
        connection.execute(_LOCK_LEASED, {"worker": worker})
        connection.execute(_RETURN_LEASES, {"worker": worker})


def recorded(connection: Connection, requests: Sequence[str]) -> set[str]:
    """Those of ``requests`` (request ids) that have an event."""
    return {row[0] for row in connection.execute(_RECORDED, {"requests": list(requests)})}


def interrupted(begin: dict[str, Any], worker: UUID, died_at: datetime) -> Ended:
    """The end of a request whose worker died: the provider's cost as estimated, nothing charged, since
    the gateway's own crash is not the tenant's bill. Raises ImpossibleRecord for a begin without a start."""
    started = _start(begin)
    ended = max(started, died_at)
    lasted = (ended - started) // timedelta(milliseconds=1)
    record = {
        **begin,
        "t": "end",
        "ended_at": ended.isoformat(timespec="microseconds"),
        "status": 500,
        "end_reason": "interrupted",
        "error_code": "",
        "attempts": [],
        "input_tokens": begin.get("estimated_input_tokens", 0),
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 0,
        "reasoning_tokens": 0,
        "usage_source": "estimated",
        "cost": begin.get("estimated_cost", "0"),
        "charge": "0",
        "first_token_ms": None,
        "duration_ms": min(lasted, 2**31 - 1),
    }
    return Ended(worker, record, orjson.dumps(record))


def _start(record: dict[str, Any]) -> datetime:
    """When the request began; refuses a record that has no sound identity."""
    request_id = record.get("request_id")
    if not isinstance(request_id, str) or not request_id or "\0" in request_id:
        raise ImpossibleRecord("request_id is missing or no text.")
    try:
        start = datetime.fromisoformat(record["started_at"])
    except (KeyError, TypeError, ValueError):
        raise ImpossibleRecord("started_at is missing or no time.") from None
    if start.tzinfo is None:
        raise ImpossibleRecord("started_at has no time zone.")
    if not EARLIEST <= start <= datetime.now(tz=UTC) + AHEAD:
        raise ImpossibleRecord("started_at is in the future or before 2020.")
    return start


def _storable(ended: Ended) -> bytes:
    """The record's JSON without the one character that PostgreSQL's text cannot hold. Refuses quantities
    that could not be added up, since they would stop the sums of their whole hour."""
    if quantities := ended.record.get("quantities"):
        _check_quantities(quantities)
    if b"\\u0000" not in ended.raw:
        return ended.raw
    return orjson.dumps(_without_nul(ended.record))


def _check_quantities(quantities: object) -> None:
    if not isinstance(quantities, dict) or not set(quantities) <= set(QUANTITIES):
        raise ImpossibleRecord("quantities holds a class that does not exist.")
    if not all(isinstance(amount, str) and _AMOUNT.fullmatch(amount) for amount in quantities.values()):
        raise ImpossibleRecord("quantities holds something that is no decimal.")


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value


def _settle(connection: Connection, ends: list[tuple[Ended, bytes]], refused: list[Unreadable]) -> int:
    """Insert and settle, halving the batch as long as PostgreSQL refuses some record of it."""
    try:
        with connection.transaction():
            return _insert(connection, ends)
    except REFUSALS as error:
        if len(ends) > 1:
            half = len(ends) // 2
            return _settle(connection, ends[:half], refused) + _settle(connection, ends[half:], refused)
        refused.append(Unreadable(ends[0][0].raw, f"{type(error).__name__}: {error}"))
        return 0


def _insert(connection: Connection, ends: list[tuple[Ended, bytes]]) -> int:
    records = b"[" + b",".join(raw for _, raw in ends) + b"]"
    workers = {ended.record["request_id"]: ended.worker for ended, _ in ends}
    inserted = connection.execute(_INSERT, {"records": records.decode()}).fetchall()
    charges: dict[tuple[int, UUID], Decimal] = defaultdict(Decimal)
    minutes: set[tuple[int, datetime]] = set()
    for request_id, organization_id, minute, budget_ids, charge in inserted:
        minutes.add((organization_id, minute))
        if charge:
            for budget_id in budget_ids:
                share = budget_id, workers[request_id]
                charges[share] = EXACT.add(charges[share], charge)
    if charges:
        shares = sorted(charges.items())
        parameters = {
            "budgets": [budget_id for (budget_id, _), _ in shares],
            "workers": [worker for (_, worker), _ in shares],
            "charges": [charge for _, charge in shares],
        }
        connection.execute(_LOCK_BUDGETS, parameters)
        connection.execute(_LOCK_LEASES, parameters)
        connection.execute(_SETTLE, parameters)
    if minutes:
        marks = sorted(minutes)
        connection.execute(_MARK, _columns(marks))
        # Nobody keeps details for less.
        kept = datetime.now(tz=UTC) - timedelta(days=LEAST_DETAIL_DAYS - 1)
        if late := [mark for mark in marks if mark[1] < kept]:
            connection.execute(_MOVE_BACK, _columns(late))
    return len(inserted)


def _columns(marks: Sequence[tuple[int, datetime]]) -> dict[str, list[int] | list[datetime]]:
    return {
        "organizations": [organization for organization, _ in marks],
        "minutes": [minute for _, minute in marks],
    }
