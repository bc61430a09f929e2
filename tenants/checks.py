"""What Django checks of the settings against the database: ``manage.py check --database default``, and
before ``migrate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from tenants.accounts import sign_up_open
from tenants.models import Plan


@register(Tags.database)
def sign_up_plan_exists(*, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """An error if people may make organizations on a plan that does not exist."""
    if not databases or not settings.SIGN_UP_PLAN or not sign_up_open():
        return []
    # Before the first migration there is nothing to look at.
    if Plan._meta.db_table not in connections[databases[0]].introspection.table_names():  # noqa: SLF001 - a public name of Django
        return []
    if Plan.objects.filter(name=settings.SIGN_UP_PLAN).exists():
        return []
    return [
        Error(
            f"SIGN_UP_PLAN names the plan {settings.SIGN_UP_PLAN!r}, which does not exist.",
            hint="Make it with manage.py apply, name another, or leave SIGN_UP_PLAN empty.",
            id="tenants.E001",
        )
    ]
