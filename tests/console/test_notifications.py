"""The page of notifications: a key shown once, an address never."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from gateway.models import Delivery, NotificationChannel
from tests.cast import Cast
from tests.console.conftest import SignIn


def test_the_signing_key_is_shown_once_and_the_address_never(
    acme: Cast, sign_in: SignIn, settings: Any
) -> None:
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    client, page = sign_in(acme.ann), reverse("console:notifications", args=["acme"])
    added = client.post(
        page,
        {"kind": "webhook", "name": "Hook", "topics": ["budget"], "url": "http://127.0.0.1:9/T0P-SECRET"},
    )
    html = added.content.decode()
    assert html.count("whsec_") == 1
    assert added["Cache-Control"] == "no-store"
    again = client.get(page).content.decode()
    assert "whsec_" not in again
    assert "T0P-SECRET" not in html + again
    assert "127.0.0.1" in again


def test_a_wrong_form_keeps_what_was_typed_but_no_address(acme: Cast, sign_in: SignIn) -> None:
    client, page = sign_in(acme.ann), reverse("console:notifications", args=["acme"])
    answer = client.post(
        page,
        {
            "kind": "slack",
            "name": "On call",
            "topics": ["outage"],
            "url": "https://10.0.0.1/T0P-SECRET",
            "recipients": "nobody",
        },
    )
    html = answer.content.decode()
    assert answer.status_code == 422
    assert "“nobody” is not an e-mail address." in html
    assert 'value="On call"' in html
    assert "T0P-SECRET" not in html
    assert not NotificationChannel.objects.exists()


def test_a_test_is_queued_and_listed(acme: Cast, sign_in: SignIn) -> None:
    client, page = sign_in(acme.ann), reverse("console:notifications", args=["acme"])
    assert "Nobody is told yet" in client.get(page).content.decode()
    client.post(page, {"kind": "email", "name": "Mail", "topics": ["budget"], "roles": ["owner"]})
    channel = NotificationChannel.objects.get()
    client.post(reverse("console:notification_channel", args=["acme", channel.pk]), {"do": "test"})
    assert Delivery.objects.get().topic == "test"
    assert "A test from" in client.get(page).content.decode()


def test_a_removal_says_first_what_it_takes_along(acme: Cast, sign_in: SignIn, settings: Any) -> None:
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    client, page = sign_in(acme.ann), reverse("console:notifications", args=["acme"])
    client.post(
        page, {"kind": "webhook", "name": "Hook", "topics": ["budget"], "url": "http://127.0.0.1:9/hook"}
    )
    html = client.get(page).content.decode()
    # The button that removes is within what says so, and opens with it.
    before, _, behind = html.partition('<details class="sure">')
    assert 'value="remove"' not in before
    within = behind.partition("</details>")[0]
    assert "its signing key and the list of what it was sent" in within
    assert 'value="remove"' in within
