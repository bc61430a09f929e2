"""Asking for exports, and removing them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import date
from typing import Literal

from django.db import transaction
from django_scopes import scope

from billing.exports.files import remove_files
from billing.exports.sheets import Format
from billing.models import Export
from tenants.models import Organization, User
from tenants.services import audit

What = Literal["usage", "focus", "report"]
# Files an organization may wait for at the same time.
MOST_WAITING = 5


class TooMany(ValueError):
    """The organization waits for enough files already."""


@transaction.atomic
def request_export(
    *,
    acting_user: User | None,
    organization: Organization,
    what: What,
    format: Format,  # noqa: A002  # the name of the field
    first: date,
    last: date,
    filters: Mapping[str, object] | None = None,
    by: str = "",
) -> Export:
    """Ask for a file about the days from ``first`` to ``last``, both included.

    ``filters`` are columns of usage rows and their values; a report is divided ``by`` a dimension. Raises
    ``TooMany``.
    """
    with scope(organization=organization):
        Organization.objects.select_for_update().get(pk=organization.pk)
        if Export.objects.filter(state__in=("waiting", "running")).count() >= MOST_WAITING:
            raise TooMany(f"{MOST_WAITING} exports are being made already. Wait for one, or cancel one.")
        export = Export.objects.create(
            reference=secrets.token_hex(16),
            organization=organization,
            requested_by=acting_user,
            what=what,
            by=by,
            format=format,
            first=first,
            last=last,
            filters=dict(filters or {}),
        )
        audit.record(
            acting_user=acting_user,
            verb="requested",
            target=export,
            organization=organization,
            detail={"what": what, "by": by, "format": format, "from": first, "to": last, **export.filters},
        )
    return export


@transaction.atomic
def remove_export(*, acting_user: User, export: Export) -> None:
    """Remove ``export`` and its file. One that is being made is no longer wanted, and its maker notices."""
    organization = export.organization
    with scope(organization=organization):
        audit.record(
            acting_user=acting_user,
            verb="removed",
            target=export,
            organization=organization,
            detail={"what": export.what, "from": export.first, "to": export.last},
        )
        Export.objects.filter(pk=export.pk).delete()
    transaction.on_commit(lambda: remove_files(export.reference))
