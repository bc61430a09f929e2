"""End users: blocking them, and letting them pass again."""

from __future__ import annotations

from django.db import transaction
from django_scopes import scope

from billing.models import BlockedEndUser
from tenants.models import Organization, User
from tenants.services import audit, rows


class EndUserError(ValueError):
    """An end user that cannot be blocked; the message says why."""


@transaction.atomic
def block_end_user(
    *, acting_user: User | None, organization: Organization, end_user: str, reason: str = ""
) -> BlockedEndUser:
    """Refuse every request of ``organization`` that names ``end_user``, on each worker within a second.

    ``reason`` is for the organization's own people. Of one who is blocked already, the reason changes.
    Raises ``EndUserError``, ``InvalidRow``.
    """
    if not end_user:
        raise EndUserError("id: name the end user to block.")
    reason = reason.strip()
    with scope(organization=organization):
        # One at a time: the row to lock may not be there yet.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        row = BlockedEndUser.objects.filter(organization=organization, end_user=end_user).first()
        if row is None:
            row = BlockedEndUser(
                organization=organization, end_user=end_user, reason=reason, blocked_by=acting_user
            )
            rows.check(row)
            row.save(force_insert=True)
            verb, detail = "blocked", {"reason": reason}
        else:
            changes = rows.changed(row, {"reason": reason})
            if not changes:
                return row
            verb, detail = "changed", rows.assign(row, changes)
        audit.record(acting_user=acting_user, verb=verb, target=row, organization=organization, detail=detail)
    return row


@transaction.atomic
def unblock_end_user(*, acting_user: User | None, organization: Organization, end_user: str) -> bool:
    """Let requests that name ``end_user`` pass again; whether they were refused."""
    with scope(organization=organization):
        row = (
            BlockedEndUser.objects.select_for_update()
            .filter(organization=organization, end_user=end_user)
            .first()
        )
        if row is None:
            return False
        audit.record(
            acting_user=acting_user,
            verb="unblocked",
            target=row,
            organization=organization,
            detail={"reason": row.reason, "blocked": row.blocked_at},
        )
        row.delete()
    return True
