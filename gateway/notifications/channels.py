"""Channels: adding, switching and removing them, and a message to try one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import orjson
from django.db import transaction
from django.utils import timezone

from gateway.models import Delivery, NotificationChannel, channel_choices, topic_choices
from gateway.notifications.addresses import resolve
from routing.credentials import decrypt, encrypt
from tenants.models import Organization, User
from tenants.services import audit, rows

KINDS = tuple(name for name, _ in channel_choices())
TOPICS = tuple(name for name, _ in topic_choices())


class BadChannel(ValueError):
    """A channel that cannot be; the message says why."""


@transaction.atomic
def add_channel(
    *,
    acting_user: User | None,
    organization: Organization,
    kind: str,
    name: str,
    topics: Sequence[str],
    recipients: Sequence[str] = (),
    roles: Sequence[str] = (),
    url: str = "",
) -> tuple[NotificationChannel, str]:
    """A new channel and, of a signed webhook, its signing key, which nobody sees again.

    E-mail needs ``recipients`` (addresses) or ``roles``, the others a ``url``. Raises ``BadChannel``,
    ``BadAddress``, ``InvalidRow``.
    """
    if kind not in KINDS:
        raise BadChannel(f"{kind!r} is no kind of channel.")
    if not topics or set(topics) - set(TOPICS):
        raise BadChannel("Choose what this channel is told of.")
    if kind == "email" and not recipients and not roles:
        raise BadChannel("An e-mail channel needs addresses or roles.")
    channel = NotificationChannel(
        organization=organization,
        kind=kind,
        name=name.strip(),
        topics=[topic for topic in TOPICS if topic in topics],
        recipients=list(recipients) if kind == "email" else [],
        roles=list(roles) if kind == "email" else [],
    )
    key = ""
    if kind != "email":
        channel.host = resolve(url).host
        key = f"whsec_{secrets.token_urlsafe(32)}" if kind == "webhook" else ""
        channel.ciphertext = encrypt(orjson.dumps({"url": url, "key": key}).decode())
    rows.check(channel)
    if NotificationChannel.objects.filter(name=channel.name).exists():
        raise BadChannel(f"There is a channel {channel.name} already.")
    channel.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="created",
        target=channel,
        organization=organization,
        detail={
            "kind": kind,
            "topics": channel.topics,
            "recipients": channel.recipients,
            "roles": channel.roles,
            "host": channel.host,
        },
    )
    return channel, key


def secrets_of(channel: NotificationChannel) -> tuple[str, str]:
    """``(url, signing key)`` of a webhook. Raises ``routing.credentials.UndecipherableCredential``."""
    held = orjson.loads(decrypt(channel.ciphertext or b""))
    return held["url"], held["key"]


@transaction.atomic
def switch_channel(*, acting_user: User | None, channel: NotificationChannel, on: bool) -> None:
    """Switch a channel on or off. What waits for one that is off is not sent later."""
    locked = NotificationChannel.objects.select_for_update(no_key=True).get(pk=channel.pk)
    if on == (locked.disabled_at is None):
        return
    rows.assign(locked, {"disabled_at": None if on else timezone.now(), "failing_since": None})
    audit.record(
        acting_user=acting_user,
        verb="switched on" if on else "switched off",
        target=locked,
        organization=locked.organization,
    )


@transaction.atomic
def remove_channel(*, acting_user: User | None, channel: NotificationChannel) -> None:
    """Remove a channel and the record of its deliveries."""
    locked = NotificationChannel.objects.select_for_update(no_key=True).get(pk=channel.pk)
    audit.record(acting_user=acting_user, verb="removed", target=locked, organization=locked.organization)
    locked.delete()


@transaction.atomic
def send_test(*, acting_user: User | None, channel: NotificationChannel) -> Delivery:
    """A message that says that the channel works."""
    who = acting_user.email if acting_user else "An operator"
    audit.record(acting_user=acting_user, verb="tested", target=channel, organization=channel.organization)
    return Delivery.objects.create(
        channel=channel,
        topic="test",
        about=f"test:{uuid4()}",
        subject=f"A test from {channel.organization.name}",
        text=f"{who} sent this to see whether the channel {channel.name} works. It does.",
        next_at=datetime.now(UTC),
    )
