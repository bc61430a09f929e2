"""The audit log: who changed what."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import Enum
from typing import Any

from django.db import models, transaction

from tenants.models import AuditEntry, Organization, User


class NoTransaction(RuntimeError):
    """An audit entry was to be written outside the transaction of its change."""


def _readable(value: Any) -> Any:
    """``value`` as JSON holds it: decimals and times as strings, rows by their name."""
    match value:
        case None | bool() | int() | str():
            return value
        case Decimal():
            return f"{value:f}"
        case dt.datetime() | dt.date():
            return value.isoformat()
        case Enum():
            return value.value
        case models.Model():
            return str(value)
        case dict():
            return {str(key): _readable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_readable(item) for item in value]
        case _:
            return str(value)


def record(
    *,
    acting_user: User | None,
    verb: str,
    target: models.Model,
    organization: Organization | None = None,
    detail: dict[str, Any] | None = None,
) -> AuditEntry:
    """Write down that ``acting_user`` (None: the command line) did ``verb`` to ``target``.

    ``organization`` is None for what belongs to the platform. ``detail`` must hold no secret. Raises
    ``NoTransaction`` outside a transaction.
    """
    if not transaction.get_connection().in_atomic_block:
        raise NoTransaction("An audit entry belongs in the transaction of its change.")
    return AuditEntry.objects.create(
        organization=organization,
        actor=acting_user,
        verb=verb,
        target_type=target._meta.model_name or "",  # noqa: SLF001 - a public name of Django
        target_id=str(target.pk),
        target_label=str(target)[:200],
        detail=_readable(detail or {}),
    )
