"""A statement as CSV: every line with all digits, between the opening and the closing balance."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from billing.models import Statement, StatementLine
from billing.usage_export import csv_lines, moment

COLUMNS = (
    "statement",
    "line",
    "kind",
    "month",
    "corrects",
    "team",
    "model_group",
    "description",
    "posted_at",
    "requests",
    "tokens",
    "amount",
    "currency",
    "shown_amount",
    "shown_currency",
    "rate",
)


def csv_of(statement: Statement, lines: Iterable[StatementLine]) -> bytes:
    """The file. ``amount`` is what a line did to the balance, in the statement's currency; that of the
    first row and of the lines add up to that of the last. ``shown_amount`` is the same in the currency of
    the invoice, each converted once from the exact ``amount``, at ``rate`` for one US dollar."""
    month = f"{statement.month:%Y-%m}"

    def figures(amount: Decimal) -> list[object]:
        shown = [statement.shown(amount), statement.shown_currency]
        rate = None if statement.rate is None else f"{statement.rate.normalize():f}"
        return [amount, statement.currency, *shown, rate]

    def balance(kind: str, amount: Decimal) -> list[object]:
        return [statement.number, None, kind, month, *[None] * 7, *figures(amount)]

    rows: list[list[object]] = [list(COLUMNS), balance("opening", statement.opening)]
    for line in lines:
        usage = line.kind == "usage"
        rows.append(
            [
                statement.number,
                line.position,
                line.kind,
                month if line.corrects is None else f"{line.corrects.month:%Y-%m}",
                line.corrects.number if line.corrects else None,
                line.team,
                line.model_group,
                line.description,
                None if line.posted_at is None else moment(line.posted_at),
                line.requests if usage else None,
                line.tokens if usage else None,
                *figures(line.amount),
            ]
        )
    rows.append(balance("closing", statement.closing))
    return csv_lines(rows)
