"""The page of settings: owners change what is theirs, a wrong value changes nothing, each change is on record."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.urls import reverse

from billing.models import RequestContent
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


def first_day_kept(days: int) -> str:
    """As the page writes it, by the calendar of Berlin at the next 03:40 by UTC."""
    now = datetime.now(UTC)
    tonight = now.replace(hour=3, minute=40, second=0, microsecond=0)
    tonight += timedelta(days=0 if tonight > now else 1)
    day = tonight.astimezone(ZoneInfo("Europe/Berlin")).date() - timedelta(days=days)
    return f"{day:%-d %B %Y}"


def test_fewer_days_of_details_are_confirmed_by_what_they_remove(acme: Cast, sign_in: SignIn) -> None:
    client: Any = sign_in(acme.ann)
    wanted = {**KEPT, "keep_details_days": "90"}
    days = {first_day_kept(90)}
    asked = client.post(PAGE, wanted)
    days.add(first_day_kept(90))
    assert asked.status_code == 422
    found = re.search(r"details of requests before (.*?) tonight", asked.content.decode())
    assert found is not None
    assert found[1] in days
    assert "It cannot be undone." in asked.content.decode()
    assert stored().keep_details_days is None
    assert client.post(PAGE, {**wanted, "remove_details": "on"}).status_code == 302
    assert stored().keep_details_days == 90
    entry = AuditEntry.objects.filter(target_id=str(acme.organization.pk), verb="changed").latest("pk")
    assert entry.detail == {"keep_details_days": {"from": None, "to": 90}}


def test_more_days_of_details_need_no_confirmation(acme: Cast, sign_in: SignIn) -> None:
    client: Any = sign_in(acme.ann)
    Organization.objects.filter(slug="acme").update(keep_details_days=90)
    assert client.post(PAGE, {**KEPT, "keep_details_days": "120"}).status_code == 302
    assert client.post(PAGE, {**KEPT, "keep_details_days": ""}).status_code == 302
    assert stored().keep_details_days is None


def test_a_choice_beyond_a_younger_bound_of_the_platform_is_in_nobodys_way(
    acme: Cast, sign_in: SignIn, settings: Any
) -> None:
    Organization.objects.filter(slug="acme").update(keep_details_days=400)
    settings.KEEP_DETAILS_DAYS = 60
    client: Any = sign_in(acme.ann)
    assert client.get(PAGE).context["form"]["keep_details_days"].value() == 60
    answer = client.post(PAGE, {**KEPT, "keep_details_days": "60", "name": "Other"})
    assert (answer.status_code, stored().name) == (302, "Other")


@pytest.mark.parametrize(("platform", "days"), [(0, "29"), (0, "3651"), (60, "61")])
def test_days_of_details_out_of_bounds_change_nothing(
    acme: Cast, sign_in: SignIn, settings: Any, platform: int, days: str
) -> None:
    settings.KEEP_DETAILS_DAYS = platform
    answer = sign_in(acme.ann).post(PAGE, {**KEPT, "keep_details_days": days, "remove_details": "on"})
    assert answer.status_code == 422
    assert stored().keep_details_days is None


def test_storing_prompts_is_confirmed_by_what_it_means_and_audited(acme: Cast, sign_in: SignIn) -> None:
    client: Any = sign_in(acme.ann)
    asked = client.post(PAGE, {**KEPT, "log_content": "on"})
    assert asked.status_code == 422
    assert "From now on what is asked with every key of Acme Ltd" in asked.content.decode()
    assert not stored().log_content
    wanted = {**KEPT, "log_content": "on", "content_days": "7"}
    assert client.post(PAGE, {**wanted, "store_content": "on"}).status_code == 302
    assert (stored().log_content, stored().content_days) == (True, 7)
    entry = AuditEntry.objects.filter(target_id=str(acme.organization.pk), verb="changed").latest("pk")
    assert entry.detail == {
        "log_content": {"from": False, "to": True},
        "content_days": {"from": 30, "to": 7},
    }
    assert "is stored for 7 days" in client.get(PAGE).content.decode()
    # Once on, other changes need no second word; off, it is off at once.
    assert client.post(PAGE, {**wanted, "name": "Other"}).status_code == 302
    assert client.post(PAGE, KEPT).status_code == 302
    assert (stored().log_content, stored().content_days) == (False, 7)


def test_what_was_stored_before_is_told_of_until_it_is_gone(acme: Cast, sign_in: SignIn) -> None:
    client: Any = sign_in(acme.ann)
    assert "never, in no log and no table" in client.get(PAGE).content.decode()
    RequestContent.objects.create(
        organization=acme.organization,
        request_id="a",
        started_at=datetime(2026, 11, 1, tzinfo=UTC),
        content=b"",
    )
    page = client.get(PAGE).content.decode()
    assert "no more; what was stored before is removed after 30 days" in page
    assert "never, in no log" not in page


def test_an_admin_reads_them_without_a_button_to_save(acme: Cast, sign_in: SignIn) -> None:
    html = sign_in(acme.adam).get(PAGE).content.decode()
    assert "Owners change these" in html
    assert "Save settings" not in html
