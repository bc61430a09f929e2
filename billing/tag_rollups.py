"""Recomputes the hourly sums by tag, in the transaction and by the rules of ``billing.rollups``.

What clients write is not bounded, so reports are: an organization's first ``MOST_NAMES`` names and the first
``MOST_VALUES`` values of each are known (``TagValue``, which only grows). A value beyond that is summed under
the empty one, a name beyond it not at all. Names that begin with ``weir.`` are the gateway's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_NAMES = 20
MOST_VALUES = 500

# The lock of the recomputation keeps two of these from passing the bounds together.
_LEARN = """
WITH written AS (
    SELECT DISTINCT tags FROM billing_usageevent
    WHERE organization_id = %(organization)s AND started_at >= %(first)s AND started_at < %(after)s AND tags <> '{}'
), met AS (
    SELECT DISTINCT tag.key AS name, tag.value FROM written CROSS JOIN LATERAL jsonb_each_text(tags) AS tag
    WHERE tag.key NOT LIKE 'weir.%%' AND length(tag.key) <= 40 AND length(tag.value) BETWEEN 1 AND 100
), known AS (
    SELECT name, count(*) AS size FROM billing_tagvalue WHERE organization_id = %(organization)s GROUP BY name
), fresh AS (
    SELECT met.name, met.value, row_number() OVER (PARTITION BY met.name ORDER BY met.value) AS place
    FROM met WHERE NOT EXISTS (
        SELECT FROM billing_tagvalue v
        WHERE v.organization_id = %(organization)s AND v.name = met.name AND v.value = met.value
    )
), names AS (
    SELECT name, row_number() OVER (ORDER BY name) AS place
    FROM (SELECT DISTINCT name FROM fresh WHERE name NOT IN (SELECT name FROM known)) AS new
)
INSERT INTO billing_tagvalue (organization_id, name, value)
SELECT %(organization)s, fresh.name, fresh.value
FROM fresh LEFT JOIN known USING (name) LEFT JOIN names USING (name)
WHERE fresh.place + coalesce(known.size, 0) <= %(most_values)s
    AND (names.place IS NULL OR names.place + (SELECT count(*) FROM known) <= %(most_names)s)
ON CONFLICT DO NOTHING
"""
_CLEAR = """
DELETE FROM billing_tagrollup
WHERE organization_id = %(organization)s AND hour = %(hour)s AND (%(whole)s OR minute = ANY(%(minutes)s))
"""
# Requests with the same tags are added up before their tags are taken apart.
_SUM = """
WITH alike AS (
    SELECT part.minute, tags, team_id, model_group, count(*) AS requests,
        count(*) FILTER (WHERE status >= 400) AS errors, sum(input_tokens) AS input_tokens,
        sum(cached_input_tokens) AS cached_input_tokens, sum(cache_write_tokens) AS cache_write_tokens,
        sum(output_tokens) AS output_tokens, sum(reasoning_tokens) AS reasoning_tokens,
        sum(cost) AS cost, sum(charge) AS charge
    FROM billing_usageevent
    CROSS JOIN LATERAL (
        SELECT CASE WHEN NOT %(in_one)s THEN extract(minute FROM started_at AT TIME ZONE 'UTC')::smallint END AS minute
    ) AS part
    WHERE organization_id = %(organization)s AND started_at >= %(first)s AND started_at < %(after)s
        AND tags <> '{}' AND (%(in_one)s OR part.minute = ANY(%(minutes)s))
    GROUP BY part.minute, tags, team_id, model_group
)
INSERT INTO billing_tagrollup (
    hour, minute, organization_id, name, value, team_id, model_group, requests, errors,
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost, charge
)
SELECT
    %(hour)s, minute, %(organization)s, tag.key, coalesce(known.value, ''), team_id, model_group,
    sum(requests), sum(errors), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens),
    sum(output_tokens), sum(reasoning_tokens), sum(cost), sum(charge)
FROM alike CROSS JOIN LATERAL jsonb_each_text(tags) AS tag
LEFT JOIN billing_tagvalue known
    ON known.organization_id = %(organization)s AND known.name = tag.key AND known.value = tag.value
WHERE EXISTS (SELECT FROM billing_tagvalue n WHERE n.organization_id = %(organization)s AND n.name = tag.key)
GROUP BY minute, tag.key, coalesce(known.value, ''), team_id, model_group
"""
_TAGGED = """
SELECT EXISTS (
    SELECT FROM billing_usageevent
    WHERE organization_id = %(organization)s AND started_at >= %(first)s AND started_at < %(after)s AND tags <> '{}'
)
"""
# Hours in which the sums by tag are not those of their events, in the form of the comparisons of usage:
# organization, slug, hour, and then what differs and the figures.
DIFFERENCES = """
WITH event AS (
    SELECT e.organization_id, date_trunc('hour', e.started_at, 'UTC') AS hour, given.key AS tag,
        coalesce(known.value, '') AS value, count(*) AS requests, sum(e.charge) AS charge, sum(e.cost) AS cost,
        sum(e.input_tokens + e.cached_input_tokens + e.cache_write_tokens + e.output_tokens) AS tokens
    FROM billing_usageevent e CROSS JOIN LATERAL jsonb_each_text(e.tags) AS given
    LEFT JOIN billing_tagvalue known
        ON known.organization_id = e.organization_id AND known.name = given.key AND known.value = given.value
    WHERE e.tags <> '{}' AND EXISTS (
        SELECT FROM billing_tagvalue n WHERE n.organization_id = e.organization_id AND n.name = given.key
    )
    GROUP BY 1, 2, 3, 4
), rollup AS (
    SELECT organization_id, hour, name AS tag, value, sum(requests) AS requests, sum(charge) AS charge,
        sum(cost) AS cost,
        sum(input_tokens + cached_input_tokens + cache_write_tokens + output_tokens) AS tokens
    FROM billing_tagrollup GROUP BY 1, 2, 3, 4
)
SELECT o.id, o.slug, hour, tag || '=' || value,
    coalesce(e.requests, 0), coalesce(r.requests, 0), coalesce(e.tokens, 0), coalesce(r.tokens, 0),
    coalesce(e.cost, 0), coalesce(r.cost, 0), coalesce(e.charge, 0), coalesce(r.charge, 0)
FROM event e FULL JOIN rollup r USING (organization_id, hour, tag, value)
JOIN tenants_organization o ON o.id = organization_id
WHERE (e.requests, e.tokens, e.cost, e.charge) IS DISTINCT FROM (r.requests, r.tokens, r.cost, r.charge)
    AND NOT EXISTS (
        SELECT FROM billing_dirtybucket d WHERE d.organization_id = o.id AND d.hour = coalesce(e.hour, r.hour)
    )
ORDER BY o.slug, hour, 4
"""
COMPARED = ("requests", "tokens", "cost", "charge")


def recompute(cursor: Any, parameters: Mapping[str, Any]) -> None:
    """Sum the marked minutes of an hour anew; ``parameters`` are those of ``billing.rollups``, whose lock is held."""
    cursor.execute(_CLEAR, parameters)
    cursor.execute(_TAGGED, parameters)
    if not cursor.fetchone()[0]:
        return
    cursor.execute(_LEARN, {**parameters, "most_names": MOST_NAMES, "most_values": MOST_VALUES})
    cursor.execute(_SUM, parameters)
