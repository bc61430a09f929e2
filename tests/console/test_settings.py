"""The page of settings: owners change what is theirs, a wrong value changes nothing, each change is on record."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.urls import reverse

from billing.services.exchange_rates import set_exchange_rate
from tenants.models import AuditEntry, Organization
from tests.cast import Cast
from tests.console.conftest import SignIn

PAGE = "/o/acme/settings/"
KEPT = {"name": "Acme Ltd", "time_zone": "Europe/Berlin", "currency": "USD"}


def stored() -> Organization:
    return Organization.objects.get(slug="acme")


def test_an_owner_changes_the_time_zone_and_the_audit_log_says_from_what_to_what(
    acme: Cast, sign_in: SignIn
) -> None:
    answer = sign_in(acme.ann).post(PAGE, {**KEPT, "time_zone": "Asia/Tokyo"})
    assert answer["location"] == reverse("console:settings", args=["acme"])
    assert stored().time_zone == "Asia/Tokyo"
    entry = AuditEntry.objects.filter(target_id=str(acme.organization.pk), verb="changed").latest("pk")
    assert entry.detail == {"time_zone": {"from": "Europe/Berlin", "to": "Asia/Tokyo"}}


def test_origins_are_taken_one_a_line_and_each_once(acme: Cast, sign_in: SignIn) -> None:
    lines = "https://a.example\r\nhttp://localhost:3000\r\nhttps://a.example\r\n"
    sign_in(acme.ann).post(PAGE, {**KEPT, "cors_origins": lines})
    assert stored().cors_origins == ["https://a.example", "http://localhost:3000"]


def test_an_origin_with_a_path_is_named_and_nothing_is_changed(acme: Cast, sign_in: SignIn) -> None:
    wrong = {**KEPT, "name": "Other", "cors_origins": "https://a.example/app"}
    answer = sign_in(acme.ann).post(PAGE, wrong)
    assert answer.status_code == 422
    assert "“https://a.example/app”" in answer.content.decode()
    assert (stored().name, stored().cors_origins) == ("Acme Ltd", [])


def test_a_currency_can_be_chosen_once_it_has_a_rate(acme: Cast, sign_in: SignIn) -> None:
    client: Any = sign_in(acme.ann)
    assert client.post(PAGE, {**KEPT, "currency": "EUR"}).status_code == 422
    set_exchange_rate(
        acting_user=None,
        currency="EUR",
        rate=Decimal("0.92"),
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert client.post(PAGE, {**KEPT, "currency": "EUR"}).status_code == 302
    assert stored().currency == "EUR"


def test_switches_that_are_not_sent_are_off(acme: Cast, sign_in: SignIn) -> None:
    client: Any = sign_in(acme.ann)
    client.post(PAGE, {**KEPT, "lower_max_tokens": "on", "store_responses": "on"})
    assert (stored().lower_max_tokens, stored().store_responses) == (True, True)
    client.post(PAGE, {**KEPT, "store_responses": "on"})
    assert (stored().lower_max_tokens, stored().store_responses) == (False, True)


def test_an_admin_reads_them_without_a_button_to_save(acme: Cast, sign_in: SignIn) -> None:
    html = sign_in(acme.adam).get(PAGE).content.decode()
    assert "Owners change these" in html
    assert "Save settings" not in html
