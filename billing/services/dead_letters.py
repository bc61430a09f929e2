"""Dead letters: journal records that could not become usage events, tried again or given up."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from django.db import connection, transaction

from billing.models import DeadLetter
from billing.settlement import Ended, settle
from tenants.models import User
from tenants.services import audit

# The worker that wrote it is gone, and its leases with it.
NOBODY = UUID(int=0)
# What a letter may show of its request. The journal never holds prompts or secrets; a record that cannot
# be read is not shown at all.
SHOWN = (
    *("request_id", "started_at", "ended_at", "organization_id", "team_id", "key_id", "model_group"),
    *("deployment", "provider", "endpoint", "status", "end_reason", "error_code", "input_tokens"),
    *("cached_input_tokens", "cache_write_tokens", "output_tokens", "usage_source", "cost", "charge"),
)


class DeadLetterError(ValueError):
    """A letter that cannot be dealt with so."""


class NotRetryable(DeadLetterError):
    """It is not the end of a request, so no event can come of it."""


class StillRefused(DeadLetterError):
    """The record was refused once more."""


class NoReason(DeadLetterError):
    """Giving up a charge needs a reason."""


def record_of(letter: DeadLetter) -> dict[str, Any] | None:
    """The record as it was journaled; None if it cannot be read."""
    try:
        found = orjson.loads(letter.record)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def shown(letter: DeadLetter) -> dict[str, Any]:
    """What may be shown of the letter, by the names of ``SHOWN``; empty if it cannot be read."""
    record = record_of(letter) or {}
    return {name: record[name] for name in SHOWN if isinstance(record.get(name), (str, int, float))}


@transaction.atomic
def retry_letter(*, acting_user: User | None, letter: DeadLetter) -> bool:
    """Make the usage event after all and settle its charge. Returns False where the event was there
    already. Raises ``NotRetryable``, ``StillRefused``; then the letter stays."""
    locked = DeadLetter.objects.select_for_update().get(pk=letter.pk)
    record = record_of(locked)
    if record is None or record.get("t") != "end":
        raise NotRetryable("It is not the end of a request, so no event can be made of it.")
    inserted, refused = settle(connection.connection, [Ended(NOBODY, record, locked.record.encode())])
    if refused:
        raise StillRefused("It was refused again, for the same kind of reason. Nothing was changed.")
    audit.record(
        acting_user=acting_user,
        verb="retried",
        target=locked,
        detail={"request": record.get("request_id"), "new event": bool(inserted)},
    )
    locked.delete()
    return bool(inserted)


@transaction.atomic
def discard_letter(*, acting_user: User | None, letter: DeadLetter, reason: str) -> None:
    """Give the letter up: what it was for is never charged. Raises ``NoReason``."""
    reason = reason.strip()
    if not reason:
        raise NoReason("reason: say why this record is given up.")
    locked = DeadLetter.objects.select_for_update().get(pk=letter.pk)
    audit.record(
        acting_user=acting_user,
        verb="discarded",
        target=locked,
        detail={"reason": reason[:500], "refused for": locked.reason, **shown(locked)},
    )
    locked.delete()
