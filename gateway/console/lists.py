"""What the console's lists share: the words searched for, and every line of a list as CSV."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from billing.exports.sheets import CONTENT_TYPES, Row, Table, sheet
from gateway.console.files import sent

# What of a file stays in memory while it is made; the rest is in a temporary file.
IN_MEMORY = 1 << 20
# Lines that are encoded at a time.
CHUNK = 2000
LONGEST_WORDS = 200


def words(request: HttpRequest, name: str = "q") -> str:
    """What the address has under ``name``, in a form that the database takes."""
    return request.GET.get(name, "").replace("\x00", "").strip()[:LONGEST_WORDS]


def place(request: HttpRequest, name: str) -> int | None:
    """The number of a row under ``name`` in the address, behind which a page begins; None for the first."""
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def list_file(name: str, columns: Sequence[str], rows: Iterable[Row]) -> HttpResponse:
    """``rows`` as ``<name>-<today>.csv``, made whole before it is sent, in constant memory."""
    # The response closes it.
    file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
    every = iter(rows)
    with sheet(file, Table(name, columns), "csv") as begun:
        while chunk := list(islice(every, CHUNK)):
            begun.add(chunk)
    size = file.tell()
    file.seek(0)
    return sent(file, size, name=f"{name}-{timezone.localdate()}.csv", content_type=CONTENT_TYPES["csv"])
