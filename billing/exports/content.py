"""What an export holds, piece by piece, each with what it adds to the export's totals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import reduce

from django.db.models import Q

from billing.access import local_range, names_of, usage_page
from billing.exports import focus, report, usage
from billing.exports.sheets import Row, Table
from billing.models import Export
from billing.money import EXACT
from billing.tag_reports import report_of
from billing.usage_export import usage_row
from tenants.models import Organization

# Requests read and written at a time; two pieces are in memory while one makes way for the next.
PIECE = 500


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows, the requests they are about and the sum of those, in US dollars."""

    rows: list[Row]
    requests: int
    charge: Decimal


def condition_of(export: Export) -> Q:
    """The usage ``export`` is about, beside its time."""
    return Q(**export.filters)


def time_of(export: Export) -> tuple[datetime, datetime]:
    """The time ``export`` is about, in UTC, its end excluded."""
    return local_range(export.organization, export.first, export.last)


def table_of(export: Export) -> Table:
    """Its columns. A tenant's file never has what providers ask."""
    if export.what == "usage":
        return usage.TABLE
    if export.what == "focus":
        return focus.TABLE
    return report.table_of(export.by, provider_cost=False)


def pieces_of(export: Export) -> Iterator[Piece]:
    """All of it, in order, in constant memory."""
    organization, (start, end), where = export.organization, time_of(export), condition_of(export)
    if export.what == "usage":
        yield from _usage(organization, start, end, where)
    elif export.what == "focus":
        for part in focus.focus_parts(organization, start, end, where=where):
            yield Piece(part.rows, part.requests, part.charge)
    else:
        made = report_of(organization, export.by, start, end, where)
        yield Piece(list(report.report_rows(made)), made.totals.requests, made.totals.charge)


def _usage(organization: Organization, start: datetime, end: datetime, where: Q) -> Iterator[Piece]:
    names = names_of(organization)
    after: tuple[datetime, str] | None = None
    while True:
        # A query of its own for each piece, so that no transaction stays open for the length of a file.
        events = usage_page(
            organization, start=start, end=end, where=where, after=after, size=PIECE, newest_first=False
        )
        if events:
            yield Piece(
                [usage_row(event, organization, names, provider_cost=False) for event in events],
                len(events),
                reduce(EXACT.add, (event.charge for event in events)),
            )
            after = (events[-1].started_at, events[-1].request_id)
        if len(events) < PIECE:
            return
