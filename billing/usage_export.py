"""The usage row as it leaves Weir: one line a request, in CSV, JSONL and the API alike."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, get_args

import orjson
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import Q
from django_scopes import scope

from billing.access import Names, names_of, usage_page
from billing.models import UsageEvent
from billing.money import plain
from tenants.models import Organization

COLUMNS = (
    "request_id",
    "started_at",
    "ended_at",
    "organization",
    "team",
    "key",
    "member",
    "end_user",
    "model_group",
    "deployment",
    "provider",
    "provider_model",
    "endpoint",
    "streamed",
    "status",
    "end_reason",
    "attempts",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "usage_source",
    "cost",
    "charge",
    "currency",
    "first_token_ms",
    "duration_ms",
    "quantities",
    "tags",
)
CURRENCY = "USD"
Format = Literal["csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
CONTENT_TYPES: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
# Rows read and encoded at a time; what an export keeps in memory.
CHUNK = 2000
# A spreadsheet takes a cell that begins so for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def moment(at: datetime) -> str:
    """A time in UTC with microseconds: ``2026-03-01T12:00:00.000000Z``."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def usage_row(
    event: UsageEvent, organization: Organization, names: Names, *, provider_cost: bool
) -> dict[str, Any]:
    """``event`` under the names of ``COLUMNS`` and in their order; amounts are decimal strings in US dollars.

    ``cost`` is None unless ``provider_cost``: what providers ask is the operator's business.
    """
    return {
        "request_id": event.request_id,
        "started_at": moment(event.started_at),
        "ended_at": moment(event.ended_at),
        "organization": organization.slug,
        "team": names.team(event.team_id),
        "key": names.key(event.key_id),
        "member": names.member(event.member_id),
        "end_user": event.end_user,
        "model_group": event.model_group,
        "deployment": event.deployment,
        "provider": event.provider,
        "provider_model": event.provider_model,
        "endpoint": event.endpoint,
        "streamed": event.streamed,
        "status": event.status,
        "end_reason": event.end_reason,
        "attempts": event.attempts,
        "input_tokens": event.input_tokens,
        "cached_input_tokens": event.cached_input_tokens,
        "cache_write_tokens": event.cache_write_tokens,
        "output_tokens": event.output_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "usage_source": event.usage_source,
        "cost": plain(event.cost) if provider_cost else None,
        "charge": plain(event.charge),
        "currency": CURRENCY,
        "first_token_ms": event.first_token_ms,
        "duration_ms": event.duration_ms,
        "quantities": event.quantities,
        "tags": event.tags,
    }


def defused(text: str) -> str:
    """``text`` with an apostrophe before it where a spreadsheet would compute it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _cell(value: object) -> str:
    """``value`` as a cell: nothing for None, true or false, compact JSON for lists and objects, every
    digit of a Decimal (whose minus sign makes no formula)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, (list, dict)):
        return orjson.dumps(value).decode()
    return defused(str(value))


def csv_lines(lines: Iterable[Iterable[object]]) -> bytes:
    """``lines`` as CSV by RFC 4180: UTF-8, CRLF, quoted where needed, formulas defused."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue().encode()


def header(format_: Format) -> bytes:
    """What comes before the first row."""
    return csv_lines([COLUMNS]) if format_ == "csv" else b""


def encoded(rows: Iterable[dict[str, Any]], format_: Format) -> bytes:
    """``rows`` in ``format_``, each with its line end."""
    if format_ == "csv":
        return csv_lines(row.values() for row in rows)
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def usage_rows(
    organization: Organization,
    start: datetime,
    end: datetime,
    *,
    where: Q | None = None,
    provider_cost: bool,
) -> Iterator[dict[str, Any]]:
    """Every request begun in ``[start, end)``, oldest first, through a server-side cursor.

    The rows are of one moment, and memory does not grow with their number.
    """
    names = names_of(organization)
    # Left before the first row, as what a generator enters its caller is in, too.
    with scope(organization=organization):
        events = UsageEvent.objects.filter(
            where or Q(), organization=organization, started_at__gte=start, started_at__lt=end
        ).order_by("started_at", "request_id")
    # Inside a transaction the cursor need not be kept beyond it, which would copy the whole result.
    with transaction.atomic():
        for event in events.iterator(chunk_size=CHUNK):
            yield usage_row(event, organization, names, provider_cost=provider_cost)


def export(
    organization: Organization,
    start: datetime,
    end: datetime,
    format_: Format,
    *,
    where: Q | None = None,
    provider_cost: bool,
) -> Iterator[bytes]:
    """The whole export in pieces of ``CHUNK`` rows, the header first."""
    yield header(format_)
    piece: list[dict[str, Any]] = []
    for row in usage_rows(organization, start, end, where=where, provider_cost=provider_cost):
        piece.append(row)
        if len(piece) == CHUNK:
            yield encoded(piece, format_)
            piece.clear()
    if piece:
        yield encoded(piece, format_)


async def streamed_export(
    organization: Organization,
    start: datetime,
    end: datetime,
    format_: Format,
    *,
    where: Q | None = None,
    provider_cost: bool,
) -> AsyncIterator[bytes]:
    """The same export for a response under ASGI, which would gather a plain iterator before sending it.

    Each piece is a query of its own that begins behind the last row sent, so a slow reader keeps
    no transaction open. Every query enters the organization's scope itself.
    """
    yield header(format_)
    names = await sync_to_async(names_of)(organization)
    after: tuple[datetime, str] | None = None
    while True:
        events = await sync_to_async(usage_page)(
            organization, start=start, end=end, where=where, after=after, size=CHUNK, newest_first=False
        )
        if events:
            rows = (usage_row(event, organization, names, provider_cost=provider_cost) for event in events)
            yield encoded(rows, format_)
            after = (events[-1].started_at, events[-1].request_id)
        if len(events) < CHUNK:
            return
