"""What templates know about the tenant."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


def organization(request: HttpRequest) -> dict[str, Any]:
    """``organization``, ``membership``, ``may`` (a set of permission names) and ``visit``, in a tenant."""
    access = getattr(request, "tenant", None)
    if access is None:
        return {}
    return {
        "organization": access.organization,
        "membership": access.membership,
        "may": {permission.name.lower() for permission in access.permissions},
        "visit": access.visit,
    }
