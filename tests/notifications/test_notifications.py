"""Notifications: what is told, once, through which channel, and what a failing or hostile address can do."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
from django.core import mail
from django_scopes import scope, scopes_disabled

from billing.models import Budget, Quota
from billing.services.quotas import raise_quota, set_quota
from gateway.models import Delivery, NotificationChannel
from gateway.notifications import occasions, sending
from gateway.notifications.addresses import BadAddress, resolve
from gateway.notifications.channels import BadChannel, add_channel, send_test, switch_channel
from gateway.tasks import notice
from tenants.models import ApiKey, AuditEntry
from tests.cast import Cast, make_cast

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)
D = Decimal


class Receiver(ThreadingHTTPServer):
    """A real web server that notes what it is sent and answers ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/T0P-SECRET"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("location", self.server.url)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    with receiving() as server:
        yield server


@pytest.fixture
def acme() -> Iterator[Cast]:
    cast = make_cast("acme")
    with scope(organization=cast.organization):
        yield cast


def mailing(acme: Cast, *topics: str) -> NotificationChannel:
    return add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="email",
        name="mail",
        topics=topics or ["budget"],
        recipients=["ops@acme.example"],
    )[0]


def counter(
    acme: Cast, spent: str, *, alert_at: list[Decimal], hard: bool = True, end: datetime | None = None
) -> Budget:
    """A team's monthly budget of 10 with a counter."""
    quota = set_quota(
        acting_user=None,
        scope="team",
        target=acme.search,
        metric="budget",
        limit=10,
        period="month",
        hard=hard,
        alert_at=alert_at,
    )
    return Budget.objects.create(
        organization=acme.organization,
        quota=quota,
        period_start=NOW - timedelta(days=3),
        period_end=end or NOW + timedelta(days=3),
        limit=10 if hard else None,
        spent=D(spent),
    )


def send_all(at: datetime) -> None:
    for delivery_id in sending.claim_due(at):
        sending.deliver(delivery_id, at)


def subjects() -> list[str]:
    return list(Delivery.objects.order_by("pk").values_list("subject", flat=True))


def test_each_share_of_a_budget_is_told_once_a_period_however_often_one_looks(acme: Cast) -> None:
    mailing(acme)
    budget = counter(acme, "4.99", alert_at=[D("0.5"), D("0.8"), D(1)])
    notice()
    assert subjects() == []
    # 8 of 10 passes a half and 80 % exactly.
    Budget.objects.filter(pk=budget.pk).update(spent=D(8))
    for _ in range(3):
        notice()
    assert subjects() == [
        "50% of the budget of team search is used",
        "80% of the budget of team search is used",
    ]
    # The next period has a counter of its own.
    Budget.objects.filter(pk=budget.pk).update(period_end=NOW - timedelta(seconds=1))
    Budget.objects.create(
        organization=acme.organization,
        quota=budget.quota,
        period_start=NOW,
        period_end=NOW + timedelta(days=30),
        limit=10,
        spent=5,
    )
    notice()
    assert len(subjects()) == 3


def test_a_soft_budget_without_shares_is_told_of_when_it_is_spent(acme: Cast) -> None:
    mailing(acme)
    budget = counter(acme, "9.99", alert_at=[], hard=False)
    notice()
    assert subjects() == []
    Budget.objects.filter(pk=budget.pk).update(spent=D(10))
    notice()
    assert subjects() == ["100% of the budget of team search is used"]


def test_a_raised_budget_alerts_by_what_it_is_raised_to(acme: Cast) -> None:
    mailing(acme)
    counter(acme, "9", alert_at=[D("0.8")])
    raise_quota(acting_user=None, quota=Quota.objects.get(), to=20, until=NOW + timedelta(days=1))
    notice()
    assert subjects() == []
    # The increase over, 9 is more than 80 % of 10.
    assert len(occasions.budget_alerts(NOW + timedelta(days=2))) == 1


def test_a_key_is_told_of_a_week_and_a_day_before_its_end(acme: Cast) -> None:
    mailing(acme, "key_expiry")
    ends = NOW + timedelta(days=8)
    ApiKey.objects.filter(pk=acme.search_key.pk).update(expires_at=ends)
    for before, told in (
        (timedelta(days=8), 0),
        (timedelta(days=7), 1),
        (timedelta(days=2), 1),
        (timedelta(days=1), 2),
    ):
        occasions.tell(occasions.keys_that_end(ends - before))
        assert len(subjects()) == told
    ApiKey.objects.filter(pk=acme.search_key.pk).update(revoked_at=NOW)
    assert occasions.keys_that_end(ends - timedelta(hours=1)) == []


def test_only_channels_that_want_a_topic_are_told_and_only_of_their_organization(acme: Cast) -> None:
    mailing(acme, "outage")
    with scopes_disabled():
        other = make_cast("other")
    with scope(organization=other.organization):
        mailing(other, "budget")
    counter(acme, "10", alert_at=[D(1)])
    notice()
    with scopes_disabled():
        assert not Delivery.objects.exists()


def test_mail_goes_to_addresses_and_to_whoever_has_the_role(acme: Cast) -> None:
    add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="email",
        name="mail",
        topics=["budget"],
        recipients=["ops@acme.example"],
        roles=["owner"],
    )
    counter(acme, "10", alert_at=[D(1)])
    notice()
    send_all(datetime.now(UTC) + timedelta(seconds=30))
    (sent,) = mail.outbox
    assert sorted(sent.bcc) == ["ann@acme.example", "ops@acme.example"]
    assert "/o/acme/quotas/" in sent.body
    assert Delivery.objects.get().state == "sent"
    # Once sent, never again.
    send_all(datetime.now(UTC) + timedelta(days=1))
    assert len(mail.outbox) == 1


def test_a_webhook_is_signed_with_the_key_that_was_shown(acme: Cast, receiver: Receiver) -> None:
    channel, key = add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="webhook",
        name="hook",
        topics=["budget"],
        url=receiver.url,
    )
    send_test(acting_user=None, channel=channel)
    send_all(datetime.now(UTC))
    ((headers, body),) = receiver.got
    at, _, digest = headers["x-weir-signature"].removeprefix("t=").partition(",v1=")
    assert hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest() == digest
    assert json.loads(body)["organization"] == "acme"
    assert json.loads(body)["id"] == Delivery.objects.get().pk


def test_slack_gets_a_text(acme: Cast, receiver: Receiver) -> None:
    channel, key = add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="slack",
        name="chat",
        topics=["budget"],
        url=receiver.url,
    )
    assert key == ""
    send_test(acting_user=acme.ann.user, channel=channel)
    send_all(datetime.now(UTC))
    assert json.loads(receiver.got[0][1])["text"].startswith("*A test from ")


def test_secrets_are_in_no_row_but_encrypted(acme: Cast, receiver: Receiver) -> None:
    receiver.status = 500
    channel, key = add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="webhook",
        name="hook",
        topics=["budget"],
        url=receiver.url,
    )
    send_test(acting_user=None, channel=channel)
    send_all(datetime.now(UTC))
    rows = [
        *NotificationChannel.objects.values(),
        *Delivery.objects.values(),
        *AuditEntry.objects.values(),
    ]
    for secret in ("T0P-SECRET", key):
        assert secret not in repr(
            [{**row, "ciphertext": bytes(cast(bytes, row.get("ciphertext") or b""))} for row in rows]
        )
    assert Delivery.objects.get().problem == "status 500"


def test_a_failed_delivery_is_tried_again_with_growing_pauses_and_then_given_up(
    acme: Cast, receiver: Receiver
) -> None:
    add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="slack",
        name="chat",
        topics=["budget"],
        url=receiver.url,
    )
    receiver.status = 503
    counter(acme, "10", alert_at=[D(1)])
    notice()
    at = datetime.now(UTC)
    for pause in (30, 120, 480, 1920, 7680):
        send_all(at)
        delivery = Delivery.objects.get()
        assert (delivery.state, delivery.next_at) == ("waiting", at + timedelta(seconds=pause))
        send_all(delivery.next_at - timedelta(seconds=1))
        at = delivery.next_at
    send_all(at)
    assert Delivery.objects.get().state == "failed"
    assert len(receiver.got) == 6


def test_a_channel_that_fails_for_a_day_is_switched_off_and_the_audit_log_says_so(
    acme: Cast, receiver: Receiver
) -> None:
    channel, _ = add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="slack",
        name="chat",
        topics=["budget"],
        url=receiver.url,
    )
    receiver.status = 404
    for hours in (0, 23, 24):
        send_test(acting_user=None, channel=channel)
        at = datetime.now(UTC) + timedelta(hours=hours)
        send_all(at)
        channel.refresh_from_db()
        assert (channel.disabled_at is not None) == (hours == 24)
    assert AuditEntry.objects.filter(verb="switched off", target_type="notificationchannel").count() == 1


def test_nothing_is_sent_through_a_channel_that_is_off(acme: Cast) -> None:
    channel = mailing(acme)
    counter(acme, "10", alert_at=[D(1)])
    notice()
    switch_channel(acting_user=None, channel=channel, on=False)
    send_all(datetime.now(UTC) + timedelta(minutes=1))
    assert (mail.outbox, Delivery.objects.get().problem) == ([], "switched off")


def test_a_redirect_is_not_followed(acme: Cast, receiver: Receiver) -> None:
    channel, _ = add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="slack",
        name="chat",
        topics=["budget"],
        url=receiver.url,
    )
    receiver.status = 307
    send_test(acting_user=None, channel=channel)
    send_all(datetime.now(UTC))
    assert len(receiver.got) == 1
    assert Delivery.objects.get().problem == "status 307"


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.216.34/",
        "ftp://93.184.216.34/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://[fe80::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://2130706433/",
        "https://localhost/",
        "https://user:pass@93.184.216.34/",
        "https://224.0.0.1/",
        "https:///nohost",
        "https://[nonsense/",
        "https://93.184.216.34:99999/",
    ],
)
def test_an_address_inside_is_refused(settings: Any, url: str) -> None:
    settings.WEBHOOK_PRIVATE_ADDRESSES = False
    with pytest.raises(BadAddress):
        resolve(url)


def test_a_public_address_is_connected_to_by_the_number_that_was_checked(settings: Any) -> None:
    settings.WEBHOOK_PRIVATE_ADDRESSES = False
    place = resolve("https://93.184.216.34:8443/a/b?c=d")
    assert (place.url, place.host_header) == ("https://93.184.216.34:8443/a/b?c=d", "93.184.216.34:8443")


def test_an_address_that_turned_private_is_not_called(acme: Cast, receiver: Receiver, settings: Any) -> None:
    channel, _ = add_channel(
        acting_user=None,
        organization=acme.organization,
        kind="slack",
        name="chat",
        topics=["budget"],
        url=receiver.url,
    )
    settings.WEBHOOK_PRIVATE_ADDRESSES = False
    send_test(acting_user=None, channel=channel)
    send_all(datetime.now(UTC))
    assert receiver.got == []
    assert Delivery.objects.get().state == "failed"


@pytest.mark.parametrize(
    "wrong", [{"kind": "pigeon"}, {"topics": []}, {"topics": ["weather"]}, {"recipients": []}]
)
def test_a_channel_that_makes_no_sense_is_refused(acme: Cast, wrong: dict[str, Any]) -> None:
    sound: dict[str, Any] = {
        "kind": "email",
        "name": "mail",
        "topics": ["budget"],
        "recipients": ["a@acme.example"],
    }
    with pytest.raises(BadChannel):
        add_channel(acting_user=None, organization=acme.organization, **{**sound, **wrong})
    assert not NotificationChannel.objects.exists()
