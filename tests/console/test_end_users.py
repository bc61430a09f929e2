"""End users in the console: who they are, what each spent, their limits, and blocking."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_scopes import scope, scopes_disabled

from billing.calendars import period_bounds
from billing.models import BlockedEndUser, Budget, Quota
from billing.services.end_users import block_end_user
from billing.services.quotas import set_quota
from tenants.models import AuditEntry
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, make_member, make_tenant, rollup

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),
]
LIST = "/o/acme/end-users/"
MARCH = "from=2026-03-01&to=2026-03-31"


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


SignedIn = Callable[..., Client]


@pytest.fixture
def signed_in(acme: Tenant) -> SignedIn:
    def client_of(role: Role, *team: Any) -> Client:
        client = Client()
        client.force_login(make_member(acme.organization, f"{role.value}@acme.example", role, *team).user)
        return client

    return client_of


@pytest.fixture
def used(acme: Tenant) -> Tenant:
    """Three end users in March, and a request that named none."""
    rollup(acme.batch, "2026-03-02T10:00", "2.50", end_user="cust-1", requests=4, input_tokens=100)
    rollup(acme.banner, "2026-03-09T10:00", "0.75", end_user="cust-1", requests=1, errors=1)
    rollup(acme.batch, "2026-03-05T10:00", "1.25", end_user="cust-2", requests=40)
    rollup(acme.batch, "2026-03-20T10:00", "0", end_user="Other/3", requests=2)
    rollup(acme.batch, "2026-03-20T10:00", "9", requests=9)
    return acme


def cells(page: str) -> list[list[str]]:
    """The cells of the list's table."""
    rows = page[page.index("<tbody>") : page.index("</tbody>")].split("<tr>")[1:]
    return [
        [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.split(r"<td[^>]*>", row)[1:]]
        for row in rows
    ]


def names(client: Client, query: str = MARCH) -> list[str]:
    page = client.get(f"{LIST}?{query}").content.decode()
    return [row[0] for row in cells(page)] if "<tbody>" in page else []


def test_the_list_has_who_was_named_with_spend_requests_and_last_day(
    used: Tenant, signed_in: SignedIn
) -> None:
    page = signed_in(Role.FINANCE).get(f"{LIST}?{MARCH}").content.decode()
    # cust-1: 2.50 + 0.75 by 4 + 1 requests, of which 1 failed.
    assert cells(page) == [
        ["cust-1", "$3.25 0000", "5 1 failed or refused", "100", "9 Mar 2026", "None", "Served"],
        ["cust-2", "$1.25 0000", "40", "0", "5 Mar 2026", "None", "Served"],
        ["Other/3", "$0.00 0000", "2", "0", "20 Mar 2026", "None", "Served"],
    ]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("charge", ["cust-1", "cust-2", "Other/3"]),
        ("requests", ["cust-2", "cust-1", "Other/3"]),
        # By bytes, as the pages are.
        ("name", ["Other/3", "cust-1", "cust-2"]),
        ("nonsense", ["cust-1", "cust-2", "Other/3"]),
    ],
)
def test_the_list_is_sorted_as_asked(used: Tenant, signed_in: SignedIn, sort: str, order: list[str]) -> None:
    assert names(signed_in(Role.OWNER), f"{MARCH}&sort={sort}") == order


@pytest.mark.parametrize("sort", ["charge", "requests", "name"])
def test_pages_in_every_order_show_each_end_user_once(
    acme: Tenant, signed_in: SignedIn, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pairs of equals, so that a page ends in the midst of some.
    for number in range(9):
        rollup(acme.batch, f"2026-03-{10 + number // 2:02}T10:00", f"{number // 2}", end_user=f"u{number}")
    monkeypatch.setattr("gateway.console.end_users.PAGE", 2)
    client, found = signed_in(Role.OWNER), list[str]()
    address = f"{LIST}?{MARCH}&sort={sort}"
    for _ in range(5):
        page = client.get(address).content.decode()
        found += [row[0] for row in cells(page)]
        older = re.search(r'href="(\?[^"]*)" rel="next"', page)
        address = LIST + older[1].replace("&amp;", "&") if older else ""
    assert address == ""
    assert sorted(found) == [f"u{number}" for number in range(9)]


def test_a_place_that_is_none_begins_anew(used: Tenant, signed_in: SignedIn) -> None:
    assert len(names(signed_in(Role.OWNER), f"{MARCH}&after=NaN~x")) == 3


def test_search_finds_a_part_of_an_id_whatever_its_case(used: Tenant, signed_in: SignedIn) -> None:
    client = signed_in(Role.OWNER)
    assert names(client, f"{MARCH}&q=OTHER%2F") == ["Other/3"]
    # These stand for nothing but themselves.
    assert names(client, f"{MARCH}&q=%25") == []
    page = client.get(f"{LIST}?{MARCH}&q=cust_9").content.decode()
    assert "No end user matches" in page
    assert f"{LIST}one/?id=cust_9" in page


def test_who_is_blocked_or_has_own_limits_is_listed_without_usage_too(
    used: Tenant, signed_in: SignedIn
) -> None:
    organization = used.organization
    block_end_user(acting_user=None, organization=organization, end_user="gone")
    block_end_user(acting_user=None, organization=organization, end_user="cust-2")
    set_quota(
        acting_user=None, scope="end_user", target=organization, end_user="vip", metric="concurrency", limit=9
    )
    client = signed_in(Role.OWNER)
    assert names(client) == ["cust-1", "cust-2", "Other/3", "gone", "vip"]
    assert names(client, f"{MARCH}&standing=blocked") == ["cust-2", "gone"]
    assert names(client, f"{MARCH}&standing=limited") == ["vip"]


def test_who_looks_after_a_team_sees_those_who_used_it_alone(used: Tenant, signed_in: SignedIn) -> None:
    block_end_user(acting_user=None, organization=used.organization, end_user="gone")
    client = signed_in(Role.MEMBER, used.ads)
    page = client.get(f"{LIST}?{MARCH}").content.decode()
    # What the team ads had of cust-1.
    assert [row[:3] for row in cells(page)] == [["cust-1", "$0.75 0000", "1 1 failed or refused"]]


def test_without_end_users_the_page_teaches_how_to_name_them(acme: Tenant, signed_in: SignedIn) -> None:
    page = signed_in(Role.OWNER).get(LIST).content.decode()
    assert "user=&quot;customer-42&quot;" in page or 'user="customer-42"' in page
    assert "X-End-User" in page


def month_budget(acme: Tenant, end_user: str, limit: str) -> Quota:
    return set_quota(
        acting_user=None,
        scope="end_user",
        target=acme.organization,
        end_user=end_user,
        metric="budget",
        limit=Decimal(limit),
        period="month",
    )


def test_the_list_shows_the_budget_that_binds_each(acme: Tenant, signed_in: SignedIn) -> None:
    default, own = month_budget(acme, "", "10"), month_budget(acme, "vip", "100")
    now = datetime.now(UTC)
    start, end = period_bounds("month", now, acme.organization.time_zone)
    hour = max(start, now - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    # Both have a counter but ann, for whom the hours are asked.
    for quota, subject, spent in ((default, "bob", "4"), (own, "vip", "25")):
        Budget.objects.create(
            organization=acme.organization,
            quota=quota,
            subject=subject,
            period_start=start,
            period_end=end,
            limit=quota.limit,
            spent=Decimal(spent),
        )
    for subject, charge in (("ann", "3"), ("bob", "2"), ("vip", "1")):
        rollup(acme.batch, f"{hour:%Y-%m-%dT%H:%M}", charge, end_user=subject)
    page = signed_in(Role.OWNER).get(LIST).content.decode()
    assert {row[0]: row[5] for row in cells(page)} == {
        "ann": "$3.00 of $10.00 a month",
        "bob": "$4.00 of $10.00 a month",
        "vip": "$25.00 of $100.00 a month own",
    }


def test_the_download_has_every_end_user_exactly(used: Tenant, signed_in: SignedIn) -> None:
    block_end_user(
        acting_user=None, organization=used.organization, end_user="cust-2", reason="=HYPERLINK(1)"
    )
    client = signed_in(Role.FINANCE)
    body = b"".join(client.get(f"{LIST}end-users.csv?{MARCH}")).decode()
    lines = list(csv.DictReader(io.StringIO(body)))
    assert [(line["end_user"], Decimal(line["charge"]), line["requests"]) for line in lines] == [
        ("cust-1", Decimal("3.25"), "5"),
        ("cust-2", Decimal("1.25"), "40"),
        ("Other/3", Decimal(0), "2"),
    ]
    assert (lines[1]["last_day"], lines[1]["blocked_reason"]) == ("2026-03-05", "'=HYPERLINK(1)")
    assert client.get(f"{LIST}end-users.csv?from=soon").status_code == 400


def test_the_lists_questions_do_not_grow_with_its_rows(acme: Tenant, signed_in: SignedIn) -> None:
    month_budget(acme, "", "10")
    client = signed_in(Role.OWNER)

    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(LIST)
        return len(queries)

    hour = f"{datetime.now(UTC):%Y-%m-%dT%H:00}"
    rollup(acme.batch, hour, "1", end_user="first")
    asked()
    one = asked()
    for number in range(30):
        rollup(acme.batch, hour, "1", end_user=f"u{number}")
        month_budget(acme, f"u{number}", "5")
    assert asked() == one


# --- One end user -----------------------------------------------------------------------------------


def one(end_user: str = "cust-1", more: str = "") -> str:
    return f"{LIST}one/?id={end_user}{more}"


def test_an_id_can_hold_any_character(acme: Tenant, signed_in: SignedIn) -> None:
    hour = f"{datetime.now(UTC):%Y-%m-%dT%H:00}"
    strange = "a/b?c=d&e #%f<b>"
    rollup(acme.batch, hour, "1.5", end_user=strange)
    client = signed_in(Role.OWNER)
    page = client.get(LIST).content.decode()
    link = re.search(r'href="(/o/acme/end-users/one/\?id=[^"]*)"', page)
    assert link is not None
    page = client.get(link[1].replace("&amp;", "&")).content.decode()
    assert "a/b?c=d&amp;e #%f&lt;b&gt;</h1>" in page
    assert "$1.50" in page


@pytest.mark.parametrize("query", ["", "?id=", "?id=" + "x" * 257])
def test_what_can_be_no_end_user_is_not_found(acme: Tenant, signed_in: SignedIn, query: str) -> None:
    assert signed_in(Role.OWNER).get(f"{LIST}one/{query}").status_code == 404


LIMITS = {
    "id": "cust-1",
    "requests_per_minute": "",
    "tokens_per_minute": "",
    "concurrency": "",
    "budget_day": "",
    "budget_week": "",
    "budget_month": "",
    "budget_total": "",
    "alert_at": "",
}


def test_own_limits_are_set_and_given_up_for_the_default(acme: Tenant, signed_in: SignedIn) -> None:
    default = month_budget(acme, "", "10")
    client = signed_in(Role.ADMIN)
    answer = client.post(f"{LIST}limits/", {**LIMITS, "budget_month": "2.5", "requests_per_minute": "7"})
    assert answer.headers["Location"] == f"{LIST}one/?id=cust-1"

    def limits() -> set[tuple[str, str, Decimal]]:
        with scope(organization=acme.organization):
            return {(quota.end_user, quota.metric, quota.limit) for quota in Quota.objects.all()}

    own = {("cust-1", "budget", Decimal("2.5")), ("cust-1", "requests_per_minute", Decimal(7))}
    assert limits() == {("", "budget", default.limit), *own}
    page = client.get(one()).content.decode()
    assert 'of <span class="num">$2.50</span> a month' in page
    assert "$10.00" not in page
    # Of another end user the default holds.
    assert "$10.00" in client.get(one("cust-2")).content.decode()
    client.post(f"{LIST}limits/", {"id": "cust-1", "default": "1"})
    assert limits() == {("", "budget", default.limit)}
    with scope(organization=acme.organization):
        removed = AuditEntry.objects.filter(verb="removed")
        assert {entry.detail["end_user"] for entry in removed} == {"cust-1"}


def test_a_wrong_limit_keeps_what_was_typed(acme: Tenant, signed_in: SignedIn) -> None:
    answer = signed_in(Role.OWNER).post(f"{LIST}limits/", {**LIMITS, "budget_day": "-1", "concurrency": "6"})
    assert answer.status_code == 422
    page = answer.content.decode()
    assert 'value="-1"' in page
    assert 'value="6"' in page
    with scopes_disabled():
        assert not Quota.objects.exists()


def test_blocking_and_unblocking_are_written_down_with_who_and_why(acme: Tenant, signed_in: SignedIn) -> None:
    client = signed_in(Role.ADMIN)
    client.post(f"{LIST}standing/", {"id": "cust-1", "do": "block", "reason": " Spam "})
    with scope(organization=acme.organization):
        block = BlockedEndUser.objects.get()
        entry = AuditEntry.objects.get(target_type="blockedenduser")
    assert block.blocked_by is not None
    assert (block.end_user, block.reason, block.blocked_by.email) == ("cust-1", "Spam", "admin@acme.example")
    assert (entry.verb, entry.target_label, entry.detail) == ("blocked", "cust-1", {"reason": "Spam"})
    page = client.get(one()).content.decode()
    assert "end_user_blocked" in page
    assert "by admin@acme.example: Spam" in page
    client.post(f"{LIST}standing/", {"id": "cust-1", "do": "unblock"})
    with scope(organization=acme.organization):
        assert not BlockedEndUser.objects.exists()
        assert AuditEntry.objects.filter(verb="unblocked", target_label="cust-1").count() == 1
    assert client.post(f"{LIST}standing/", {"id": "cust-1", "do": "delete"}).status_code == 404


def test_who_may_not_see_all_usage_is_not_told_why_somebody_is_blocked(
    acme: Tenant, signed_in: SignedIn
) -> None:
    block_end_user(acting_user=None, organization=acme.organization, end_user="cust-1", reason="Stolen card")
    page = signed_in(Role.MEMBER, acme.ads).get(one()).content.decode()
    assert "Every request for this end user is refused" in page
    assert "Stolen card" not in page
    assert "Unblock" not in page
