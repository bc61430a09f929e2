"""The costs pages: figures worked out by hand, what each person sees, downloads."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing import rollups
from billing.exports.making import make_due
from billing.models import DirtyBucket
from gateway.console.charts import Bar, bar_chart, short_money, ticks
from gateway.usage_query import today
from tenants.models import ApiKey, Membership
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_member, make_tenant, rollup, utc

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),
]

COSTS = "/o/acme/costs/"
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


def text_of(page: str) -> str:
    """What a reader sees, with single spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<title>.*?</title>", "", page, flags=re.DOTALL)).split())


def report_rows(client: Client, query: str) -> list[list[str]]:
    """The cells of the report's table, its total last."""
    page = client.get(f"{COSTS}?{query}").content.decode()
    table = page[page.index('<table class="table cards">') :].split("</table>")[0]
    rows = []
    for row in table.split("<tr")[2:]:
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.DOTALL)
        rows.append([re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", cell)).strip() for cell in cells])
    return rows


def test_the_table_shows_the_rows_and_a_total_that_adds_up(acme: Tenant, owner: Client) -> None:
    rollup(
        acme.backend, "2026-03-02T10:00", "1.5", requests=3, errors=1, input_tokens=1000, output_tokens=200
    )
    rollup(acme.banner, "2026-03-03T10:00", "0.500001", requests=1, input_tokens=24, cached_input_tokens=6)
    assert report_rows(owner, f"by=team&{MARCH}") == [
        ["search", "3", "1", "1,000", "0", "200", "$1.500000", "75%"],
        ["ads", "1", "0", "24", "6", "0", "$0.500001", "25%"],
        ["Total", "4", "1", "1,024", "6", "200", "$2.000001", "100%"],
    ]


def test_beyond_a_hundred_rows_the_rest_is_one_line_and_the_total_is_whole(
    acme: Tenant, owner: Client
) -> None:
    for number in range(103):
        rollup(acme.backend, "2026-03-02T10:00", "1", end_user=f"u{number:03}")
    rows = report_rows(owner, f"by=end_user&{MARCH}")
    assert len(rows) == 102
    assert rows[100][0] == "3 others"
    assert rows[100][-2:] == ["$3.000000", "2.9%"]
    assert rows[101][-2:] == ["$103.000000", "100%"]


def test_the_days_are_those_of_the_organizations_calendar(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-01T22:00", "1")
    rollup(acme.backend, "2026-03-01T23:00", "2")
    rows = report_rows(owner, "by=day&from=2026-03-01&to=2026-03-02")
    assert [(row[0], row[-2]) for row in rows] == [
        ("2026-03-01 Sunday", "$1.000000"),
        ("2026-03-02 Monday", "$2.000000"),
        ("Total", "$3.000000"),
    ]


def test_the_page_begins_with_this_month(acme: Tenant, owner: Client) -> None:
    response = owner.get(COSTS)
    query = response.context["query"]
    assert (query.first.day, query.first.month, query.last) == (1, query.last.month, query.last)
    assert response.context["presets"][0][2] is True


def test_filters_narrow_the_report_and_stand_in_every_link(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1", model_group="fast")
    rollup(acme.backend, "2026-03-02T10:00", "2", model_group="best")
    rollup(acme.banner, "2026-03-02T10:00", "4", model_group="best")
    response = owner.get(f"{COSTS}?by=key&{MARCH}&team=search&model=best")
    assert response.context["report"].totals.charge == 2
    assert f"{MARCH}&team=search&model=best&by=user" in html.unescape(response.content.decode())
    assert [chip["value"] for chip in response.context["chips"]] == ["search", "best"]
    assert response.context["chips"][0]["without"] == f"{MARCH}&model=best&by=key"


@pytest.mark.parametrize("by", ["user", "member", "end_user", "key", "team", "model"])
def test_the_requests_behind_a_row_are_as_many_as_it_says(acme: Tenant, owner: Client, by: str) -> None:
    for number, (key, end_user) in enumerate(
        [(acme.backend, ""), (acme.backend, "u1"), (acme.banner, ""), (acme.banner, "u1"), (acme.batch, "u2")]
    ):
        event(key, "2026-03-02T10:00", f"req-{number}", "1", end_user=end_user)
        rollup(key, "2026-03-02T10:00", "1", end_user=end_user)
    response = owner.get(f"{COSTS}?by={by}&{MARCH}")
    rows = response.context["rows"]
    assert sum(row.sums.requests for row, *_ in rows) == 5
    for row, _, link, _ in rows:
        listed = owner.get(f"/o/acme/requests/?{link}").context["rows"]
        assert len(listed) == row.sums.requests, row.label


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("from=march", "from: “march” is no date"),
        ("from=2026-03-02&to=2026-03-01", "the last day is before the first"),
        ("from=2020-01-01&to=2026-03-01", "at most 400 days"),
        ("from=0001-01-01", "from: 0001-01-01 is out of range"),
        ("team=nobody", "there is no team “nobody”"),
        ("key=1%20or%201", "key: “1 or 1” is no id"),
        ("member=99999999999999999999", "is no id"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named_and_nothing_breaks(
    acme: Tenant, owner: Client, query: str, message: str
) -> None:
    response = owner.get(f"{COSTS}?{query}")
    assert response.status_code == 200
    assert message in text_of(response.content.decode())
    assert owner.get(f"{COSTS}report.csv?{query}").status_code == 400
    assert owner.get(f"{COSTS}usage.csv?{query}").status_code == 400


def test_another_tenants_team_and_key_narrow_to_nothing(acme: Tenant, owner: Client) -> None:
    globex = make_tenant("globex")
    rollup(globex.backend, "2026-03-02T10:00", "7")
    rollup(acme.backend, "2026-03-02T10:00", "1")
    response = owner.get(f"{COSTS}?{MARCH}&key={globex.backend.pk}")
    assert response.context["report"].totals.requests == 0
    assert "backend" not in text_of(response.content.decode()).replace("search / backend", "")


def test_a_member_sees_what_their_own_keys_used(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1")  # ann's
    rollup(acme.batch, "2026-03-02T10:00", "2")
    client = signed_in(acme.ann)
    response = client.get(f"{COSTS}?by=key&{MARCH}")
    assert [row.label for row, *_ in response.context["rows"]] == ["backend"]
    shown = text_of(response.content.decode())
    assert "You see what your own keys used." in shown
    assert "batch" not in shown
    assert client.get(f"{COSTS}?by=key&{MARCH}&key={acme.batch.pk}").context["report"].rows == []


def test_a_team_admin_sees_the_team(acme: Tenant) -> None:
    lead = make_member(acme.organization, "lead@acme.example", Role.MEMBER, acme.ads)
    rollup(acme.backend, "2026-03-02T10:00", "1")
    rollup(acme.banner, "2026-03-02T10:00", "2")
    response = signed_in(lead).get(f"{COSTS}?by=key&{MARCH}")
    assert [row.label for row, *_ in response.context["rows"]] == ["banner"]


def test_what_providers_ask_is_shown_to_operators_alone(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "8.64", cost=Decimal("7.31"))
    operator = make_member(acme.organization, "op@weir.example", Role.OWNER)
    operator.user.is_staff = True
    operator.user.save(update_fields=["is_staff"])
    staff = signed_in(operator)
    for path in (f"{COSTS}?{MARCH}", f"{COSTS}report.csv?{MARCH}"):
        shown, seen = (b"".join(client.get(path)).decode() for client in (staff, owner))
        assert "7.31" in shown
        assert "1.33" in shown
        assert "7.31" not in seen
        assert "1.33" not in seen
    assert owner.get(f"{COSTS}report.csv?{MARCH}&by=deployment").status_code == 400
    assert staff.get(f"{COSTS}report.csv?{MARCH}&by=deployment").status_code == 200


def test_the_report_as_csv_has_every_row_exactly(acme: Tenant, owner: Client) -> None:
    rollup(
        acme.backend,
        "2026-03-02T10:00",
        "0.000000000001",
        requests=2,
        errors=1,
        input_tokens=5,
        end_user="=1+1",
    )
    rollup(acme.banner, "2026-03-02T10:00", "3", output_tokens=9, reasoning_tokens=4, cache_write_tokens=2)
    response = owner.get(f"{COSTS}report.csv?by=end_user&{MARCH}")
    assert response["Content-Disposition"] == (
        'attachment; filename="costs-by-end_user-acme-2026-03-01-2026-03-31.csv"'
    )
    assert b"".join(response).decode() == (
        "end_user,id,detail,requests,errors,input_tokens,cached_input_tokens,cache_write_tokens,"
        "output_tokens,reasoning_tokens,charge,currency\r\n"
        "Not named,,,1,0,0,0,2,9,4,3.00,USD\r\n"
        "'=1+1,'=1+1,,2,1,5,0,0,0,0,0.000000000001,USD\r\n"
    )


def test_the_usage_download_is_streamed_without_the_providers_cost(acme: Tenant, owner: Client) -> None:
    event(acme.backend, "2026-03-02T10:00", "req-1", "4")
    event(make_tenant("globex").backend, "2026-03-02T10:00", "theirs", "4")
    response = owner.get(f"{COSTS}usage.csv?{MARCH}")
    assert response.streaming
    rows = list(csv.DictReader(io.StringIO(b"".join(response).decode(), newline="")))
    assert [(row["request_id"], row["cost"], row["charge"]) for row in rows] == [("req-1", "", "4.00")]
    lines = b"".join(owner.get(f"{COSTS}usage.jsonl?{MARCH}&team=ads"))
    assert lines == b""


@pytest.mark.parametrize("what", ["report", "usage", "focus"])
@pytest.mark.parametrize("format_", ["csv", "jsonl", "xlsx"])
def test_every_download_is_a_file_with_its_name(acme: Tenant, owner: Client, what: str, format_: str) -> None:
    event(acme.backend, "2026-03-02T10:00", "req-1", "4")
    rollup(acme.backend, "2026-03-02T10:00", "4")
    response = owner.get(f"{COSTS}{what}.{format_}?{MARCH}")
    content = b"".join(response)
    name = {"report": "costs-by-user"}.get(what, what)
    assert response["Content-Disposition"] == (
        f'attachment; filename="{name}-acme-2026-03-01-2026-03-31.{format_}"'
    )
    assert (content[:4] == b"PK\x03\x04") == (format_ == "xlsx")
    assert format_ == "xlsx" or b"4.00" in content


def test_a_filter_narrows_the_focus_download(acme: Tenant, owner: Client) -> None:
    event(acme.backend, "2026-03-02T10:00", "req-1", "4")
    event(acme.banner, "2026-03-02T10:00", "req-2", "8")
    content = b"".join(owner.get(f"{COSTS}focus.csv?{MARCH}&team=ads")).decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [(row["ResourceName"], row["BilledCost"]) for row in rows] == [("banner", "8.00")]


@pytest.mark.parametrize(("role", "status"), [(Role.FINANCE, 200), (Role.MEMBER, 403), (Role.VIEWER, 403)])
def test_the_usage_download_needs_its_permission(acme: Tenant, role: Role, status: int) -> None:
    client = signed_in(make_member(acme.organization, "x@acme.example", role))
    assert client.get(f"{COSTS}usage.csv").status_code == status


def test_hours_still_being_summed_are_announced(acme: Tenant, owner: Client) -> None:
    with scopes_disabled():
        DirtyBucket.objects.create(organization=acme.organization, hour=utc("2026-03-02T10:00"))
    assert "1 hour is still being added up" in text_of(owner.get(f"{COSTS}?{MARCH}").content.decode())


def test_where_nothing_was_used_the_page_says_so(acme: Tenant, owner: Client) -> None:
    page = owner.get(f"{COSTS}?{MARCH}").content.decode()
    assert "Nothing was used in this time" in page
    assert "<table" not in page


def test_names_are_escaped(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1", end_user="<script>alert(1)</script>")
    rollup(acme.backend, "2026-03-02T10:00", "1", end_user="b")
    page = owner.get(f"{COSTS}?by=end_user&{MARCH}").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_number_of_queries_does_not_grow_with_the_rows(
    acme: Tenant, owner: Client, django_assert_max_num_queries: Callable[[int], CaptureQueriesContext]
) -> None:
    for number in range(60):
        rollup(acme.backend, "2026-03-02T10:00", "1", end_user=f"u{number}")
    with django_assert_max_num_queries(20):
        owner.get(f"{COSTS}?by=user&{MARCH}")


# --- Compared with the period before ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "before"),
    [
        # A month: the month before. The first days of one: the same days of the month before, if it has them.
        ("from=2026-03-01&to=2026-03-31", "2026-02-01 2026-02-28"),
        ("from=2026-03-01&to=2026-03-10", "2026-02-01 2026-02-10"),
        ("from=2026-03-01&to=2026-03-30", "2026-02-01 2026-02-28"),
        # Otherwise as many days up to the first.
        ("from=2026-03-02&to=2026-03-08", "2026-02-23 2026-03-01"),
        ("from=2026-02-01&to=2026-03-31", "2025-12-04 2026-01-31"),
    ],
)
def test_the_period_before(acme: Tenant, owner: Client, asked: str, before: str) -> None:
    query = owner.get(f"{COSTS}?{asked}").context["query"].before
    assert f"{query.first} {query.last}" == before


def test_each_row_stands_beside_its_own_of_the_period_before(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-02-02T10:00", "4")
    rollup(acme.backend, "2026-03-02T10:00", "5")
    rollup(acme.banner, "2026-03-03T10:00", "1")
    rows = report_rows(owner, f"by=team&{MARCH}&compare=before")
    assert [(row[0], row[6], row[7], row[8]) for row in rows] == [
        ("search", "$5.000000", "$4.00", "+25%"),
        ("ads", "$1.000000", "$0.00", "new"),
        ("Total", "$6.000000", "$4.00", "+50%"),
    ]


def test_the_days_beside_the_chart_lead_where_its_bars_do(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1")
    page = html.unescape(owner.get(f"{COSTS}?by=team&{MARCH}").content.decode())
    chart, table = page.partition('class="table-wrap day-table"')[::2]
    expected = [f"?from=2026-03-{day:02}&to=2026-03-{day:02}&by=team" for day in range(1, 32)]
    assert re.findall(r'<a class="bar" href="([^"]+)"', chart) == expected
    beside = table.partition("</table>")[0]
    assert re.findall(r'href="([^"]+)"', beside) == expected[::-1]


def test_days_are_compared_by_their_place(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-02-02T10:00", "4")
    rollup(acme.backend, "2026-03-02T10:00", "2")
    response = owner.get(f"{COSTS}?by=day&{MARCH}&compare=before")
    changed = {row.key: change.text for row, *_, change in response.context["rows"] if change.text}
    assert changed == {"2026-03-02": "\N{MINUS SIGN}50%"}
    # Its bar has the one of 2 February, twice as high, behind it.
    assert re.findall(r'class="(?:before|s1)"[^>]* height="([0-9.]+)"', response.context["chart"]) == [
        "178.0", "89.0",
    ]  # fmt: skip


def test_what_the_table_folds_is_compared_as_a_whole(acme: Tenant, owner: Client) -> None:
    for number in range(103):
        rollup(acme.backend, "2026-02-02T10:00", "1", end_user=f"u{number:03}")
        rollup(acme.backend, "2026-03-02T10:00", "2", end_user=f"u{number:03}")
    response = owner.get(f"{COSTS}?by=end_user&{MARCH}&compare=before")
    *_, last = response.context["rows"]
    assert (last[0].label, last[-1].before, last[-1].text) == ("3 others", Decimal(3), "+100%")


def test_the_comparison_stays_in_every_link(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1")
    page = html.unescape(owner.get(f"{COSTS}?by=team&{MARCH}&compare=before").content.decode())
    assert f"?{MARCH}&compare=before&by=model" in page
    # The way back.
    assert f"?{MARCH}&by=team" in page


def test_months_are_those_of_the_organizations_calendar(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-02-28T22:00", "1")
    rollup(acme.backend, "2026-02-28T23:00", "2")
    response = owner.get(f"{COSTS}?by=month&from=2026-01-15&to=2026-03-31")
    assert [(row.label, row.sums.charge) for row, *_ in response.context["rows"]] == [
        ("January 2026", 0),
        ("February 2026", 1),
        ("March 2026", 2),
    ]
    assert response.context["rows"][0][0].filters == {"from": "2026-01-15", "to": "2026-01-31"}
    assert response.context["rows"][2][0].filters == {"from": "2026-03-01", "to": "2026-03-31"}


# --- The chart --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        ("0", "0"),
        ("10", "0 2.5 5.0 7.5 10.0"),
        ("7", "0 2 4 6 8"),
        ("0.0007", "0 0.0002 0.0004 0.0006 0.0008"),
    ],
)
def test_the_axis_has_round_steps(highest: str, expected: str) -> None:
    assert ticks(Decimal(highest)) == [Decimal(mark) for mark in expected.split()]


def test_amounts_on_an_axis_are_short() -> None:
    amounts = [Decimal(text) for text in ("0", "0.002", "2.5", "20", "1500", "2000000")]
    assert [short_money(amount) for amount in amounts] == ["$0", "$0.002", "$2.50", "$20", "$1.5k", "$2M"]


def test_bars_are_as_high_as_their_share() -> None:
    # The axis goes to 8; the plot is 178 pixels high: 2 of 8 is 44.5, 8 of 8 is 178.
    chart = bar_chart([Bar("a", "A", [Decimal(2)]), Bar("b", "B", [Decimal(8)])], label="x")
    assert re.findall(r'class="s1"[^>]* height="([0-9.]+)"', chart) == ["44.5", "178.0"]


def test_the_parts_of_a_bar_stand_on_each_other() -> None:
    chart = bar_chart(
        [Bar("a", "A", [Decimal(2), Decimal(0), Decimal(6)])], label="x", colours=("s1", "s2", "s3")
    )
    # From the bottom at 190: 44.5 up is 145.5; 133.5 further is 12.
    assert re.findall(r'class="(s\d)"[^>]* y="([0-9.]+)"', chart) == [("s1", "145.5"), ("s3", "12.0")]


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    assert "$0" in bar_chart([Bar("a", "A", [Decimal(0)])], label="x")


def test_today_is_that_of_the_organization(acme: Tenant) -> None:
    acme.organization.time_zone = "Pacific/Kiritimati"
    east = today(acme.organization)
    acme.organization.time_zone = "Pacific/Pago_Pago"
    west = today(acme.organization)
    now = datetime.now(UTC)
    assert (east - west).days in (1, 2)
    assert abs((east - now.date()).days) <= 1


def tagged(key: ApiKey, charge: str, **tags: str) -> None:
    event(key, "2026-03-02T10:00", f"req-{charge}-{key.pk}", charge, tags=tags)
    with scopes_disabled():
        DirtyBucket.objects.create(organization=key.organization, hour=utc("2026-03-02T10:00"))
    while rollups.refresh():
        pass


def body_of(client: Client, address: str) -> str:
    response: Any = client.get(address)
    return b"".join(response).decode()


def test_each_tag_is_a_way_to_divide_the_costs(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2", feature="search")
    tagged(acme.banner, "3", feature="chat", env="prod")
    tagged(acme.batch, "1")
    page = owner.get(f"{COSTS}?by=tag:feature&{MARCH}&compare=before").content.decode()
    assert ">Tag env</a>" in page
    text = text_of(page)
    assert text.index(" chat ") < text.index("Without this tag")
    assert "$6.00" in text
    report = body_of(owner, f"{COSTS}report.csv?by=tag:feature&{MARCH}")
    lines = list(csv.DictReader(io.StringIO(report)))
    assert [(line["tag:feature"], Decimal(line["charge"])) for line in lines] == [
        ("chat", Decimal(3)),
        ("search", Decimal(2)),
        ("Without this tag", Decimal(1)),
    ]


def test_the_requests_behind_a_value_are_as_many_as_it_says(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2", feature="search & find")
    tagged(acme.banner, "3", feature="search & find")
    tagged(acme.banner, "4", feature="chat")
    tagged(acme.batch, "1")
    page = owner.get(f"{COSTS}?by=tag:feature&team=search&{MARCH}")
    links = {row.label: requests for row, _, requests, _ in page.context["rows"]}
    found = {
        label: [row["event"].charge for row in owner.get(f"/o/acme/requests/?{link}").context["rows"]]
        for label, link in links.items()
    }
    assert found == {"search & find": [Decimal(2)], "Without this tag": [Decimal(1)]}


def test_the_chart_is_divided_by_the_values_of_a_tag(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2", feature="search")
    tagged(acme.banner, "3", feature="chat")
    tagged(acme.batch, "1")
    context = owner.get(f"{COSTS}?by=tag:feature&{MARCH}").context
    assert [label for _, label in context["legend"]] == ["chat", "search", "Without this tag"]
    assert "2 Mar: $6.00, 3 requests\nchat: $3.00\nsearch: $2.00\nWithout this tag: $1.00" in html.unescape(
        context["chart"]
    )


def test_usage_by_tag_narrowed_by_a_key_says_that_it_cannot(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2", feature="search")
    page = owner.get(f"{COSTS}?by=tag:feature&{MARCH}&key={acme.backend.pk}").content.decode()
    assert "can be narrowed by team and model, not by key" in page
    refused = owner.get(f"{COSTS}report.csv?by=tag:feature&{MARCH}&key={acme.backend.pk}")
    assert refused.status_code == 400


def test_a_teams_admin_sees_tags_of_the_teams_usage_and_a_member_none(acme: Tenant) -> None:
    tagged(acme.backend, "2", feature="search")
    tagged(acme.banner, "3", feature="chat")
    lead = signed_in(make_member(acme.organization, "lead@acme.example", Role.MEMBER, acme.search))
    report = body_of(lead, f"{COSTS}report.csv?by=tag:feature&{MARCH}")
    assert [line["tag:feature"] for line in csv.DictReader(io.StringIO(report))] == ["search"]
    own = signed_in(acme.ann)
    assert "Tag feature" not in own.get(f"{COSTS}?{MARCH}").content.decode()
    lines = body_of(own, f"{COSTS}report.csv?by=tag:feature&{MARCH}").splitlines()
    assert len(lines) == 1


def test_the_api_divides_by_a_tag(acme: Tenant, owner: Client) -> None:
    tagged(acme.backend, "2", feature="search")
    answer = owner.get(f"/api/organizations/acme/report?by=tag:feature&{MARCH}").json()
    assert [(row["id"], row["charge"]) for row in answer["rows"]] == [("value:search", "2.00")]
    assert owner.get(f"/api/organizations/acme/report?by=tag:&{MARCH}").status_code == 400


def test_an_export_divides_by_a_tag(acme: Tenant, owner: Client, settings: Any, tmp_path: Path) -> None:
    settings.EXPORT_DIR = tmp_path
    tagged(acme.backend, "2", feature="search")
    asked = {"what": "report", "by": "tag:feature", "format": "csv", "from": "2026-03-01", "to": "2026-03-31"}
    assert owner.post("/o/acme/exports/", asked).status_code == 302
    make_due()
    page = owner.get("/o/acme/exports/").content.decode()
    assert "Report by tag feature" in page
    (file,) = tmp_path.glob("*.csv")
    assert "search,value:search" in file.read_text()
    refused = owner.post("/o/acme/exports/", {**asked, "key": str(acme.backend.pk)})
    assert refused.status_code == 422
