"""Tables as files: CSV, JSONL and XLSX, written row by row in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, Any, Literal, Protocol, get_args

import orjson
import xlsxwriter  # type: ignore[import-untyped]  # it has no types

from billing.money import plain
from billing.usage_export import csv_lines

Format = Literal["csv", "jsonl", "xlsx"]
FORMATS: tuple[Format, ...] = get_args(Format)
CONTENT_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
# Excel's own limits (its specifications and limits): rows of a sheet, characters of a cell.
SHEET_ROWS = 1_048_576
CELL_CHARACTERS = 32_767
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of an export, in order. ``exact`` names amounts: a spreadsheet's numbers have 15 digits,
    so XLSX has each a second time at the end, as text with all digits, under the name given here."""

    name: str
    columns: Sequence[str]
    exact: Mapping[str, str] = field(default_factory=dict)


class Sheet(Protocol):
    """A file that rows are added to."""

    def add(self, rows: Iterable[Row]) -> None:
        """Write ``rows``, which have every column of the table."""


class _Csv:
    def __init__(self, file: IO[bytes], table: Table) -> None:
        self.file, self.columns = file, table.columns
        file.write(csv_lines([table.columns]))

    def add(self, rows: Iterable[Row]) -> None:
        self.file.write(csv_lines([row[name] for name in self.columns] for row in rows))


class _Jsonl:
    def __init__(self, file: IO[bytes], table: Table) -> None:
        self.file, self.columns = file, table.columns

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            line = {name: row[name] for name in self.columns}
            self.file.write(orjson.dumps(line, default=_plain, option=orjson.OPT_APPEND_NEWLINE))


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    raise TypeError(f"{type(value).__name__} has no place in an export.")


class _Xlsx:
    """Text is written as text, so nothing is a formula whatever it begins with."""

    def __init__(self, book: xlsxwriter.Workbook, table: Table) -> None:
        self.book, self.table = book, table
        self.bold = book.add_format({"bold": True})
        self.sheet = self._sheet()

    def _sheet(self) -> Any:
        sheet = self.book.add_worksheet()
        sheet.freeze_panes(1, 0)
        for column, name in enumerate((*self.table.columns, *self.table.exact.values())):
            sheet.write_string(0, column, name, self.bold)
        self.row = 1
        return sheet

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if self.row == SHEET_ROWS:
                self.sheet = self._sheet()
            for column, name in enumerate(self.table.columns):
                self._write(column, row[name], number=name in self.table.exact)
            for column, name in enumerate(self.table.exact, start=len(self.table.columns)):
                self._write(column, row[name], number=False)
            self.row += 1

    def _write(self, column: int, value: object, *, number: bool) -> None:
        if value is None or value == "":
            return
        if isinstance(value, bool):
            self.sheet.write_boolean(self.row, column, value)
        elif isinstance(value, int):
            self.sheet.write_number(self.row, column, value)
        elif number:
            self.sheet.write_number(self.row, column, Decimal(str(value)))
        else:
            text = plain(value) if isinstance(value, Decimal) else value
            if isinstance(text, (list, dict)):
                text = orjson.dumps(text).decode()
            self.sheet.write_string(self.row, column, str(text)[:CELL_CHARACTERS])


@contextmanager
def sheet(file: IO[bytes], table: Table, format_: Format) -> Iterator[Sheet]:
    """The begun export of ``table`` in ``file``; the file is whole when the block ends."""
    if format_ == "xlsx":
        # Each row goes to a temporary file once the next begins.
        options: dict[str, Any] = {"constant_memory": True}
        book = xlsxwriter.Workbook(file, options)
        yield _Xlsx(book, table)
        book.close()
    elif format_ == "csv":
        yield _Csv(file, table)
    else:
        yield _Jsonl(file, table)
