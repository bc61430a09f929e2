"""The sums of days and months by tag, built with those of ``billing.spans`` and by its rules.

A span has them while ``tagged_until`` is its ``until``: a trigger forgets it when the span is spoiled, so
that a span built by a release that knows no tags counts as one without them, and is built once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = "name, value, team_id, model_group"
_MEASURES = (
    "requests",
    "errors",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "charge",
)
_NAMES = ", ".join(_MEASURES)
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _MEASURES)

_CLEAR = "DELETE FROM billing_tagspansum WHERE span_id = %(span)s"
_FROM_HOURS = f"""
INSERT INTO billing_tagspansum (span_id, {_COLUMNS}, {_NAMES})
SELECT %(span)s, {_COLUMNS}, {_SUMS} FROM billing_tagrollup
WHERE organization_id = %(organization)s AND hour >= %(start)s AND hour < %(until)s GROUP BY {_COLUMNS}
"""  # noqa: S608  # names of ours
_FROM_DAYS = f"""
INSERT INTO billing_tagspansum (span_id, {_COLUMNS}, {_NAMES})
SELECT %(span)s, {_COLUMNS}, {_SUMS} FROM billing_tagspansum
WHERE span_id IN (
    SELECT id FROM billing_usagespan WHERE organization_id = %(organization)s AND kind = 'day'
        AND start >= %(start)s AND "end" <= %(until)s
)
GROUP BY {_COLUMNS}
"""  # noqa: S608  # as above
# Whether a month, whose span is {month}, has a day without these sums.
_DAYS_MISSING = """EXISTS (
    SELECT FROM billing_usagespan d WHERE d.organization_id = {month}.organization_id AND d.kind = 'day'
        AND d.start >= {month}.start AND d.start < {month}.until AND d.tagged_until IS DISTINCT FROM d.until
)"""
# For billing.spans: a span ``s`` that has its sums, and lacks those by tag, which can be had.
LACKING = f"""(
    until > start AND tagged_until IS DISTINCT FROM until
    AND (kind = 'day' OR NOT {_DAYS_MISSING.format(month="s")})
)"""
_DONE = f"""
UPDATE billing_usagespan s SET tagged_until = until
WHERE id = %(span)s AND (kind = 'day' OR NOT {_DAYS_MISSING.format(month="s")})
"""  # noqa: S608  # as above
_OF_HOURS, _OF_SPANS = (", ".join(f"coalesce({side}.{name}, 0)" for name in _MEASURES) for side in ("h", "k"))
_FIGURES = ", ".join(f"coalesce(h.{name}, 0), coalesce(k.{name}, 0)" for name in _MEASURES)
_KEPT = "s.fresh AND s.tagged_until = s.until"
# Days and months whose sums by tag are not those of their hours: span, slug, kind, start, tag, figures.
DIFFERENCES = f"""
WITH hourly AS MATERIALIZED (
    SELECT organization_id, hour, name, value, {_SUMS} FROM billing_tagrollup GROUP BY 1, 2, 3, 4
), hours AS (
    SELECT s.id, r.name, r.value, {_SUMS.replace("sum(", "sum(r.")}
    FROM billing_usagespan s JOIN hourly r
        ON r.organization_id = s.organization_id AND r.hour >= s.start AND r.hour < s.until
    WHERE {_KEPT} GROUP BY 1, 2, 3
), kept AS (
    SELECT s.id, t.name, t.value, {_SUMS.replace("sum(", "sum(t.")}
    FROM billing_usagespan s JOIN billing_tagspansum t ON t.span_id = s.id
    WHERE {_KEPT} GROUP BY 1, 2, 3
)
SELECT s.id, o.slug, s.kind, s.start, coalesce(h.name, k.name) || '=' || coalesce(h.value, k.value), {_FIGURES}
FROM hours h FULL JOIN kept k USING (id, name, value)
JOIN billing_usagespan s ON s.id = coalesce(h.id, k.id) JOIN tenants_organization o ON o.id = s.organization_id
WHERE ({_OF_HOURS}) <> ({_OF_SPANS})
ORDER BY o.slug, s.kind, s.start, 5
"""  # noqa: S608  # as above
COMPARED = _MEASURES


def build(cursor: Any, parameters: Mapping[str, Any], *, month: bool) -> None:
    """Sum a span whose ``until`` is set; ``parameters`` are those of ``billing.spans``, whose lock is held."""
    cursor.execute(_CLEAR, parameters)
    cursor.execute(_FROM_DAYS if month else _FROM_HOURS, parameters)
    cursor.execute(_DONE, parameters)
