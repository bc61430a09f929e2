"""Reading what is stored of requests, which is an act of its own."""

from __future__ import annotations

from django.db import transaction

from billing.models import RequestContent
from billing.request_content import Content
from tenants.models import Organization, User
from tenants.services import audit


def show_content(*, acting_user: User, organization: Organization, stored: RequestContent) -> Content:
    """What is stored of a request, for a person to read. The audit log has it before they do.

    Raises ``UndecipherableCredential`` where its key is gone.
    """
    with transaction.atomic():
        audit.record(acting_user=acting_user, verb="shown", target=stored, organization=organization)
    return Content.opened(stored.content)
