"""Tables as CSV, JSONL and XLSX: exact, complete, and nothing a spreadsheet computes."""

from __future__ import annotations

import io
import json
import zipfile
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from billing.exports import sheets
from billing.exports.sheets import Format, Row, Table, sheet

TABLE = Table("costs", ("name", "requests", "charge", "tags"), {"charge": "charge_exact"})
NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def written(rows: list[Row], format_: Format) -> bytes:
    file = io.BytesIO()
    with sheet(file, TABLE, format_) as begun:
        for row in rows:
            begun.add([row])
    return file.getvalue()


def row(**changes: object) -> Row:
    return {
        "name": "backend",
        "requests": 3,
        "charge": Decimal("0.500000000001"),
        "tags": {"a": "b"},
    } | changes


def cells(content: bytes, number: int = 1) -> list[list[tuple[str, str]]]:
    """Of each row of a worksheet the kind (``n`` a number, otherwise text) and value of its cells."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{number}.xml"))  # our own file
    assert root.find(f".//{NAMESPACE}f") is None, "a formula"
    return [
        [(cell.get("t", "n"), "".join(cell.itertext())) for cell in line.iter(f"{NAMESPACE}c")]
        for line in root.iter(f"{NAMESPACE}row")
    ]


def test_csv() -> None:
    assert written([row(name="=1+1", charge=Decimal("-1.5"))], "csv") == (
        b'name,requests,charge,tags\r\n\'=1+1,3,-1.50,"{""a"":""b""}"\r\n'
    )


def test_jsonl_has_amounts_as_exact_text() -> None:
    (line,) = written([row(charge=Decimal("1E-12"))], "jsonl").splitlines()
    assert json.loads(line) == {
        "name": "backend",
        "requests": 3,
        "charge": "0.000000000001",
        "tags": {"a": "b"},
    }


def test_xlsx_has_amounts_as_numbers_and_as_exact_text() -> None:
    content = written([row(charge=Decimal("123456789012.000000000001"))], "xlsx")
    assert cells(content) == [
        [("inlineStr", name) for name in ("name", "requests", "charge", "tags", "charge_exact")],
        [
            ("inlineStr", "backend"),
            ("n", "3"),
            ("n", "123456789012.0000"),
            ("inlineStr", '{"a":"b"}'),
            ("inlineStr", "123456789012.000000000001"),
        ],
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "{="])
def test_in_xlsx_text_stays_text_as_it_was(start: str) -> None:
    name = f'{start}HYPERLINK("http://x.example")'
    assert cells(written([row(name=name)], "xlsx"))[1][0] == ("inlineStr", name)


def test_xlsx_goes_on_in_another_worksheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "SHEET_ROWS", 3)
    content = written([row(requests=number) for number in range(5)], "xlsx")
    assert [[line[1][1] for line in cells(content, number)] for number in (1, 2, 3)] == [
        ["requests", "0", "1"],
        ["requests", "2", "3"],
        ["requests", "4"],
    ]
