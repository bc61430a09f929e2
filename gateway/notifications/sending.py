"""Delivering what is queued: claim, send, note the outcome. Each attempt claims its delivery for a while, so
that a task that dies delays a message and loses none."""

from __future__ import annotations

import hashlib
import hmac
import logging
import smtplib
import time
from datetime import datetime, timedelta

import httpx
import orjson
from django.core import mail
from django.db import transaction

from gateway.models import Delivery, NotificationChannel
from gateway.notifications.addresses import BadAddress, resolve
from gateway.notifications.channels import secrets_of
from routing.credentials import UndecipherableCredential
from tenants.models import Membership
from tenants.services import audit

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
# Longer than an attempt can take.
CLAIM = timedelta(seconds=60)
FIRST_PAUSE = timedelta(seconds=30)
# With four times the pause each time: half a minute, two, eight, half an hour, two hours.
MOST_ATTEMPTS = 6
# A channel through which nothing came for this long is switched off.
LASTING = timedelta(days=1)


class NotSent(Exception):
    """An attempt failed; the message is what people may read of it."""


def claim_due(now: datetime, most: int = 100) -> list[int]:
    """The ids of deliveries that are due, each given to this caller alone for ``CLAIM``."""
    with transaction.atomic():
        due = list(
            Delivery.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(state="waiting", next_at__lte=now)
            .order_by("next_at", "pk")[:most]
        )
        Delivery.objects.filter(pk__in=[each.pk for each in due]).update(next_at=now + CLAIM)
    return [each.pk for each in due]


def deliver(delivery_id: int, now: datetime) -> None:
    """Make one attempt, and note how it went. A delivery that is done, or whose channel is off, is left."""
    delivery = (
        Delivery.objects.select_related("channel__organization")
        .filter(pk=delivery_id, state="waiting")
        .first()
    )
    if delivery is None:
        return
    channel = delivery.channel
    if channel.disabled_at is not None and delivery.topic != "test":
        Delivery.objects.filter(pk=delivery.pk, state="waiting").update(
            state="failed", problem="switched off"
        )
        return
    try:
        if channel.kind == "email":
            _mail(delivery)
        else:
            _post(delivery)
    except NotSent as error:
        _failed(delivery, str(error), now)
    else:
        Delivery.objects.filter(pk=delivery.pk).update(
            state="sent", sent_at=now, attempts=delivery.attempts + 1, problem=""
        )
        NotificationChannel.objects.filter(pk=channel.pk).update(failing_since=None)


def _failed(delivery: Delivery, problem: str, now: datetime) -> None:
    attempts = delivery.attempts + 1
    over = attempts >= MOST_ATTEMPTS or delivery.topic == "test"
    Delivery.objects.filter(pk=delivery.pk).update(
        attempts=attempts,
        problem=problem[:100],
        state="failed" if over else "waiting",
        next_at=now + FIRST_PAUSE * 4 ** (attempts - 1),
    )
    with transaction.atomic():
        channel = NotificationChannel.objects.select_for_update(no_key=True).get(pk=delivery.channel_id)
        if channel.failing_since is None:
            channel.failing_since = now
            channel.save(update_fields=["failing_since"])
        elif channel.disabled_at is None and now - channel.failing_since >= LASTING:
            channel.disabled_at = now
            channel.save(update_fields=["disabled_at"])
            audit.record(
                acting_user=None,
                verb="switched off",
                target=channel,
                organization=channel.organization,
                detail={"because": f"nothing arrived since {channel.failing_since:%Y-%m-%d %H:%M} UTC"},
            )


def _mail(delivery: Delivery) -> None:
    channel = delivery.channel
    addresses = set(channel.recipients)
    if channel.roles:
        people = Membership.objects.filter(organization=channel.organization, role__in=channel.roles)
        addresses |= set(people.values_list("user__email", flat=True))
    if not addresses:
        raise NotSent("nobody has these roles")
    try:
        with mail.get_connection(timeout=TIMEOUT_SECONDS) as connection:
            # Nobody learns who else gets it.
            message = mail.EmailMessage(
                delivery.subject, delivery.text, bcc=sorted(addresses), connection=connection
            )
            message.send()
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(type(error).__name__) from None


def _post(delivery: Delivery) -> None:
    channel = delivery.channel
    try:
        url, key = secrets_of(channel)
        place = resolve(url)
    except (BadAddress, UndecipherableCredential) as error:
        raise NotSent(str(error)) from None
    headers = {
        "content-type": "application/json",
        "host": place.host_header,
        "x-weir-delivery": str(delivery.pk),
    }
    if channel.kind == "slack":
        body = orjson.dumps({"text": f"*{delivery.subject}*\n{delivery.text}"})
    else:
        body = orjson.dumps(
            {
                "id": delivery.pk,
                "topic": delivery.topic,
                "organization": channel.organization.slug,
                "subject": delivery.subject,
                "text": delivery.text,
                "created_at": delivery.created_at.isoformat(),
            }
        )
        headers["x-weir-signature"] = signature(key, int(time.time()), body)
    try:
        # By number, under the name that was checked; a redirect is not followed, it could lead anywhere.
        with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            request = client.build_request(
                "POST",
                place.url,
                content=body,
                headers=headers,
                extensions={"sni_hostname": place.host},
            )
            answer = client.send(request, stream=True)
            answer.close()
    except httpx.HTTPError as error:
        raise NotSent(type(error).__name__) from None
    if not answer.is_success:
        raise NotSent(f"status {answer.status_code}")


def signature(key: str, at: int, body: bytes) -> str:
    """``t=<seconds since 1970>,v1=<hex>``: HMAC-SHA256 with the channel's key over ``<t>.<body>``."""
    digest = hmac.new(key.encode(), b"%d.%s" % (at, body), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
