"""Quotas in the console: every layer with what is used of it, edited in place by those who may."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from billing.calendars import period_bounds
from billing.models import Budget, Quota
from billing.rate_limits import CONCURRENCY, REQUESTS, TOKENS, RateLimiter, RateRule
from billing.services.quotas import set_quota
from gateway.console.layers import all_layers
from tenants.access import tenant_access
from tenants.models import Membership
from tenants.services.organizations import create_plan, update_organization
from tests.cast import Cast
from tests.console.conftest import SignIn

EMPTY = {
    "requests_per_minute": "",
    "tokens_per_minute": "",
    "concurrency": "",
    "budget_day": "",
    "budget_week": "",
    "budget_month": "",
    "budget_total": "",
    "alert_at": "",
}


def save(client: Client, layer: str, **values: str) -> Any:
    """Post the form of one layer."""
    return client.post(reverse("console:quota_save", args=["acme", layer]), {**EMPTY, **values})


def words(html: str) -> str:
    """The text of a page, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def limits_of(**place: Any) -> dict[tuple[str, str], Decimal]:
    return {(quota.metric, quota.period): quota.limit for quota in Quota.objects.filter(**place)}


def test_limits_are_set_changed_and_removed_as_the_form_says(acme: Cast, sign_in: SignIn) -> None:
    client, layer = sign_in(acme.ann), f"team-{acme.search.pk}"
    response = save(client, layer, requests_per_minute="60", budget_month="12.50", budget_total="100")
    assert response["Location"] == f"/o/acme/quotas/#{layer}"
    assert limits_of(team=acme.search) == {
        ("requests_per_minute", ""): Decimal(60),
        ("budget", "month"): Decimal("12.5"),
        ("budget", "total"): Decimal(100),
    }
    save(client, layer, concurrency="5", budget_month="20")
    assert limits_of(team=acme.search) == {("concurrency", ""): Decimal(5), ("budget", "month"): Decimal(20)}


def test_alerts_and_whether_budgets_refuse_are_as_the_form_says(acme: Cast, sign_in: SignIn) -> None:
    set_quota(
        acting_user=None,
        scope="organization",
        target=acme.organization,
        metric="budget",
        limit=50,
        period="month",
        hard=False,
        alert_at=[Decimal("0.8")],
    )
    client = sign_in(acme.ann)
    html = client.get(reverse("console:quotas", args=["acme"]) + "?edit=organization").content.decode()
    assert 'name="alert_at" value="80"' in html
    save(client, "organization", budget_month="70", alert_at="50, 80 %", alerts_only="on")
    quota = Quota.objects.get(scope="organization")
    assert (quota.limit, quota.hard, quota.alert_at) == (Decimal(70), False, [Decimal("0.5"), Decimal("0.8")])
    save(client, "organization", budget_month="70")
    quota.refresh_from_db()
    assert (quota.hard, quota.alert_at) == (True, [])
    response = save(client, "organization", budget_month="70", alert_at="soon")
    assert response.status_code == 422
    assert "“soon” is not a percentage" in response.content.decode()


@pytest.mark.parametrize(
    ("field", "typed"),
    [("requests_per_minute", "1.5"), ("budget_month", "-1"), ("budget_day", "lots"), ("concurrency", "-2")],
)
def test_a_wrong_limit_keeps_what_was_typed_and_changes_nothing(
    acme: Cast, sign_in: SignIn, field: str, typed: str
) -> None:
    response = save(sign_in(acme.ann), "organization", **{field: typed, "tokens_per_minute": "777"})
    assert response.status_code == 422
    html = response.content.decode()
    assert f'value="{typed}"' in html
    assert 'value="777"' in html
    assert not Quota.objects.exists()


def budget_of(acme: Cast, *, limit: str, spent: str, held: str) -> None:
    """A monthly budget of the organization with a counter, as workers would make it."""
    quota = set_quota(
        acting_user=None,
        scope="organization",
        target=acme.organization,
        metric="budget",
        limit=Decimal(limit),
        period="month",
    )
    start, end = period_bounds("month", datetime.now(UTC), "Europe/Berlin")
    Budget.objects.create(
        organization=acme.organization,
        quota=quota,
        period_start=start,
        period_end=end,
        limit=Decimal(limit),
        spent=Decimal(spent),
        held=Decimal(held),
    )


def test_a_budget_shows_spent_held_and_left_apart(acme: Cast, sign_in: SignIn) -> None:
    budget_of(acme, limit="50", spent="12.40", held="0.25")
    text = words(sign_in(acme.fay).get("/o/acme/quotas/").content.decode())
    assert "$12.40 of $50.00 a month" in text
    # 50 - 12.40 - 0.25
    assert "$37.35 left · $0.25 held · resets 1 " in text


def test_a_member_sees_the_organizations_limit_but_not_what_others_spent(acme: Cast, sign_in: SignIn) -> None:
    budget_of(acme, limit="50", spent="12.40", held="0")
    text = words(sign_in(acme.cleo).get("/o/acme/quotas/").content.decode())
    assert "$50.00 a month" in text
    assert "12.40" not in text


def test_the_plans_limits_are_shown_to_the_organizations_on_it(
    acme: Cast, other: Cast, sign_in: SignIn
) -> None:
    plan = create_plan(acting_user=None, name="enterprise")
    set_quota(acting_user=None, scope="plan", target=plan, metric="requests_per_minute", limit=6000)
    update_organization(acting_user=None, organization=acme.organization, plan=plan)
    assert "6,000" in sign_in(acme.vera).get("/o/acme/quotas/").content.decode()
    assert "6,000" not in sign_in(other.vera).get("/o/other/quotas/").content.decode()


def who_may(cast: Cast, layer: str, sign_in: SignIn) -> set[str]:
    """Those who get a layer's form, everybody else being refused on reading and on writing."""
    allowed = set()
    for name in ("ann", "adam", "fay", "bob", "cleo", "vera"):
        member: Membership = getattr(cast, name)
        client = sign_in(member)
        opened = client.get(f"/o/acme/quotas/?edit={layer}").status_code
        saved = save(client, layer).status_code
        assert (opened, saved) in {(200, 302), (403, 403), (404, 403), (404, 404)}
        if opened == 200:
            allowed.add(name)
    return allowed


def test_who_may_edit_which_layer(acme: Cast, sign_in: SignIn) -> None:
    assert who_may(acme, "organization", sign_in) == {"ann", "adam"}
    assert who_may(acme, "end_user", sign_in) == {"ann", "adam"}
    assert who_may(acme, f"member-{acme.bob.pk}", sign_in) == {"ann", "adam"}
    # Bob is admin of search.
    assert who_may(acme, f"team-{acme.search.pk}", sign_in) == {"ann", "adam", "bob"}
    assert who_may(acme, f"team-{acme.support.pk}", sign_in) == {"ann", "adam"}
    assert who_may(acme, f"key-{acme.search_key.pk}", sign_in) == {"ann", "adam", "bob"}
    assert who_may(acme, f"key-{acme.support_key.pk}", sign_in) == {"ann", "adam"}


def test_another_tenants_layers_do_not_exist(acme: Cast, other: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.ann)
    for layer in (f"team-{other.search.pk}", f"key-{other.search_key.pk}", f"member-{other.bob.pk}"):
        assert client.get(f"/o/acme/quotas/?edit={layer}").status_code == 404
        assert save(client, layer, budget_total="1").status_code == 404
    assert not Quota._base_manager.exists()


@pytest.mark.parametrize("layer", ["plan", "team-", "team-x", "nonsense", "key-99999999999999999999999"])
def test_a_layer_that_is_none_does_not_exist(acme: Cast, sign_in: SignIn, layer: str) -> None:
    assert sign_in(acme.ann).get(f"/o/acme/quotas/?edit={layer}").status_code == 404


def test_a_budget_without_a_counter_yet_shows_what_the_hourly_sums_say(acme: Cast) -> None:
    set_quota(acting_user=None, scope="team", target=acme.search, metric="budget", limit=5, period="total")
    tenant = tenant_access(acme.ann.user, "acme")
    assert tenant is not None
    found = {layer.name: layer for layer, _ in all_layers(tenant, datetime.now(UTC)).teams}
    line = found["Search"].budgets[0]
    assert (line.spent, line.held, line.left) == (Decimal(0), Decimal(0), Decimal(5))


def test_what_is_used_right_now_of_the_rate_limits_is_shown(
    acme: Cast, sign_in: SignIn, settings: Any
) -> None:
    """Three requests of 100 tokens are counted as workers count them; one of them has ended."""
    quotas = [
        set_quota(acting_user=None, scope="team", target=acme.search, metric=metric, limit=limit)
        for metric, limit in ((REQUESTS, 10), (TOKENS, 1000), (CONCURRENCY, 5))
    ]
    rules = [RateRule(quota.pk, "team", quota.metric, int(quota.limit), "search") for quota in quotas]

    async def count() -> None:
        limiter = RateLimiter(settings.REDIS_URL, "test", patience=5)
        subjects = [str(acme.organization.pk)] * 3
        tickets = [await limiter.acquire(rules, subjects, 100, f"request-{number}") for number in range(3)]
        limiter.release(tickets[0])
        await limiter.close()

    asyncio.run(count())
    text = words(sign_in(acme.ann).get("/o/acme/quotas/").content.decode())
    # A limit leaks a sixth of a request, or 17 tokens, a second: what is shown is what was counted, or just below.
    assert re.search(r" 10 [23] used, [78] left ", text)
    tokens = re.search(r" 1,000 (\d+) used, (\d+) left ", text)
    assert tokens is not None
    assert 100 < int(tokens[1]) <= 300
    assert int(tokens[1]) + int(tokens[2]) == 1000
    assert " 5 2 used, 3 left " in text


def test_without_redis_the_limits_are_shown_alone(acme: Cast, sign_in: SignIn, settings: Any) -> None:
    set_quota(acting_user=None, scope="team", target=acme.search, metric=REQUESTS, limit=77)
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    text = words(sign_in(acme.ann).get("/o/acme/quotas/").content.decode())
    assert " 77 " in text
    assert "used," not in text


def test_the_plans_limit_gives_way_to_the_organizations_own(acme: Cast, sign_in: SignIn) -> None:
    plan = create_plan(acting_user=None, name="enterprise")
    set_quota(acting_user=None, scope="plan", target=plan, metric=REQUESTS, limit=6000)
    update_organization(acting_user=None, organization=acme.organization, plan=plan)
    set_quota(acting_user=None, scope="organization", target=acme.organization, metric=REQUESTS, limit=8000)
    html = sign_in(acme.ann).get("/o/acme/quotas/").content.decode()
    assert "8,000" in html
    assert "6,000" not in html


def test_limits_on_one_model_group_stand_beside_those_on_all(acme: Cast, sign_in: SignIn) -> None:
    client, layer = sign_in(acme.ann), f"team-{acme.search.pk}"
    save(client, layer, concurrency="9")
    page = reverse("console:quotas", args=["acme"])
    html = client.get(f"{page}?edit={layer}&model=fast").content.decode()
    assert 'name="model_group" value="fast"' in html
    save(client, layer, model_group="fast", concurrency="3", budget_day="5")
    assert limits_of(team=acme.search, model_group="fast") == {
        ("concurrency", ""): Decimal(3),
        ("budget", "day"): Decimal(5),
    }
    assert limits_of(team=acme.search, model_group="") == {("concurrency", ""): Decimal(9)}
    shown = client.get(page).content.decode()
    assert f'id="{layer}-for-fast"' in shown
    assert "Search for fast" in shown
    # The key's page shows it among what limits the key.
    key = client.get(reverse("console:key", args=["acme", acme.search_key.pk])).content.decode()
    assert "Search for fast" in key
    save(client, layer, model_group="fast")
    assert not Quota.objects.filter(model_group="fast").exists()


def test_a_model_group_that_is_none_cannot_be_limited(acme: Cast, sign_in: SignIn) -> None:
    assert save(sign_in(acme.ann), "organization", model_group="nonesuch", concurrency="3").status_code == 404
    assert not Quota.objects.exists()


def test_a_limit_is_raised_for_a_while_in_the_organizations_time_zone(acme: Cast, sign_in: SignIn) -> None:
    budget_of(acme, limit="10.00", spent="9", held="0")
    quota, client = Quota.objects.get(), sign_in(acme.ann)
    page, address = (
        reverse("console:quotas", args=["acme"]),
        reverse("console:quota_raise", args=["acme", quota.pk]),
    )
    assert "Raise for a while" in client.get(f"{page}?raise={quota.pk}").content.decode()
    client.post(address, {"to": "25", "until_at": "2099-07-01T12:00"})
    quota.refresh_from_db()
    # Noon in Berlin's summer is ten o'clock UTC.
    assert (quota.raised_to, quota.raised_until) == (Decimal(25), datetime(2099, 7, 1, 10, tzinfo=UTC))
    assert Budget.objects.get(quota=quota).raised_to == Decimal(25)
    text = words(client.get(page).content.decode())
    assert "$9.00 of $25.00" in text
    assert "raised from $10.00 until" in text
    client.post(address, {"end": "1"})
    quota.refresh_from_db()
    assert (quota.raised_to, quota.raised_until) == (None, None)


@pytest.mark.parametrize(("to", "until"), [("5", "2099-07-01T12:00"), ("25", "2020-01-01T12:00"), ("25", "")])
def test_an_increase_that_makes_no_sense_is_told_and_changes_nothing(
    acme: Cast, sign_in: SignIn, to: str, until: str
) -> None:
    budget_of(acme, limit="10.00", spent="9", held="0")
    address = reverse("console:quota_raise", args=["acme", Quota.objects.get().pk])
    response = sign_in(acme.ann).post(address, {"to": to, "until_at": until})
    assert response.status_code == 422
    assert f'value="{to}"' in response.content.decode()
    assert Quota.objects.get().raised_to is None


def test_only_who_may_set_a_limit_may_raise_it(acme: Cast, other: Cast, sign_in: SignIn) -> None:
    budget_of(acme, limit="10.00", spent="9", held="0")
    number = Quota.objects.get().pk
    raised = {"to": "25", "until_at": "2099-07-01T12:00"}
    # Bob manages one team's quotas, not the organization's.
    assert (
        sign_in(acme.bob).post(reverse("console:quota_raise", args=["acme", number]), raised).status_code
        == 403
    )
    elsewhere = reverse("console:quota_raise", args=["other", number])
    assert sign_in(other.ann).post(elsewhere, raised).status_code == 404
    assert Quota.objects.get().raised_to is None
