"""Compares the journal on this host's disk with the usage events in the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

from billing import journal

# A line is shipped within a second; one that is older than this was forgotten.
PATIENCE = timedelta(minutes=5)
BATCH = 5_000
_FIND = """
SELECT line.organization_id, o.slug, line.request_id, line.charge, e.charge
FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::numeric[], %s::text[])
    AS line(organization_id, request_id, started_at, charge, record)
LEFT JOIN billing_usageevent e ON e.request_id = line.request_id AND e.started_at = line.started_at
LEFT JOIN tenants_organization o ON o.id = line.organization_id
WHERE e.charge IS DISTINCT FROM line.charge AND NOT EXISTS (
    SELECT FROM billing_deadletter d WHERE md5(d.record) = md5(line.record) AND d.record = line.record
)
"""


@dataclass(frozen=True, slots=True)
class Unshipped:
    """An end in the journal whose event is missing (``found`` None) or has another charge, in US dollars."""

    organization: str
    request_id: str
    expected: Decimal
    found: Decimal | None


@dataclass(frozen=True, slots=True)
class _End:
    organization_id: int
    request_id: str
    started_at: datetime
    charge: Decimal
    text: str


def compare(cursor: Any, directory: Path, now: datetime) -> Iterator[Unshipped]:
    """Ends that were written more than ``PATIENCE`` before ``now`` and are not in the books as they were
    written. Lines that cannot be read, or were put aside as dead letters, are the shipper's to report."""
    ends = _ends(directory, now - PATIENCE)
    while lines := list(islice(ends, BATCH)):
        cursor.execute(
            _FIND,
            [
                [line.organization_id for line in lines],
                [line.request_id for line in lines],
                [line.started_at for line in lines],
                [line.charge for line in lines],
                [line.text for line in lines],
            ],
        )
        for organization_id, slug, request_id, expected, found in cursor.fetchall():
            yield Unshipped(slug or f"organization {organization_id}", request_id, expected, found)


def _ends(directory: Path, before: datetime) -> Iterator[_End]:
    for path in sorted(directory.glob("*.journal")):
        try:
            for line in journal.JournalReader(path).lines():
                end = _end(line)
                if end is not None and end[0] < before:
                    yield end[1]
        except FileNotFoundError:
            # Shipped meanwhile.
            continue


def _end(line: journal.Line) -> tuple[datetime, _End] | None:
    """When the request of an end record ended, and what it says; None for any other line."""
    record = line.record or {}
    if record.get("t") != "end":
        return None
    try:
        return datetime.fromisoformat(record["ended_at"]), _End(
            record["organization_id"],
            record["request_id"],
            datetime.fromisoformat(record["started_at"]),
            Decimal(record["charge"]),
            line.raw.decode(errors="replace").replace("\0", "\ufffd"),
        )
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return None
