"""What hours must equal beside their plain sums: the rarer classes of the events, their sums by tag, and the
sums of the days and months made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing import spans, tag_rollups, tag_spans

# In the form of the other comparisons of usage: organization, slug, hour, and then the figures.
QUANTITIES = """
WITH event AS (
    SELECT organization_id, date_trunc('hour', started_at, 'UTC') AS hour, key AS class, sum(value::numeric) AS amount
    FROM billing_usageevent CROSS JOIN LATERAL jsonb_each_text(quantities)
    WHERE quantities <> '{}' GROUP BY 1, 2, 3
), rollup AS (
    SELECT organization_id, hour, key AS class, sum(value::numeric) AS amount
    FROM billing_usagerollup CROSS JOIN LATERAL jsonb_each_text(quantities)
    WHERE quantities <> '{}' GROUP BY 1, 2, 3
)
SELECT o.id, o.slug, hour, class, coalesce(e.amount, 0), coalesce(r.amount, 0)
FROM event e FULL JOIN rollup r USING (organization_id, hour, class)
JOIN tenants_organization o ON o.id = organization_id
WHERE coalesce(e.amount, 0) <> coalesce(r.amount, 0)
    AND NOT EXISTS (
        SELECT FROM billing_dirtybucket d WHERE d.organization_id = o.id AND d.hour = coalesce(e.hour, r.hour)
    )
ORDER BY o.slug, hour, class
"""
_SUMMED = ", ".join(f"sum({name}) AS {name}" for name in spans.MEASURES)
_FIGURES = ", ".join(f"coalesce(h.{name}, 0), coalesce(k.{name}, 0)" for name in spans.MEASURES)
_OF_HOURS = ", ".join(f"coalesce(h.{name}, 0)" for name in spans.MEASURES)
_OF_SPANS = ", ".join(f"coalesce(k.{name}, 0)" for name in spans.MEASURES)
# A recomputed hour makes its spans stale in the same transaction, so a fresh one waits for nothing.
_SPANS = f"""
WITH hourly AS MATERIALIZED (
    SELECT organization_id, hour, {_SUMMED} FROM billing_usagerollup GROUP BY 1, 2
), kept AS MATERIALIZED (
    SELECT span_id, slice, {_SUMMED} FROM billing_usagespansum GROUP BY 1, 2
), hours AS (
    SELECT s.id, {_SUMMED.replace("sum(", "sum(r.")}
    FROM billing_usagespan s JOIN hourly r
        ON r.organization_id = s.organization_id AND r.hour >= s.start AND r.hour < s.until
    WHERE s.fresh GROUP BY s.id
)
SELECT s.id, o.slug, s.kind, s.start, asked.slice, {_FIGURES}
FROM billing_usagespan s JOIN tenants_organization o ON o.id = s.organization_id
CROSS JOIN unnest(%(slices)s::text[]) AS asked (slice)
LEFT JOIN hours h ON h.id = s.id LEFT JOIN kept k ON k.span_id = s.id AND k.slice = asked.slice
WHERE s.fresh AND ({_OF_HOURS}) <> ({_OF_SPANS})
ORDER BY o.slug, s.kind, s.start, asked.slice
"""  # noqa: S608  # names of ours


@dataclass(frozen=True, slots=True)
class Line:
    """One difference: the organization's slug, what is compared, of which time, and both figures."""

    organization: str
    what: str
    hour: datetime
    part: str
    expected: Decimal
    found: Decimal


def of_quantities(cursor: Any) -> Iterator[Line]:
    """Classes whose amounts differ between the events of an hour and its rollups."""
    cursor.execute(QUANTITIES)
    for _, slug, hour, name, expected, found in cursor.fetchall():
        yield Line(slug, f"{name} of events and rollups", hour, "", expected, found)


def of_tags(cursor: Any) -> Iterator[Line]:
    """Tags whose sums differ between the events of an hour and its rollups."""
    cursor.execute(tag_rollups.DIFFERENCES)
    for _, slug, hour, tag, *figures in cursor.fetchall():
        for position, measure in enumerate(tag_rollups.COMPARED):
            expected, found = figures[2 * position : 2 * position + 2]
            if expected != found:
                yield Line(slug, f"{measure} of events and rollups by tag", hour, tag, expected, found)


def of_spans(cursor: Any) -> Iterator[Line]:
    """Days and months whose sums, by any of their slices, are not those of their hours."""
    cursor.execute(_SPANS, {"slices": list(spans.SLICES)})
    for _, slug, kind, start, slice_name, *figures in cursor.fetchall():
        for position, measure in enumerate(spans.MEASURES):
            expected, found = figures[2 * position : 2 * position + 2]
            if expected != found:
                yield Line(
                    slug, f"{measure} of hours and {kind}s", start, f"{kind} by {slice_name}", expected, found
                )


def of_tag_spans(cursor: Any) -> Iterator[Line]:
    """Tags whose sums of a day or month are not those of its hours."""
    cursor.execute(tag_spans.DIFFERENCES)
    for _, slug, kind, start, tag, *figures in cursor.fetchall():
        for position, measure in enumerate(tag_spans.COMPARED):
            expected, found = figures[2 * position : 2 * position + 2]
            if expected != found:
                yield Line(
                    slug, f"{measure} of hours and {kind}s by tag", start, f"{kind} {tag}", expected, found
                )


def spoil_wrong_spans(cursor: Any) -> None:
    """Have the days and months that differ from their hours built again."""
    cursor.execute(_SPANS, {"slices": list(spans.SLICES)})
    wrong = {row[0] for row in cursor.fetchall()}
    cursor.execute(tag_spans.DIFFERENCES)
    wrong |= {row[0] for row in cursor.fetchall()}
    cursor.execute("UPDATE billing_usagespan SET fresh = false WHERE id = ANY(%s)", [sorted(wrong)])
