"""Recomputes the hourly sums from the events.

Always as absolute values, so that doing it twice, late events and duplicates change nothing. A
mark is deleted before the events are read: a mark and its events were committed together, so
whoever sees the mark sees the events, and what comes later brings a mark of its own.
"""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import DatabaseError, connection, transaction

logger = logging.getLogger(__name__)

# Oldest first, so that no tenant waits behind a busier one.
_PENDING = """
SELECT organization_id, hour FROM billing_dirtybucket
GROUP BY organization_id, hour ORDER BY min(id) LIMIT %(limit)s
"""
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('billing.rollups:' || %(organization)s, 0))"
_TAKE = """
DELETE FROM billing_dirtybucket WHERE id IN (
    SELECT id FROM billing_dirtybucket WHERE organization_id = %(organization)s AND hour = %(hour)s
    ORDER BY id FOR UPDATE SKIP LOCKED
)
"""
_CLEAR = "DELETE FROM billing_usagerollup WHERE organization_id = %(organization)s AND hour = %(hour)s"
_SUM = """
INSERT INTO billing_usagerollup (
    hour, organization_id, team_id, member_id, key_id, end_user, model_group, deployment, requests, errors,
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost, charge,
    quantities
)
SELECT
    %(hour)s, organization_id, team_id, member_id, key_id, end_user, model_group, deployment,
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
WHERE organization_id = %(organization)s
    AND started_at >= %(hour)s AND started_at < %(hour)s + interval '1 hour'
GROUP BY organization_id, team_id, member_id, key_id, end_user, model_group, deployment
"""
# To the minute: a key in constant use need not be written all the time.
_KEYS_USED = """
UPDATE tenants_apikey SET last_used_at = used.at
FROM (
    SELECT key_id, max(started_at) AS at FROM billing_usageevent
    WHERE organization_id = %(organization)s
        AND started_at >= %(hour)s AND started_at < %(hour)s + interval '1 hour'
    GROUP BY key_id
) AS used
WHERE tenants_apikey.id = used.key_id AND tenants_apikey.organization_id = %(organization)s
    AND (last_used_at IS NULL OR last_used_at <= used.at - interval '1 minute')
"""
_TO_POST = "INSERT INTO billing_unpostedhour (organization_id, hour) VALUES (%(organization)s, %(hour)s)"
# A row that somebody holds must not hold up the other tenants.
PATIENCE = "SET LOCAL lock_timeout = '2s'"


def refresh(limit: int = 500) -> int:
    """Recompute up to ``limit`` hours that are marked, one transaction each; returns how many.

    An hour whose organization another process is working on, or that fails, keeps its mark; the
    failure is logged, and the others are done all the same.
    """
    with connection.cursor() as cursor:
        cursor.execute(_PENDING, {"limit": limit})
        pending = cursor.fetchall()
    done = 0
    for organization_id, hour in pending:
        try:
            done += _recompute(organization_id, hour)
        except DatabaseError as error:
            logger.exception(
                "The rollups of organization %s at %s could not be recomputed.",
                organization_id,
                hour.isoformat(),
                exc_info=error,
            )
    return done


def _recompute(organization_id: int, hour: datetime) -> bool:
    parameters: dict[str, int | datetime] = {"organization": organization_id, "hour": hour}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(PATIENCE)
        cursor.execute(_LOCK, parameters)
        if not cursor.fetchone()[0]:
            return False
        cursor.execute(_TAKE, parameters)
        if not cursor.rowcount:
            return False
        for statement in (_CLEAR, _SUM, _KEYS_USED, _TO_POST):
            cursor.execute(statement, parameters)
    return True
