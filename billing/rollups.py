"""Recomputes the hourly sums from the events.

Always as absolute values, so that doing it twice, late events and duplicates change nothing. A
mark is deleted before the events are read: a mark and its events were committed together, so
whoever sees the mark sees the events, and what comes later brings a mark of its own.

A young hour is summed by the minute, and only its marked minutes are recomputed, so the work follows
what changed and not the size of the hour. When it is over, it is summed once as a whole.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, connection, transaction

from billing import spans, tag_rollups

logger = logging.getLogger(__name__)

# Oldest first, so that no tenant waits behind a busier one.
_PENDING = """
SELECT organization_id, hour FROM billing_dirtybucket
WHERE %(organization)s::bigint IS NULL OR organization_id = %(organization)s
GROUP BY organization_id, hour ORDER BY min(id) LIMIT %(limit)s
"""
_WAITING = "SELECT organization_id FROM billing_dirtybucket GROUP BY organization_id ORDER BY min(id)"
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('billing.rollups:' || %(organization)s, 0))"
_TAKE = """
DELETE FROM billing_dirtybucket WHERE id IN (
    SELECT id FROM billing_dirtybucket WHERE organization_id = %(organization)s AND hour = %(hour)s
    ORDER BY id FOR UPDATE SKIP LOCKED
) RETURNING minute
"""
_IN_ONE = """
SELECT EXISTS (
    SELECT FROM billing_usagerollup
    WHERE organization_id = %(organization)s AND hour = %(hour)s AND minute IS NULL
)
"""
# Hours that are over and still lie there by the minute.
_MARK_GROWN = """
INSERT INTO billing_dirtybucket (organization_id, hour)
SELECT DISTINCT organization_id, hour FROM billing_usagerollup r
WHERE minute IS NOT NULL AND hour < %(grown)s AND NOT EXISTS (
    SELECT FROM billing_dirtybucket d WHERE d.organization_id = r.organization_id AND d.hour = r.hour
)
"""
_TIME_ZONE = "SELECT time_zone FROM tenants_organization WHERE id = %(organization)s"
_CLEAR = """
DELETE FROM billing_usagerollup
WHERE organization_id = %(organization)s AND hour = %(hour)s AND (%(whole)s OR minute = ANY(%(minutes)s))
"""
_SUM = """
INSERT INTO billing_usagerollup (
    hour, minute, organization_id, team_id, member_id, key_id, end_user, model_group, deployment, requests, errors,
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost, charge,
    quantities
)
SELECT
    %(hour)s, part.minute, organization_id, team_id, member_id, key_id, end_user, model_group, deployment,
    count(*), count(*) FILTER (WHERE status >= 400),
    sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens), sum(output_tokens),
    sum(reasoning_tokens), sum(cost), sum(charge),
    (
        SELECT coalesce(jsonb_object_agg(key, trim_scale(total)::text), '{}')
        FROM (
            SELECT key, sum(value::numeric) AS total
            FROM unnest(array_agg(quantities) FILTER (WHERE quantities <> '{}')) AS rare, jsonb_each_text(rare)
            GROUP BY key
        ) AS by_class
    )
FROM billing_usageevent
CROSS JOIN LATERAL (
    SELECT CASE WHEN NOT %(in_one)s THEN extract(minute FROM started_at AT TIME ZONE 'UTC')::smallint END AS minute
) AS part
WHERE organization_id = %(organization)s AND started_at >= %(first)s AND started_at < %(after)s
    AND (%(in_one)s OR part.minute = ANY(%(minutes)s))
GROUP BY part.minute, organization_id, team_id, member_id, key_id, end_user, model_group, deployment
"""
# To the minute: a key in constant use need not be written all the time.
_KEYS_USED = """
UPDATE tenants_apikey SET last_used_at = used.at
FROM (
    SELECT key_id, max(started_at) AS at FROM billing_usageevent
    WHERE organization_id = %(organization)s AND started_at >= %(first)s AND started_at < %(after)s
    GROUP BY key_id
) AS used
WHERE tenants_apikey.id = used.key_id AND tenants_apikey.organization_id = %(organization)s
    AND (last_used_at IS NULL OR last_used_at <= used.at - interval '1 minute')
"""
_TO_POST = "INSERT INTO billing_unpostedhour (organization_id, hour) VALUES (%(organization)s, %(hour)s)"
# A row that somebody holds must not hold up the other tenants, nor may a tenant's own size.
PATIENCE = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '45s'"
HOUR = timedelta(hours=1)
EVERY_MINUTE = list(range(60))
# An hour is young until this long after its end; most of what ends late has come by then.
SETTLED_AFTER = timedelta(minutes=10)


def waiting(*, at: datetime | None = None) -> list[int]:
    """The organizations with hours to recompute, who waits longest first. ``at`` is the present."""
    with connection.cursor() as cursor:
        _mark_grown(cursor, at or datetime.now(tz=UTC))
        cursor.execute(_WAITING)
        return [row[0] for row in cursor.fetchall()]


def _mark_grown(cursor: Any, now: datetime) -> None:
    cursor.execute(_MARK_GROWN, {"grown": now - HOUR - SETTLED_AFTER})


def refresh(limit: int = 500, *, at: datetime | None = None, organization_id: int | None = None) -> int:
    """Recompute up to ``limit`` hours that are marked, of one organization or of all, one transaction each;
    returns how many. ``at`` is the present.

    An hour whose organization another process is working on, or that fails, keeps its mark. A failure
    is logged; the organization's other hours wait for the next call, and everybody else's are done.
    """
    now = at or datetime.now(tz=UTC)
    with connection.cursor() as cursor:
        if organization_id is None:
            _mark_grown(cursor, now)
        cursor.execute(_PENDING, {"limit": limit, "organization": organization_id})
        pending = cursor.fetchall()
    done = 0
    stuck = set()
    for owner, hour in pending:
        if owner in stuck:
            continue
        try:
            done += _recompute(owner, hour, young=hour + HOUR + SETTLED_AFTER > now)
        except DatabaseError as error:
            stuck.add(owner)
            logger.exception(
                "The rollups of organization %s at %s could not be recomputed.",
                owner,
                hour.isoformat(),
                exc_info=error,
            )
    return done


def _recompute(organization_id: int, hour: datetime, *, young: bool) -> bool:
    parameters: dict[str, Any] = {"organization": organization_id, "hour": hour}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(PATIENCE)
        cursor.execute(_LOCK, parameters)
        if not cursor.fetchone()[0]:
            return False
        cursor.execute(_TAKE, parameters)
        marked = {row[0] for row in cursor.fetchall()}
        if not marked:
            return False
        cursor.execute(_IN_ONE, parameters)
        whole = not young or None in marked or cursor.fetchone()[0]
        minutes = EVERY_MINUTE if whole else sorted(marked)
        parameters |= {
            "whole": whole,
            "in_one": not young,
            "minutes": minutes,
            "first": hour + timedelta(minutes=minutes[0]),
            "after": hour + timedelta(minutes=minutes[-1] + 1),
        }
        for statement in (_CLEAR, _SUM, _KEYS_USED, _TO_POST):
            cursor.execute(statement, parameters)
        tag_rollups.recompute(cursor, parameters)
        cursor.execute(_TIME_ZONE, parameters)
        spans.spoil(cursor, organization_id, cursor.fetchone()[0], hour)
    return True
