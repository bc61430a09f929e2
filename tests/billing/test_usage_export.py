"""The usage row as exported: the columns of the design, exact, safe in a spreadsheet, complete."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.db import connection
from django_scopes import get_scope

from billing import usage_export
from billing.usage_export import COLUMNS, defused, export, usage_rows
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db

MARCH = (utc("2026-03-01"), utc("2026-04-01"))


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def exported(tenant: Tenant, format_: Any, *, provider_cost: bool = True) -> bytes:
    return b"".join(export(tenant.organization, *MARCH, format_, provider_cost=provider_cost))


def cells(tenant: Tenant, **options: Any) -> list[dict[str, str]]:
    text = exported(tenant, "csv", **options).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def command(tenant: Tenant, *arguments: str) -> str:
    out = io.StringIO(newline="")
    call_command("export_usage", "--org", tenant.organization.slug, *arguments, stdout=out)
    return out.getvalue()


def test_the_columns_are_those_of_the_design() -> None:
    assert ", ".join(COLUMNS) == (
        "request_id, started_at, ended_at, organization, team, key, member, end_user, model_group, "
        "deployment, provider, provider_model, endpoint, streamed, status, end_reason, attempts, "
        "input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, "
        "usage_source, cost, charge, currency, first_token_ms, duration_ms, quantities, tags"
    )


def test_a_row_of_csv_byte_by_byte(acme: Tenant) -> None:
    event(
        acme.backend, "2026-03-01T10:00:00.000005", "req-1", "0.000000000004", streamed=True, end_user="u1",
        attempts=[{"deployment": "gpt-small", "status": 200}], input_tokens=12, cached_input_tokens=3,
        cache_write_tokens=2, output_tokens=5, reasoning_tokens=4, first_token_ms=80,
        quantities={"audio_input": "7", "seconds": "1.5"}, tags={"env": "prod"},
    )  # fmt: skip
    assert (
        exported(acme, "csv")
        == (
            ",".join(COLUMNS) + "\r\n"
            "req-1,2026-03-01T10:00:00.000005Z,2026-03-01T10:00:01.500005Z,acme,search,backend,"
            "ann@acme.example,u1,fast,gpt-small,openai,gpt-5.4-mini,chat.completions,true,200,completed,"
            '"[{""status"":200,""deployment"":""gpt-small""}]",12,3,2,5,4,reported,'
            '0.000000000002,0.000000000004,USD,80,1500,"{""seconds"":""1.5"",""audio_input"":""7""}","{""env"":""prod""}"\r\n'
        ).encode()
    )


def test_a_row_of_jsonl(acme: Tenant) -> None:
    event(acme.batch, "2026-03-01T10:00", "req-1", "12.5", tags={"env": "prüf"})
    lines = exported(acme, "jsonl").decode().splitlines()
    assert len(lines) == 1
    row = json.loads(lines[0])
    assert tuple(row) == COLUMNS
    assert (row["cost"], row["charge"], row["currency"]) == ("6.25", "12.50", "USD")
    assert (row["member"], row["first_token_ms"], row["attempts"]) == ("", None, [])
    assert (row["streamed"], row["tags"]) == (False, {"env": "prüf"})


@pytest.mark.parametrize(
    ("charge", "text"),
    [
        ("0", "0.00"),
        ("0.000000000001", "0.000000000001"),
        ("100", "100.00"),
        ("123456789012.5", "123456789012.50"),
    ],
)
def test_an_amount_is_exact_and_has_no_exponent(acme: Tenant, charge: str, text: str) -> None:
    event(acme.backend, "2026-03-01T10:00", "req-1", charge, cost=Decimal(0))
    row = cells(acme)[0]
    assert (row["charge"], row["cost"]) == (text, "0.00")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_cell_that_a_spreadsheet_would_compute_is_defused(acme: Tenant, start: str) -> None:
    event(acme.backend, "2026-03-01T10:00", "req-1", end_user=f'{start}HYPERLINK("x")')
    assert cells(acme)[0]["end_user"] == f'\'{start}HYPERLINK("x")'


def test_other_text_is_left_alone() -> None:
    assert [defused(text) for text in ("", "ann", "a=b", "5", "'x")] == ["", "ann", "a=b", "5", "'x"]


def test_commas_quotes_and_line_ends_survive_a_reader(acme: Tenant) -> None:
    odd = 'a,"b"\r\nc\nd — ü'
    event(acme.backend, "2026-03-01T10:00", "req-1", end_user=odd)
    assert cells(acme)[0]["end_user"] == odd


def test_without_the_providers_cost_the_column_is_empty(acme: Tenant) -> None:
    event(acme.backend, "2026-03-01T10:00", "req-1", "4")
    row = cells(acme, provider_cost=False)[0]
    assert (row["cost"], row["charge"]) == ("", "4.00")
    assert json.loads(exported(acme, "jsonl", provider_cost=False))["cost"] is None


def test_rows_come_oldest_first_and_only_of_the_time_asked(acme: Tenant) -> None:
    for at, name in (("2026-03-31T23:59:59.999999", "last"), ("2026-03-01", "first"), ("2026-04-01", "late"),
                     ("2026-02-28T23:59:59.999999", "early"), ("2026-03-15", "mid-b"), ("2026-03-15", "mid-a")):  # fmt: skip
        event(acme.backend, at, name)
    assert [row["request_id"] for row in cells(acme)] == ["first", "mid-a", "mid-b", "last"]


def test_another_tenants_requests_are_never_in(acme: Tenant) -> None:
    event(make_tenant("globex").backend, "2026-03-01T10:00", "theirs")
    assert cells(acme) == []


def test_the_command_reads_through_a_server_side_cursor_and_leaves_no_scope(acme: Tenant) -> None:
    event(acme.backend, "2026-03-01T10:00", "req-1")
    rows = usage_rows(acme.organization, *MARCH, provider_cost=True)
    next(rows)
    assert "organization" not in get_scope()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors WHERE name LIKE '_django%' AND NOT is_holdable")
        assert cursor.fetchone() == (1,)


def test_the_streamed_export_equals_the_whole_one_across_pieces(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five rows in pieces of two; two of them begin in the same microsecond.
    monkeypatch.setattr(usage_export, "CHUNK", 2)
    for number, day in enumerate((1, 2, 2, 3, 4)):
        event(acme.backend, f"2026-03-0{day}T10:00", f"req-{number}", "1")

    async def gathered() -> list[bytes]:
        pieces = usage_export.streamed_export(acme.organization, *MARCH, "csv", provider_cost=True)
        return [piece async for piece in pieces]

    # sync_to_async runs what it is given on this thread, to which the test's transaction belongs.
    pieces = async_to_sync(gathered)()
    assert len(pieces) == 4
    assert b"".join(pieces) == exported(acme, "csv")


def test_the_commands_days_are_local_and_the_last_is_included(acme: Tenant) -> None:
    # 1 March in Berlin: 28 February 23:00 UTC to 1 March 23:00 UTC.
    event(acme.backend, "2026-02-28T22:59:59", "before")
    event(acme.backend, "2026-02-28T23:00", "first")
    event(acme.backend, "2026-03-01T22:59:59", "last")
    event(acme.backend, "2026-03-01T23:00", "after")
    text = command(acme, "--from", "2026-03-01", "--to", "2026-03-01", "--format", "jsonl")
    assert [json.loads(line)["request_id"] for line in text.splitlines()] == ["first", "last"]


def test_the_command_writes_a_file_with_both_amounts(acme: Tenant, tmp_path: Path) -> None:
    event(acme.backend, "2026-03-01T10:00", "req-1", "4")
    path = tmp_path / "usage.csv"
    command(acme, "--from", "2026-03-01", "--to", "2026-03-31", "--output", str(path))
    row = next(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert (row["cost"], row["charge"]) == ("2.00", "4.00")
    assert [each.name for each in tmp_path.iterdir()] == ["usage.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--org", "acme", "--from", "March", "--to", "2026-03-01"), "--from: 'March' is no date"),
        (("--org", "acme", "--from", "2026-03-02", "--to", "2026-03-01"), "--to: the last day is before"),
        (("--org", "nobody", "--from", "2026-03-02", "--to", "2026-03-03"), "no organization 'nobody'"),
        (
            ("--org", "acme", "--from", "2026-03-02", "--to", "2026-03-03", "--output", "/no/such/place"),
            "--output: ",
        ),
    ],
)
def test_a_wrong_option_is_named(acme: Tenant, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("export_usage", *arguments)
