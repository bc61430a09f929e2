"""The request list and the page of one request."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing import rollups
from billing.models import DirtyBucket, Price, Quota
from routing.models import ModelGroup
from tenants.models import ApiKey, Membership
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_member, make_tenant, utc

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),
]

LIST = "/o/acme/requests/"
MARCH = "from=2026-03-01&to=2026-03-31"


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def signed_in(membership: Membership) -> Client:
    client = Client()
    client.force_login(membership.user)
    return client


@pytest.fixture
def owner(acme: Tenant) -> Client:
    return signed_in(make_member(acme.organization, "owner@acme.example", Role.OWNER))


def listed(client: Client, query: str = MARCH) -> list[str]:
    """The ids of the requests on the page."""
    return [row["event"].request_id for row in client.get(f"{LIST}?{query}").context["rows"]]


def text_of(page: str) -> str:
    """What a reader sees, with single spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<title>.*?</title>", "", page, flags=re.DOTALL)).split())


def detail(client: Client, request_id: str) -> str:
    response = client.get(f"{LIST}{request_id}/")
    assert response.status_code == 200
    return text_of(response.content.decode())


def test_pages_follow_on_without_gap_or_repetition_newest_first(acme: Tenant, owner: Client) -> None:
    # 120 requests, four of them at each moment, so that pages of 50 end within a moment.
    for number in range(120):
        event(acme.backend, f"2026-03-10T10:{number // 4:02}:00", f"req-{number:03}")
    expected = [f"req-{number:03}" for number in reversed(range(120))]
    seen, address = [], f"?{MARCH}"
    sizes = []
    while address:
        context = owner.get(f"{LIST}{address}").context
        ids = [row["event"].request_id for row in context["rows"]]
        seen += ids
        sizes.append(len(ids))
        address = context["older"]
    assert seen == expected
    assert sizes == [50, 50, 20]


def test_a_request_that_arrives_meanwhile_moves_nothing(acme: Tenant, owner: Client) -> None:
    for number in range(51):
        event(acme.backend, f"2026-03-10T10:{number:02}:00", f"req-{number:03}")
    older = owner.get(f"{LIST}?{MARCH}").context["older"]
    event(acme.backend, "2026-03-11T10:00", "newer")
    assert [row["event"].request_id for row in owner.get(f"{LIST}{older}").context["rows"]] == ["req-000"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("team=ads", ["banner-ok"]),
        ("model=best", ["best-429"]),
        ("end_user=u1", ["u1-502"]),
        ("status=ok", ["ok", "banner-ok"]),
        ("status=429", ["best-429"]),
        ("status=4xx", ["best-429", "gone-499"]),
        ("status=5xx", ["u1-502"]),
        ("status=failed", ["best-429", "u1-502", "gone-499"]),
        ("end=client_gone", ["gone-499"]),
        ("status=failed&model=fast&end_user=u1", ["u1-502"]),
        ("charge=0.05", ["banner-ok"]),
        ("charge=0.0500001", []),
    ],
)
def test_filters(acme: Tenant, owner: Client, query: str, expected: list[str]) -> None:
    event(acme.backend, "2026-03-10T10:04", "ok")
    event(acme.banner, "2026-03-10T10:03", "banner-ok", "0.05")
    event(acme.batch, "2026-03-10T10:02", "best-429", model_group="best", status=429, end_reason="refused")
    event(acme.batch, "2026-03-10T10:01", "u1-502", end_user="u1", status=502, end_reason="provider_error")
    event(acme.backend, "2026-03-10T10:00", "gone-499", status=499, end_reason="client_gone")
    assert listed(owner, f"{MARCH}&{query}") == expected


def test_a_key_filter_lists_that_key(acme: Tenant, owner: Client) -> None:
    event(acme.backend, "2026-03-10T10:00", "one")
    event(acme.batch, "2026-03-10T10:00", "two")
    assert listed(owner, f"{MARCH}&key={acme.batch.pk}") == ["two"]
    assert listed(owner, f"{MARCH}&member={acme.ann.pk}") == ["one"]
    assert listed(owner, f"{MARCH}&member=none") == ["two"]


def test_the_list_begins_with_the_last_seven_days(acme: Tenant, owner: Client) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    event(acme.backend, (now - timedelta(minutes=5)).isoformat(), "recent")
    event(acme.backend, (now - timedelta(days=8)).isoformat(), "old")
    assert listed(owner, "") == ["recent"]


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=2026-03-01~a",
        "status=9",
        "end=sideways",
        "from=x",
        "key=x",
        "charge=-1",
        "charge=NaN",
        "tag=search",
        "tag=a%3Db%2Cc%3Dd",
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(acme: Tenant, owner: Client, query: str) -> None:
    response = owner.get(f"{LIST}?{query}")
    assert response.status_code == 200
    assert f"{query.split('=', maxsplit=1)[0]}: " in response.context["problem"]


def tagged(key: ApiKey, at: str, name: str, **tags: str) -> None:
    event(key, at, name, tags=tags)
    with scopes_disabled():
        DirtyBucket.objects.create(organization=key.organization, hour=utc(at).replace(minute=0))
    while rollups.refresh():
        pass


def test_a_tag_narrows_the_list_beside_other_filters(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2026-03-10T10:00", "search", feature="search")
    tagged(acme.banner, "2026-03-10T10:01", "ads", feature="search")
    tagged(acme.backend, "2026-03-10T10:02", "chat", feature="chat")
    assert listed(owner, f"{MARCH}&tag=feature%3Dsearch") == ["ads", "search"]
    assert listed(owner, f"{MARCH}&tag=feature%3Dsearch&team=ads") == ["ads"]
    assert listed(owner, f"{MARCH}&tag=feature%3D") == []
    page = owner.get(f"{LIST}?{MARCH}&tag=feature%3D").content.decode()
    assert "Tag without feature" in text_of(page)


def test_who_sees_some_teams_is_offered_no_values_and_finds_no_others_requests(acme: Tenant) -> None:
    tagged(acme.backend, "2026-03-10T10:00", "search", feature="search")
    tagged(acme.banner, "2026-03-10T10:01", "ads", feature="secret")
    lead = signed_in(make_member(acme.organization, "lead@acme.example", Role.MEMBER, acme.search))
    page = lead.get(f"{LIST}?{MARCH}")
    assert page.context["tags"] == []
    assert "secret" not in page.content.decode()
    assert listed(lead, f"{MARCH}&tag=feature%3Dsearch") == ["search"]
    assert listed(lead, f"{MARCH}&tag=feature%3Dsecret") == []


def test_a_rare_tag_says_how_far_back_it_was_looked_for(acme: Tenant, owner: Client) -> None:
    for day in range(1, 28):
        tagged(acme.banner if day > 1 else acme.backend, f"2026-03-{day:02}T10:00", f"req-{day}", a="b")
    page = owner.get(f"{LIST}?{MARCH}&tag=a%3Db&team=search")
    assert page.context["rows"] == []
    assert "Those before have not been looked at" in text_of(page.content.decode())
    assert [row["event"].request_id for row in owner.get(LIST + page.context["older"]).context["rows"]] == [
        "req-1"
    ]


def test_the_page_of_a_request_leads_to_those_with_its_tag(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2026-03-10T10:00", "one", feature="R&D")
    page = owner.get(f"{LIST}one/").content.decode()
    assert f'href="{LIST}?tag=feature%3DR%26D"' in page


def test_the_download_has_the_requests_that_the_filters_find(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2026-03-10T10:00", "search", feature="search")
    tagged(acme.backend, "2026-03-10T10:01", "chat", feature="chat")
    event(acme.backend, "2026-03-10T10:02", "failed", status=502, tags={"feature": "search"})
    for query, expected in (
        ("tag=feature%3Dsearch", ["search", "failed"]),
        ("tag=feature%3Dsearch&status=ok", ["search"]),
        ("status=5xx", ["failed"]),
    ):
        response: Any = owner.get(f"/o/acme/costs/usage.csv?{MARCH}&{query}")
        lines = csv.DictReader(io.StringIO(b"".join(response).decode()))
        assert [line["request_id"] for line in lines] == expected
        found = owner.get(f"/api/organizations/acme/usage?{MARCH}&{query}").json()["data"]
        assert [line["request_id"] for line in found] == expected


def test_an_id_opens_its_request_whenever_it_was(acme: Tenant, owner: Client) -> None:
    event(acme.backend, "2025-03-10T10:00", "req-old")
    assert owner.get(f"{LIST}?id=req-old").headers["Location"] == f"{LIST}req-old/"
    response = owner.get(f"{LIST}?id=req-none")
    assert response.status_code == 200
    assert "There is no request req-none" in text_of(response.content.decode())


def test_a_member_sees_and_opens_requests_of_their_own_keys_only(acme: Tenant) -> None:
    event(acme.backend, "2026-03-10T10:00", "mine")
    event(acme.batch, "2026-03-10T10:00", "not-mine")
    client = signed_in(acme.ann)
    assert listed(client) == ["mine"]
    assert client.get(f"{LIST}mine/").status_code == 200
    assert client.get(f"{LIST}not-mine/").status_code == 404
    assert client.get(f"{LIST}?id=not-mine").status_code == 200


def test_a_team_admin_sees_the_teams_requests(acme: Tenant) -> None:
    event(acme.backend, "2026-03-10T10:00", "search")
    event(acme.banner, "2026-03-10T10:00", "ads")
    assert listed(signed_in(make_member(acme.organization, "lead@acme.example", Role.MEMBER, acme.ads))) == [
        "ads"
    ]


def test_another_tenants_request_does_not_exist(acme: Tenant, owner: Client) -> None:
    event(make_tenant("globex").backend, "2026-03-10T10:00", "theirs")
    assert listed(owner) == []
    assert owner.get(f"{LIST}theirs/").status_code == 404
    assert owner.get("/o/globex/requests/theirs/").status_code == 404


def test_the_page_explains_the_charge(acme: Tenant, owner: Client) -> None:
    group = ModelGroup.objects.create(name="fast")
    price = Price.objects.create(
        model_group=group, effective_from=utc("2026-01-01"), input=Decimal("0.30"), output=Decimal("2.40")
    )
    event(
        acme.backend, "2026-03-10T10:00", "req-1", "0.0033", charge_price_id=price.pk, cost=Decimal("0.00275"),
        input_tokens=1000, output_tokens=1250, reasoning_tokens=250, first_token_ms=120, duration_ms=2500,
    )  # fmt: skip
    shown = detail(owner, "req-1")
    assert "Price of the model fast since 1 Jan 2026" in shown
    assert "Input 1,000 $0.30 / million $0.0003" in shown
    assert "Output 250 of them for reasoning 1,250 $2.40 / million $0.003" in shown
    assert "Charge $0.0033" in shown
    assert "2.5 s First token after 120 ms" in shown
    assert "0.00275" not in shown


def test_the_page_shows_every_attempt_in_order(acme: Tenant, owner: Client) -> None:
    event(
        acme.backend, "2026-03-10T10:00", "req-1", duration_ms=1000,
        attempts=[
            {"deployment": "first", "provider": "p1", "status": 429, "reason": "rate_limited",
             "started_ms": 10, "first_token_ms": None, "duration_ms": 240},
            {"deployment": "second", "provider": "p2", "status": 200, "reason": "ok",
             "started_ms": 250, "first_token_ms": 500, "duration_ms": 750},
        ],
    )  # fmt: skip
    page = owner.get(f"{LIST}req-1/").content.decode()
    shown = text_of(page)
    assert "first p1 Rate limited 429 10 ms \N{EN DASH} 240 ms" in shown
    assert "second p2 Answered 200 250 ms 500 ms 750 ms" in shown
    # Of 1000 ms: from 1 % for 24 %, then from 25 % for 75 % with the first token at 50 %.
    assert re.findall(r'class="(good|bad)" x="([0-9.]+)%" y="\d+" width="([0-9.]+)%"', page) == [
        ("bad", "1.000", "24.000"),
        ("good", "25.000", "75.000"),
    ]
    assert 'class="mark" x1="50.000%"' in page


def test_a_request_refused_by_a_budget_names_the_budgets_that_bind_it(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        for scope, target in (("team", acme.search), ("key", acme.backend)):
            Quota.objects.create(
                organization=acme.organization, scope=scope, **{scope: target}, metric="budget", period="day",
                limit=Decimal(5),
            )  # fmt: skip
        Quota.objects.create(
            organization=acme.organization,
            scope="key",
            key=acme.banner,
            metric="budget",
            period="day",
            limit=Decimal(77),
        )
        Quota.objects.create(
            organization=acme.organization, scope="organization", metric="concurrency", limit=Decimal(88)
        )
    event(
        acme.backend,
        "2026-03-10T10:00",
        "req-1",
        status=429,
        end_reason="refused",
        error_code="insufficient_quota",
    )
    shown = detail(owner, "req-1")
    assert "A budget of this gateway did not cover the request." in shown
    assert "Team: $5.00 a day" in shown
    assert "Key: $5.00 a day" in shown
    assert "77" not in shown
    assert "88" not in shown
    assert "No provider was tried." in shown


def test_the_limit_that_the_gateway_recorded_is_shown_in_its_words(acme: Tenant, owner: Client) -> None:
    event(
        acme.backend, "2026-03-10T10:00", "req-1", status=429, end_reason="refused", error_code="rate_limit_exceeded",
        tags={"weir.refused_by": "Rate limit reached for team search: 5 requests per minute", "feature": "chat"},
    )  # fmt: skip
    shown = detail(owner, "req-1")
    assert "Rate limit reached for team search: 5 requests per minute" in shown
    assert "Tag feature chat" in shown
    assert "weir.refused_by" not in shown


def test_a_client_cannot_write_a_refusal_into_a_request_that_was_served(acme: Tenant, owner: Client) -> None:
    event(acme.backend, "2026-03-10T10:00", "req-1", tags={"weir.refused_by": "made up"})
    assert "made up" not in detail(owner, "req-1")


def test_what_the_gateways_own_failure_would_have_cost_is_not_charged(acme: Tenant, owner: Client) -> None:
    group = ModelGroup.objects.create(name="fast")
    price = Price.objects.create(
        model_group=group, effective_from=utc("2026-01-01"), input=Decimal(2), output=Decimal(2)
    )
    event(
        acme.backend, "2026-03-10T10:00", "req-1", charge_price_id=price.pk, input_tokens=1_000_000, status=500,
        end_reason="interrupted", usage_source="estimated",
    )  # fmt: skip
    assert "Not charged: the gateway's own failure is not your bill -$2.00" in detail(owner, "req-1").replace(
        "&#x27;", "'"
    )


def test_the_number_of_queries_does_not_grow_with_the_rows(acme: Tenant, owner: Client) -> None:
    counts = []
    for amount in (1, 40):
        for number in range(amount):
            event(acme.backend, f"2026-03-10T10:{amount:02}:{number:02}", f"req-{amount}-{number}")
        with CaptureQueriesContext(connection) as queries:
            owner.get(f"{LIST}?{MARCH}")
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_request_without_its_details_says_when_they_were_removed(acme: Tenant, owner: Client) -> None:
    event(
        acme.backend,
        "2026-03-10T10:00",
        "req-old",
        "0.25",
        status=429,
        end_reason="refused",
        tags={"app": ""},
        details_removed_at=utc("2026-06-10T23:30"),
    )
    page = detail(owner, "req-old")
    # In Berlin the next day has begun.
    assert "The details of this request were removed on 11 Jun 2026" in page
    assert "Removed on 11 Jun 2026." in page
    assert "Time to the first token removed" in page
    assert "Tag app value removed" in page
    assert "exactly $0.25" in page
    assert "No provider was tried" not in page
    assert "no reason recorded" not in page
