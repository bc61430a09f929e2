"""Where the files of exports lie."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from billing.exports.sheets import FORMATS


def file_of(reference: str, format_: str) -> Path:
    """The finished file."""
    found: Path = settings.EXPORT_DIR / f"{reference}.{format_}"
    return found


def draft_of(reference: str) -> Path:
    """The file while it is made."""
    return file_of(reference, "part")


def sidecar_of(reference: str) -> Path:
    """Its checksum, as ``sha256sum --check`` reads it."""
    return file_of(reference, "sha256")


def remove_files(reference: str) -> None:
    """Remove all that was made for ``reference``."""
    for ending in (*FORMATS, "part", "sha256"):
        file_of(reference, ending).unlink(missing_ok=True)
