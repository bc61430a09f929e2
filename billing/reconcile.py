"""Proves that journal, events, rollups, counters, ledger and statements say the same.

All comparisons read one snapshot. Hours that wait for recomputation or posting in that snapshot are
left out of the comparisons they wait for, since a lag is not a difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from billing import journal_check, ledger, rollup_check, rollups, spans, tag_rollups
from billing.models import ReconcileReport
from billing.money import plain
from billing.statements import proof

# More than anybody reads; the rest is counted.
MOST_REPORTED = 1_000
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Two figures that should be equal: ``organization`` (slug), ``what`` is compared, ``where`` (an
    hour, a counter, a posting), and both figures as exact text."""

    organization: str
    what: str
    where: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What was compared: the number of events, and their charge and cost in US dollars."""

    events: int
    charge: Decimal
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of one comparison. ``waiting``: hours left out because they are being brought up to date."""

    totals: Totals
    differences: list[Difference]
    waiting: int


_TOTALS = "SELECT count(*), coalesce(sum(charge), 0), coalesce(sum(cost), 0) FROM billing_usageevent"
_WAITING = """
SELECT count(*) FROM (
    SELECT organization_id, hour FROM billing_dirtybucket UNION SELECT organization_id, hour FROM billing_unpostedhour
) AS waiting
"""
# Events of an organization that is gone have no rollups.
_EVENTS_AND_ROLLUPS = """
WITH event AS (
    SELECT organization_id, date_trunc('hour', started_at, 'UTC') AS hour,
        count(*) AS requests, count(*) FILTER (WHERE status >= 400) AS errors,
        sum(input_tokens) AS input_tokens, sum(cached_input_tokens) AS cached_input_tokens,
        sum(cache_write_tokens) AS cache_write_tokens, sum(output_tokens) AS output_tokens,
        sum(reasoning_tokens) AS reasoning_tokens, sum(cost) AS cost, sum(charge) AS charge
    FROM billing_usageevent GROUP BY 1, 2
), rollup AS (
    SELECT organization_id, hour, sum(requests) AS requests, sum(errors) AS errors,
        sum(input_tokens) AS input_tokens, sum(cached_input_tokens) AS cached_input_tokens,
        sum(cache_write_tokens) AS cache_write_tokens, sum(output_tokens) AS output_tokens,
        sum(reasoning_tokens) AS reasoning_tokens, sum(cost) AS cost, sum(charge) AS charge
    FROM billing_usagerollup GROUP BY 1, 2
)
SELECT o.id, o.slug, hour,
    coalesce(e.requests, 0), coalesce(r.requests, 0), coalesce(e.errors, 0), coalesce(r.errors, 0),
    coalesce(e.input_tokens, 0), coalesce(r.input_tokens, 0),
    coalesce(e.cached_input_tokens, 0), coalesce(r.cached_input_tokens, 0),
    coalesce(e.cache_write_tokens, 0), coalesce(r.cache_write_tokens, 0),
    coalesce(e.output_tokens, 0), coalesce(r.output_tokens, 0),
    coalesce(e.reasoning_tokens, 0), coalesce(r.reasoning_tokens, 0),
    coalesce(e.cost, 0), coalesce(r.cost, 0), coalesce(e.charge, 0), coalesce(r.charge, 0)
FROM event e FULL JOIN rollup r USING (organization_id, hour)
JOIN tenants_organization o ON o.id = organization_id
WHERE (e.requests, e.errors, e.input_tokens, e.cached_input_tokens, e.cache_write_tokens, e.output_tokens,
        e.reasoning_tokens, e.cost, e.charge)
    IS DISTINCT FROM (r.requests, r.errors, r.input_tokens, r.cached_input_tokens, r.cache_write_tokens,
        r.output_tokens, r.reasoning_tokens, r.cost, r.charge)
    AND NOT EXISTS (
        SELECT FROM billing_dirtybucket d WHERE d.organization_id = o.id AND d.hour = coalesce(e.hour, r.hour)
    )
ORDER BY o.slug, hour
"""
_ROLLUPS_AND_LEDGER = """
WITH rollup AS (
    SELECT organization_id, hour, sum(charge) AS charge, sum(cost) AS cost FROM billing_usagerollup GROUP BY 1, 2
), posting AS (
    SELECT t.organization_id, t.usage_hour AS hour,
        -sum(e.amount) FILTER (WHERE e.account = 'revenue') AS charge,
        sum(e.amount) FILTER (WHERE e.account = 'provider_cost') AS cost
    FROM billing_ledgertransaction t JOIN billing_ledgerentry e ON e.transaction_id = t.id
    WHERE t.kind = 'usage' GROUP BY 1, 2
)
SELECT o.id, o.slug, hour, coalesce(r.charge, 0), coalesce(p.charge, 0), coalesce(r.cost, 0), coalesce(p.cost, 0)
FROM rollup r FULL JOIN posting p USING (organization_id, hour)
JOIN tenants_organization o ON o.id = organization_id
WHERE (coalesce(r.charge, 0), coalesce(r.cost, 0)) <> (coalesce(p.charge, 0), coalesce(p.cost, 0))
    AND NOT EXISTS (
        SELECT FROM billing_unpostedhour u WHERE u.organization_id = o.id AND u.hour = coalesce(r.hour, p.hour)
    )
ORDER BY o.slug, hour
"""
_UNBALANCED = """
SELECT o.slug, t.reference, e.currency, sum(e.amount)
FROM billing_ledgerentry e JOIN billing_ledgertransaction t ON t.id = e.transaction_id
JOIN tenants_organization o ON o.id = t.organization_id
GROUP BY o.slug, t.reference, e.currency HAVING sum(e.amount) <> 0
UNION ALL
SELECT o.slug, t.reference, 'entries of another organization', count(*)
FROM billing_ledgerentry e JOIN billing_ledgertransaction t ON t.id = e.transaction_id
JOIN tenants_organization o ON o.id = t.organization_id
WHERE e.organization_id <> t.organization_id GROUP BY o.slug, t.reference
ORDER BY 1, 2
"""
_WALLET_LIMITS = """
SELECT o.slug, wanted.amount, b.limit
FROM billing_budget b JOIN tenants_organization o ON o.id = b.organization_id
CROSS JOIN LATERAL (
    SELECT -coalesce(sum(e.amount), 0) AS amount
    FROM billing_ledgerentry e JOIN billing_ledgertransaction t ON t.id = e.transaction_id
    WHERE e.organization_id = o.id AND e.account IN ('wallet', 'grants', 'receivable') AND t.kind <> 'usage'
) AS received
CROSS JOIN LATERAL (
    SELECT CASE o.billing WHEN 'postpaid' THEN received.amount + o.credit_limit ELSE received.amount END AS amount
) AS wanted
WHERE b.quota_id IS NULL AND b.subject = '' AND wanted.amount IS DISTINCT FROM b.limit
ORDER BY o.slug
"""
_SPENT = """
WITH charged AS (
    SELECT budget_id, sum(charge) AS charge
    FROM billing_usageevent CROSS JOIN LATERAL unnest(budget_ids) AS budget_id
    WHERE charge <> 0 GROUP BY budget_id
)
SELECT o.slug, b.id, q.scope, q.period, b.subject, b.period_start, b.opening + coalesce(c.charge, 0), b.spent
FROM billing_budget b JOIN tenants_organization o ON o.id = b.organization_id
LEFT JOIN billing_quota q ON q.id = b.quota_id LEFT JOIN charged c ON c.budget_id = b.id
WHERE b.spent <> b.opening + coalesce(c.charge, 0)
ORDER BY o.slug, b.id
"""
_HELD = """
SELECT o.slug, b.id, q.scope, q.period, b.subject, b.period_start, coalesce(l.remaining, 0), b.held
FROM billing_budget b JOIN tenants_organization o ON o.id = b.organization_id
LEFT JOIN billing_quota q ON q.id = b.quota_id
LEFT JOIN (SELECT budget_id, sum(remaining) AS remaining FROM billing_lease GROUP BY budget_id) AS l
    ON l.budget_id = b.id
WHERE b.held <> coalesce(l.remaining, 0)
ORDER BY o.slug, b.id
"""
_BALANCES = """
WITH summed AS (
    SELECT organization_id, account, grant_id, currency, sum(amount) AS amount
    FROM billing_ledgerentry GROUP BY 1, 2, 3, 4
)
SELECT o.slug, coalesce(s.account, b.account), coalesce(s.grant_id, b.grant_id), coalesce(s.currency, b.currency),
    coalesce(s.amount, 0), coalesce(b.balance, 0)
FROM summed s FULL JOIN billing_accountbalance b ON (b.organization_id, b.account, b.currency)
        = (s.organization_id, s.account, s.currency) AND coalesce(b.grant_id, 0) = coalesce(s.grant_id, 0)
JOIN tenants_organization o ON o.id = coalesce(s.organization_id, b.organization_id)
WHERE coalesce(s.amount, 0) <> coalesce(b.balance, 0)
ORDER BY 1, 2, 3
"""
# A grant was credited once with its amount, and never pays more than that.
_GRANTS = """
SELECT o.slug, g.id, g.amount, coalesce(given.amount, 0), coalesce(-b.balance, 0)
FROM billing_grant g JOIN tenants_organization o ON o.id = g.organization_id
LEFT JOIN billing_accountbalance b ON b.grant_id = g.id AND b.account = 'grants'
LEFT JOIN LATERAL (
    SELECT -sum(amount) AS amount FROM billing_ledgerentry e
    WHERE e.grant_id = g.id AND e.transaction_id = g.posting_id AND e.account = 'grants'
) AS given ON true
WHERE coalesce(given.amount, 0) <> g.amount OR coalesce(b.balance, 0) > 0
ORDER BY 1, 2
"""
_WALLETS_AND_LEDGER = """
SELECT o.slug, coalesce(used.amount, 0), b.spent
FROM billing_budget b JOIN tenants_organization o ON o.id = b.organization_id
LEFT JOIN (
    SELECT e.organization_id, sum(e.amount) AS amount
    FROM billing_ledgerentry e JOIN billing_ledgertransaction t ON t.id = e.transaction_id
    WHERE e.account IN ('wallet', 'grants', 'receivable') AND t.kind = 'usage' GROUP BY e.organization_id
) AS used ON used.organization_id = o.id
WHERE b.quota_id IS NULL AND b.subject = '' AND b.spent <> coalesce(used.amount, 0)
    AND NOT EXISTS (SELECT FROM billing_dirtybucket d WHERE d.organization_id = o.id)
    AND NOT EXISTS (SELECT FROM billing_unpostedhour u WHERE u.organization_id = o.id)
ORDER BY o.slug
"""


def bring_up_to_date(*, settle: bool = False) -> None:
    """Recompute and post what waits, each for at most half a minute.

    With ``settle``, also hours whose rollups differ from their events, or whose postings differ from
    their rollups, though nothing says so: rollups follow events, days and months follow rollups, and so
    do postings. Counters
    (``spent``, ``held``, limits) and the past of the ledger are never touched.
    """
    if settle:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_EVENTS_AND_ROLLUPS)
            _queue(cursor, "billing_dirtybucket", cursor.fetchall())
            cursor.execute(rollup_check.QUANTITIES)
            _queue(cursor, "billing_dirtybucket", cursor.fetchall())
            cursor.execute(tag_rollups.DIFFERENCES)
            _queue(cursor, "billing_dirtybucket", cursor.fetchall())
            rollup_check.spoil_wrong_spans(cursor)
            cursor.execute(_ROLLUPS_AND_LEDGER)
            _queue(cursor, "billing_unpostedhour", cursor.fetchall())
    _work_off("billing_dirtybucket", rollups.refresh)
    if settle:
        spans.refresh()
    _work_off("billing_unpostedhour", ledger.post_usage)


def _work_off(table: str, step: Callable[[], int]) -> None:
    """Repeat ``step`` until every row that is in ``table`` is gone; new ones may go on coming."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT max(id) FROM {table}")  # noqa: S608  # a name of ours
        last = cursor.fetchone()[0]
        while last is not None and time.monotonic() < deadline:
            done = step()
            cursor.execute(f"SELECT EXISTS (SELECT FROM {table} WHERE id <= %s)", [last])  # noqa: S608  # as above
            if not cursor.fetchone()[0]:
                return
            if not done:
                # Another process is at it.
                time.sleep(0.1)


def _queue(cursor: Any, table: str, rows: list[tuple[Any, ...]]) -> None:
    statement = f"INSERT INTO {table} (organization_id, hour) VALUES (%s, %s)"  # noqa: S608  # a name of ours
    cursor.executemany(statement, [(row[0], row[2]) for row in rows])


def compare(directory: Path | None = None) -> Comparison:
    """Compare everything with everything it must equal, in one snapshot of the database.

    ``directory`` is the journal of this host, if it has one: what stands there must have been shipped.
    """
    outermost = not connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        if outermost:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(_TOTALS)
        totals = Totals(*cursor.fetchone())
        cursor.execute(_WAITING)
        waiting = cursor.fetchone()[0]
        differences = [
            *_of_usage(cursor),
            *_of_ledger(cursor),
            *_of_counters(cursor),
            *_of_statements(cursor),
        ]
        if directory is not None:
            differences += _of_journal(cursor, directory)
    return Comparison(totals, differences, waiting)


def record(comparison: Comparison) -> ReconcileReport:
    """Keep the outcome as a report."""
    return ReconcileReport.objects.create(
        balanced=not comparison.differences,
        differences=[asdict(difference) for difference in comparison.differences[:MOST_REPORTED]],
    )


def _of_usage(cursor: Any) -> Iterator[Difference]:
    cursor.execute(_EVENTS_AND_ROLLUPS)
    for _, slug, hour, *figures in cursor.fetchall():
        for position, measure in enumerate(spans.MEASURES):
            events, rolled_up = figures[2 * position : 2 * position + 2]
            if events != rolled_up:
                yield Difference(
                    slug, f"{measure} of events and rollups", _hour(hour), _figure(events), _figure(rolled_up)
                )
    for line in (
        *rollup_check.of_quantities(cursor),
        *rollup_check.of_tags(cursor),
        *rollup_check.of_spans(cursor),
        *rollup_check.of_tag_spans(cursor),
    ):
        where = " ".join(filter(None, (_hour(line.hour), line.part)))
        yield Difference(line.organization, line.what, where, _figure(line.expected), _figure(line.found))


def _of_ledger(cursor: Any) -> Iterator[Difference]:
    cursor.execute(_ROLLUPS_AND_LEDGER)
    for _, slug, hour, charge, posted_charge, cost, posted_cost in cursor.fetchall():
        for what, expected, found in (("charge", charge, posted_charge), ("cost", cost, posted_cost)):
            if expected != found:
                yield Difference(
                    slug, f"{what} of rollups and ledger", _hour(hour), _figure(expected), _figure(found)
                )
    cursor.execute(_UNBALANCED)
    for slug, reference, currency, amount in cursor.fetchall():
        yield Difference(slug, f"ledger sums to zero, {currency}", reference, "0", _figure(amount))
    cursor.execute(_BALANCES)
    for slug, account, grant, currency, expected, found in cursor.fetchall():
        where = f"{account} {currency}" if grant is None else f"{account} {currency} ({grant})"
        yield Difference(slug, "entries and balance", where, _figure(expected), _figure(found))
    cursor.execute(_GRANTS)
    for slug, grant, amount, given, left in cursor.fetchall():
        if given != amount:
            yield Difference(slug, "grant and its posting", f"grant {grant}", _figure(amount), _figure(given))
        if left < 0:
            yield Difference(slug, "grant overspent", f"grant {grant}", "0 or more", _figure(left))


def _of_counters(cursor: Any) -> Iterator[Difference]:
    cursor.execute(_WALLET_LIMITS)
    for slug, expected, found in cursor.fetchall():
        yield Difference(slug, "wallet limit and money received", "wallet", _figure(expected), _figure(found))
    for what, statement in (("spent and charges of events", _SPENT), ("held and leases", _HELD)):
        cursor.execute(statement)
        for slug, *counter, expected, found in cursor.fetchall():
            yield Difference(slug, what, _counter(*counter), _figure(expected), _figure(found))
    cursor.execute(_WALLETS_AND_LEDGER)
    for slug, expected, found in cursor.fetchall():
        yield Difference(slug, "wallet spent and ledger usage", "wallet", _figure(expected), _figure(found))


def _of_statements(cursor: Any) -> Iterator[Difference]:
    for slug, what, where, expected, found in proof.compare(cursor):
        yield Difference(slug, what, where, _figure(expected), _figure(found))


def _of_journal(cursor: Any, directory: Path) -> Iterator[Difference]:
    # Inside the snapshot, so only lines that were old enough when it was taken.
    for line in journal_check.compare(cursor, directory, timezone.now()):
        yield Difference(
            line.organization,
            "journal and events",
            f"request {line.request_id}",
            _figure(line.expected),
            _figure(line.found),
        )


def _counter(budget_id: int, scope: str | None, period: str | None, subject: str, start: datetime) -> str:
    if scope is None:
        return f"wallet ({budget_id})"
    name = " ".join(filter(None, (scope, subject, period)))
    return f"{name} from {start:%Y-%m-%d} ({budget_id})"


def _hour(hour: datetime | None) -> str:
    return "no hour" if hour is None else f"{hour:%Y-%m-%dT%HZ}"


def _figure(value: Decimal | int | None) -> str:
    if value is None:
        return "none"
    return plain(value) if isinstance(value, Decimal) and value % 1 else str(int(value))
