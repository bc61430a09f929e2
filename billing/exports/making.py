"""Making the files that were asked for, one after the other, by whichever worker is free.

The worker holds a lock of its database session for as long as it works: if it dies, PostgreSQL lets go of
the lock, and the next one begins the file again. A file appears under its name when it is whole.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import cast

from django.conf import settings
from django.db import DatabaseError, connection
from django_scopes import scopes_disabled

from billing.exports.content import condition_of, pieces_of, table_of, time_of
from billing.exports.control import control_of
from billing.exports.files import draft_of, file_of, remove_files, sidecar_of
from billing.exports.sheets import Format, sheet
from billing.models import Export
from billing.money import EXACT
from billing.reports import totals_for

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
# Seconds between two looks at whether the file is still wanted.
TICK = 1.0
READ = 1 << 20
_TRY = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_RELEASE = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"


class NotWanted(Exception):
    """The export was removed while it was made."""


@contextmanager
def _held(name: str) -> Iterator[bool]:
    """A lock of this database session; False where another session has it."""
    with connection.cursor() as cursor:
        cursor.execute(_TRY, [name])
        held: bool = cursor.fetchone()[0]
    try:
        yield held
    finally:
        if held:
            with connection.cursor() as cursor:
                cursor.execute(_RELEASE, [name])


def make_due() -> int:
    """Make what is asked for until nothing is left or enough others are at it; returns how many files."""
    for place in range(settings.EXPORTS_AT_ONCE):
        with _held(f"billing.exports:{place}") as held:
            if held:
                return _make_all()
    return 0


def _make_all() -> int:
    made = 0
    tried: set[int] = set()
    while True:
        with scopes_disabled():
            due = Export.objects.filter(state__in=("waiting", "running")).exclude(pk__in=tried)
            export = due.select_related("organization").order_by("attempts", "pk").first()
        if export is None:
            return made
        tried.add(export.pk)
        with _held(f"billing.export:{export.pk}") as held:
            if held:
                made += _make(export)


def _update(export: Export, **changes: object) -> None:
    """Write ``changes`` down. Raises NotWanted if the export is gone."""
    with scopes_disabled():
        found = Export.objects.filter(pk=export.pk, state__in=("waiting", "running")).update(**changes)
    if not found:
        raise NotWanted


def _make(export: Export) -> bool:
    """One attempt at ``export``, whose lock is held; whether the file is there."""
    try:
        if export.attempts >= MOST_ATTEMPTS:
            _update(export, state="failed", finished_at=_now(), problem="It failed several times.")
            logger.error("Export %s was given up.", export.pk)
            return False
        expected = totals_for(export.organization, *time_of(export), condition_of(export)).requests
        _update(export, state="running", attempts=export.attempts + 1, expected=expected, requests=0, rows=0)
        _write(export)
    except NotWanted:
        remove_files(export.reference)
        return False
    except (DatabaseError, OSError) as error:
        logger.exception("Export %s failed.", export.pk, exc_info=error)
        with suppress(OSError):
            draft_of(export.reference).unlink()
        return False
    return True


def _write(export: Export) -> None:
    settings.EXPORT_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft, charge, requests, rows = draft_of(export.reference), Decimal(0), 0, 0
    looked = time.monotonic()
    with draft.open("wb") as file, sheet(file, table_of(export), cast(Format, export.format)) as begun:
        for piece in pieces_of(export):
            begun.add(piece.rows)
            rows += len(piece.rows)
            requests += piece.requests
            charge = EXACT.add(charge, piece.charge)
            if time.monotonic() - looked >= TICK:
                _update(export, requests=requests, rows=rows)
                looked = time.monotonic()
    digest, size = _digest(draft)
    control = control_of(export, charge)
    file_path = file_of(export.reference, export.format)
    draft.replace(file_path)
    sidecar_of(export.reference).write_text(f"{digest}  {name_of(export)}\n")
    _update(
        export,
        state="done",
        problem="",
        finished_at=_now(),
        expires_at=_now() + timedelta(hours=settings.EXPORT_KEPT_HOURS),
        requests=requests,
        rows=rows,
        size=size,
        sha256=digest,
        charge=charge,
        control=control.amount,
        control_of=control.of,
        note=control.note,
    )


def name_of(export: Export) -> str:
    """What the file is called where it is fetched."""
    return f"{table_of(export).name}-{export.organization.slug}-{export.first}-{export.last}.{export.format}"


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 in hex and size in bytes."""
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while read := file.read(READ):
            found.update(read)
            size += len(read)
    return found.hexdigest(), size


def _now() -> datetime:
    return datetime.now(tz=UTC)


def remove_expired() -> int:
    """Remove what can no longer be fetched, and files that nothing belongs to; returns how many exports."""
    now = _now()
    with scopes_disabled():
        # What failed is told about for as long as a file would be there.
        old = list(Export.objects.filter(expires_at__lte=now).values_list("pk", "reference")) + list(
            Export.objects.filter(
                state="failed", finished_at__lte=now - timedelta(hours=settings.EXPORT_KEPT_HOURS)
            ).values_list("pk", "reference")
        )
        for _, reference in old:
            remove_files(reference)
        Export.objects.filter(pk__in=[pk for pk, _ in old]).delete()
        if settings.EXPORT_DIR.exists():
            known = set(Export.objects.values_list("reference", flat=True))
            for path in settings.EXPORT_DIR.iterdir():
                left = now.timestamp() - path.stat().st_mtime > timedelta(days=1).total_seconds()
                if left and path.name.partition(".")[0] not in known:
                    path.unlink(missing_ok=True)
    return len(old)
