"""A report as a table: one row for each of its lines, without a total."""

from __future__ import annotations

from collections.abc import Iterator

from billing.exports.sheets import Row, Table
from billing.reports import Report
from billing.usage_export import CURRENCY

COUNTS = (
    "requests",
    "errors",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)


def table_of(by: str, *, provider_cost: bool) -> Table:
    """The columns of a report divided ``by``; with the provider's cost and the margin for operators."""
    amounts = ("charge", *(("cost", "margin") if provider_cost else ()))
    return Table(
        f"costs-by-{by.replace(':', '-')}",
        (by, "id", "detail", *COUNTS, *amounts, "currency"),
        {name: f"{name}_exact" for name in amounts},
    )


def report_rows(report: Report) -> Iterator[Row]:
    """The lines of ``report`` under the names of every column there may be."""
    for row in report.rows:
        sums = row.sums
        yield {
            report.by: row.label,
            "id": row.key,
            "detail": row.detail,
            **{name: getattr(sums, name) for name in COUNTS},
            "charge": sums.charge,
            "cost": sums.cost,
            "margin": sums.margin,
            "currency": CURRENCY,
        }
