"""What the books say of the time an export is about, and why the export may say otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from django.db import connection
from django_scopes import scope

from billing.exports.content import condition_of, time_of
from billing.models import Export
from billing.reports import pending_hours, totals_for
from billing.sums import hour_floor

_POSTED = """
SELECT coalesce(-sum(e.amount), 0)
FROM billing_ledgertransaction t JOIN billing_ledgerentry e ON e.transaction_id = t.id
WHERE t.organization_id = %(organization)s AND t.kind = 'usage' AND e.account = 'revenue'
    AND t.usage_hour >= %(start)s AND t.usage_hour < %(end)s
"""
_UNPOSTED = """
SELECT EXISTS (
    SELECT FROM billing_unpostedhour WHERE organization_id = %(organization)s
        AND hour >= %(start)s AND hour < %(end)s
)
"""
LEDGER, REPORT = "ledger", "report"


@dataclass(frozen=True, slots=True)
class Control:
    """The figure to compare with, in US dollars, whose it is, and why it may differ."""

    amount: Decimal
    of: str
    note: str


def control_of(export: Export, charge: Decimal) -> Control:
    """The books' figure for a file that adds up to ``charge``.

    The ledger knows the organization and the hour. What is filtered, or begins within an hour, is compared
    with the report instead, which the ledger is posted from.
    """
    organization, (start, end) = export.organization, time_of(export)
    whole = hour_floor(start) == start and hour_floor(end) == end
    if export.filters or not whole:
        amount, of = totals_for(organization, start, end, condition_of(export)).charge, REPORT
    else:
        amount, of = _posted(export, start, end), LEDGER
    return Control(amount, of, "" if amount == charge else _why(export, start, end))


def _posted(export: Export, start: datetime, end: datetime) -> Decimal:
    with connection.cursor() as cursor:
        cursor.execute(_POSTED, {"organization": export.organization_id, "start": start, "end": end})
        amount: Decimal = cursor.fetchone()[0]
        return amount


def _why(export: Export, start: datetime, end: datetime) -> str:
    if end > datetime.now(tz=UTC):
        return "The time was not over yet: requests arrived while the file was made."
    with connection.cursor() as cursor, scope(organization=export.organization):
        cursor.execute(_UNPOSTED, {"organization": export.organization_id, "start": start, "end": end})
        unposted = cursor.fetchone()[0]
    if unposted or pending_hours(export.organization, start, end):
        return "Some hours were still being added up. Export them again in a minute."
    return (
        "The books differ. The operators of the platform were told by the nightly reconciliation, or will be."
    )
