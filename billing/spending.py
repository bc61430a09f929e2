"""SQL of what was charged in a period, fast whatever its length, and exact at the moment it is read.

A counter that is made in the midst of its period begins with it, while a request waits. So it is summed from
the largest pieces that hold: days and months (``billing.spans``), then hours and minutes (``billing.rollups``),
and from the events themselves only where those changed since. That is exact in one statement, which sees one
state of the database: an event comes with a mark of its minute in one transaction, and a mark goes with the
sums that replace it in another. So an hour without a mark has sums that are its events'.
"""

from __future__ import annotations

from typing import LiteralString, NamedTuple


class Share(NamedTuple):
    """The part of an organization's usage that somebody is charged for, as a condition on ``usage``: an event, an
    hour's sum or a span's. It may use the one row of ``quota``."""

    # By which columns spans are summed that tell this share (``billing.spans.SLICES``).
    slice: LiteralString
    condition: LiteralString
    # When spans have it.
    in_spans: LiteralString


_OF_MODEL: LiteralString = "(quota.model_group = '' OR usage.model_group = quota.model_group)"
# Spans by key and by user do not tell the models.
_OF_ANY_MODEL: LiteralString = "quota.model_group = ''"

# What is charged to a quota, by its scope.
SHARES: dict[str, Share] = {
    "plan": Share("model", _OF_MODEL, "TRUE"),
    "organization": Share("model", _OF_MODEL, "TRUE"),
    "team": Share("model", f"{_OF_MODEL} AND usage.team_id = quota.team_id", "TRUE"),
    "member": Share("key", f"{_OF_MODEL} AND usage.member_id = quota.member_id", _OF_ANY_MODEL),
    "key": Share("key", f"{_OF_MODEL} AND usage.key_id = quota.key_id", _OF_ANY_MODEL),
    "end_user": Share(
        "user",
        f"{_OF_MODEL} AND usage.end_user = coalesce(nullif(quota.end_user, ''), %(subject)s) AND usage.end_user <> ''",
        _OF_ANY_MODEL,
    ),
}
# What is charged to a wallet.
EVERYTHING = Share("model", "TRUE", "TRUE")

# The period is from %(start)s to before %(end)s (null: no end), in the organization with the id
# %(organization)s. ``whole_from`` and ``whole_to`` are its first and last full hours of UTC.
_PIECES: LiteralString = """
    period AS (
        SELECT %(organization)s::bigint AS organization_id, at.first, at.after,
            date_trunc('hour', at.first + interval '1 hour' - interval '1 microsecond', 'UTC') AS whole_from,
            date_trunc('hour', at.after, 'UTC') AS whole_to
        FROM (SELECT %(start)s::timestamptz AS first, coalesce(%(end)s::timestamptz, 'infinity') AS after) AS at
    ), marked AS MATERIALIZED (
        SELECT DISTINCT mark.hour, mark.minute FROM billing_dirtybucket mark, period
        WHERE mark.organization_id = period.organization_id
            AND mark.hour >= period.whole_from AND mark.hour < period.whole_to
    ), usable AS MATERIALIZED (
        SELECT span.id, span.start, span.until FROM billing_usagespan span, {quota}period
        WHERE span.organization_id = period.organization_id AND span.fresh AND span.until > span.start
            AND span.start >= period.first AND span.until <= period.after AND {in_spans}
            AND NOT EXISTS (SELECT FROM marked WHERE marked.hour >= span.start AND marked.hour < span.until)
    ), cover AS (
        (SELECT * FROM usable ORDER BY start, until DESC LIMIT 1)
        UNION ALL
        SELECT following.* FROM cover, LATERAL (
            SELECT * FROM usable WHERE usable.start >= cover.until ORDER BY usable.start, usable.until DESC LIMIT 1
        ) AS following
    ), gap AS MATERIALIZED (
        SELECT * FROM (
            SELECT reached AS first, lead(start, 1, whole_to) OVER (ORDER BY reached) AS after
            FROM (
                SELECT whole_from AS reached, NULL AS start, whole_to FROM period
                UNION ALL SELECT cover.until, cover.start, period.whole_to FROM cover, period
            ) AS piece
        ) AS between_spans
        WHERE first < after
    ), stale AS MATERIALIZED (
        SELECT DISTINCT CASE WHEN whole THEN hour ELSE at END AS first,
            CASE WHEN whole THEN hour + interval '1 hour' ELSE at + interval '1 minute' END AS after
        FROM (
            SELECT marked.hour, marked.hour + marked.minute * interval '1 minute' AS at,
                bool_or(marked.minute IS NULL) OVER (PARTITION BY marked.hour) OR EXISTS (
                    SELECT FROM billing_usagerollup summed, period
                    WHERE summed.organization_id = period.organization_id AND summed.hour = marked.hour
                        AND summed.minute IS NULL
                ) AS whole
            FROM marked
        ) AS mark
        UNION ALL SELECT first, least(whole_from, after) FROM period WHERE first < whole_from
        UNION ALL SELECT greatest(whole_to, first), after FROM period WHERE whole_from <= whole_to AND whole_to < after
    )
"""
_SUM: LiteralString = """
    SELECT coalesce(sum(charge), 0) AS charge FROM (
        SELECT usage.charge FROM {quota}cover JOIN billing_usagespansum usage ON usage.span_id = cover.id
        WHERE usage.slice = '{slice}' AND {condition}
        UNION ALL
        SELECT of_hours.charge FROM {quota}gap CROSS JOIN LATERAL (
            SELECT sum(usage.charge) AS charge FROM billing_usagerollup usage
            WHERE usage.organization_id = %(organization)s AND usage.hour >= gap.first AND usage.hour < gap.after
                AND {condition} AND NOT EXISTS (
                    SELECT FROM marked WHERE marked.hour = usage.hour
                        AND (marked.minute IS NULL OR usage.minute IS NULL OR marked.minute = usage.minute)
                )
        ) AS of_hours
        UNION ALL
        SELECT of_events.charge FROM {quota}stale CROSS JOIN LATERAL (
            SELECT sum(usage.charge) AS charge FROM billing_usageevent usage
            WHERE usage.organization_id = %(organization)s
                AND usage.started_at >= stale.first AND usage.started_at < stale.after AND {condition}
        ) AS of_events
    ) AS part
"""


def pieces(share: Share, *, quota: bool) -> LiteralString:
    """The named queries that ``charged`` reads from, to stand behind WITH RECURSIVE; with ``quota``, behind one
    of that name."""
    return _PIECES.replace("{in_spans}", share.in_spans).replace("{quota}", "quota, " if quota else "")


def charged(share: Share, *, quota: bool) -> LiteralString:
    """The query with the one column ``charge``, US dollars, and one usage. Parameters: ``organization`` (id), ``start``,
    ``end`` (or None) and, for an end user's, ``subject``."""
    return (
        _SUM.replace("{slice}", share.slice)
        .replace("{condition}", share.condition)
        .replace("{quota}", "quota, " if quota else "")
    )
