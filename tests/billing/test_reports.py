"""Reports: sums that add up exactly, over days as the organization's calendar has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing import rollups
from billing.access import local_range, visible_to
from billing.models import DirtyBucket
from billing.reports import (
    DIMENSIONS,
    Dimension,
    charges_of,
    cost_report,
    spent_this_month,
    top,
    totals_for,
)
from billing.sums import SUM_FIELDS, Sums, total
from tenants.access import TenantAccess
from tenants.models import Organization
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_key, make_member, make_tenant, rollup, utc

pytestmark = pytest.mark.django_db

MARCH = (utc("2026-03-01"), utc("2026-04-01"))


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def lines(organization: Organization, by: str, start: str, end: str) -> list[tuple[str, str]]:
    """Label and charge of each row."""
    report = cost_report(organization, by, utc(start), utc(end))  # type: ignore[arg-type]  # a literal in every call
    return [(row.label, f"{row.sums.charge.normalize():f}") for row in report.rows]


def test_every_column_is_summed_exactly(acme: Tenant) -> None:
    rollup(
        acme.backend, "2026-03-01T10:00", "0.100000000001", cost=Decimal("0.05"), requests=3, errors=1,
        input_tokens=100, cached_input_tokens=20, cache_write_tokens=7, output_tokens=50, reasoning_tokens=30,
    )  # fmt: skip
    rollup(
        acme.backend, "2026-03-01T11:00", "0.200000000002", cost=Decimal("0.15"), requests=2, errors=0,
        input_tokens=11, cached_input_tokens=2, cache_write_tokens=1, output_tokens=5, reasoning_tokens=3,
    )  # fmt: skip
    sums = totals_for(acme.organization, *MARCH)
    assert [getattr(sums, name) for name in SUM_FIELDS] == [
        5, 1, 111, 22, 8, 55, 33, Decimal("0.20"), Decimal("0.300000000003"),
    ]  # fmt: skip
    assert sums.tokens == 196
    assert sums.margin == Decimal("0.100000000003")


@pytest.mark.parametrize("by", DIMENSIONS)
def test_the_total_is_the_sum_of_the_rows_in_every_dimension(acme: Tenant, by: str) -> None:
    for number, key in enumerate((acme.backend, acme.batch, acme.banner)):
        for end_user in ("", "u1", "u2"):
            rollup(key, f"2026-03-0{number + 1}T22:00", f"0.00000000000{number + 1}", end_user=end_user)
    report = cost_report(acme.organization, by, *MARCH)  # type: ignore[arg-type]  # one of DIMENSIONS
    assert report.totals == total(row.sums for row in report.rows)
    assert report.totals.charge == Decimal("0.000000000018")
    assert report.totals.requests == 9


def test_amounts_beyond_the_default_precision_of_decimals_are_not_rounded(acme: Tenant) -> None:
    # Thirty-one digits; Python's default context keeps twenty-eight.
    huge = Sums(cost=Decimal(9999999999999999999), charge=Decimal("9999999999999999999.000000000001"))
    assert total([huge, huge]).charge == Decimal("19999999999999999998.000000000002")
    assert huge.margin == Decimal("0.000000000001")
    for hour in range(20):
        rollup(acme.batch, f"2026-03-02T{hour:02}:00", "999999999999.999999999999")
    assert totals_for(acme.organization, *MARCH).charge == Decimal("19999999999999.99999999998")


def test_rows_are_dearest_first_and_named(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    rollup(acme.batch, "2026-03-01T10:00", "3", end_user="u1")
    rollup(acme.banner, "2026-03-01T10:00", "2", model_group="best", deployment="")
    march = ("2026-03-01", "2026-04-01")
    organization = acme.organization
    assert lines(organization, "key", *march) == [("batch", "3"), ("banner", "2"), ("backend", "1")]
    assert lines(organization, "team", *march) == [("search", "4"), ("ads", "2")]
    assert lines(organization, "model", *march) == [("fast", "4"), ("best", "2")]
    assert lines(organization, "deployment", *march) == [("gpt-small", "4"), ("None tried", "2")]
    assert lines(organization, "member", *march) == [("No owner", "5"), ("ann@acme.example", "1")]
    # Equal charges: more requests first.
    assert lines(organization, "end_user", *march) == [("Not named", "3"), ("u1", "3")]


def test_a_user_is_the_end_user_else_the_keys_owner_else_the_key(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    rollup(acme.backend, "2026-03-01T10:00", "2", end_user="customer-7")
    rollup(acme.banner, "2026-03-01T11:00", "3", end_user="customer-7")
    rollup(acme.batch, "2026-03-01T10:00", "4")
    assert lines(acme.organization, "user", "2026-03-01", "2026-04-01") == [
        ("customer-7", "5"),
        ("batch", "4"),
        ("ann@acme.example", "1"),
    ]


@pytest.mark.parametrize("by", ["user", "member", "end_user", "key", "team", "model", "deployment"])
def test_charges_stand_under_the_keys_of_the_reports_lines(acme: Tenant, by: Dimension) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    rollup(acme.backend, "2026-03-01T11:00", "2", end_user="eve", deployment="")
    rollup(acme.batch, "2026-03-01T10:00", "4", model_group="")
    start, end = local_range(acme.organization, date(2026, 3, 1), date(2026, 3, 1))
    charges = {row.key: row.sums.charge for row in cost_report(acme.organization, by, start, end).rows}
    assert sum(charges.values()) == 7
    assert charges_of(acme.organization, by, list(charges), start, end) == (charges, Decimal(7))
    for key, charge in charges.items():
        assert charges_of(acme.organization, by, [key], start, end) == ({key: charge}, Decimal(7))
    assert charges_of(acme.organization, by, [], start, end) == ({}, Decimal(7))


def test_an_end_user_called_like_a_member_stays_apart(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    rollup(acme.batch, "2026-03-01T10:00", "2", end_user="ann@acme.example")
    rows = cost_report(acme.organization, "user", *MARCH).rows
    assert [(row.label, row.detail) for row in rows] == [
        ("ann@acme.example", "End user"),
        ("ann@acme.example", "Key owner"),
    ]


def test_what_was_removed_keeps_its_figures(acme: Tenant) -> None:
    leaver = make_member(acme.organization, "leaver@acme.example")
    key = make_key(acme.ads, "old", leaver)
    rollup(key, "2026-03-01T10:00", "5")
    number = leaver.pk
    with scopes_disabled():
        key.delete()
        leaver.delete()
    march = ("2026-03-01", "2026-04-01")
    assert lines(acme.organization, "member", *march) == [(f"removed-{number}", "5")]
    assert lines(acme.organization, "key", *march)[0][0].startswith("removed-")


def test_another_tenants_usage_is_never_in(acme: Tenant) -> None:
    other = make_tenant("globex")
    rollup(other.backend, "2026-03-01T10:00", "7")
    assert totals_for(acme.organization, *MARCH).requests == 0
    assert totals_for(other.organization, *MARCH).charge == Decimal(7)


def test_a_day_of_the_calendar_begins_at_local_midnight(acme: Tenant) -> None:
    # Berlin is an hour ahead of UTC in winter: 23:00 UTC belongs to the next day.
    rollup(acme.backend, "2026-02-28T22:00", "1")
    rollup(acme.backend, "2026-02-28T23:00", "2")
    rollup(acme.backend, "2026-03-01T22:00", "4")
    rollup(acme.backend, "2026-03-01T23:00", "8")
    start, end = local_range(acme.organization, date(2026, 3, 1), date(2026, 3, 1))
    assert totals_for(acme.organization, start, end).charge == Decimal(6)


def test_the_day_clocks_are_set_forward_has_23_hours(acme: Tenant) -> None:
    start, end = local_range(acme.organization, date(2026, 3, 29), date(2026, 3, 29))
    assert (end - start) == timedelta(hours=23)
    for hour in range(24):
        rollup(acme.backend, f"2026-03-28T{hour:02}:00", "1")
        rollup(acme.backend, f"2026-03-29T{hour:02}:00", "1")
    report = cost_report(acme.organization, "day", utc("2026-03-27T23:00"), utc("2026-03-30T22:00"))
    # Saturday from 23:00 UTC the day before (no usage then): 23 hours; Sunday 23; Monday 22:00 and 23:00.
    assert [(row.key, row.sums.requests) for row in report.rows] == [
        ("2026-03-28", 23),
        ("2026-03-29", 23),
        ("2026-03-30", 2),
    ]


def test_the_day_clocks_are_set_back_has_25_hours(acme: Tenant) -> None:
    start, end = local_range(acme.organization, date(2026, 10, 25), date(2026, 10, 25))
    for day in (24, 25):
        for hour in range(24):
            rollup(acme.backend, f"2026-10-{day}T{hour:02}:00", "1")
    assert totals_for(acme.organization, start, end).requests == 25


def test_the_repeated_hour_shows_twice_with_its_offset(acme: Tenant) -> None:
    rollup(acme.backend, "2026-10-25T00:00", "1")
    rollup(acme.backend, "2026-10-25T01:00", "2")
    assert lines(acme.organization, "hour", "2026-10-24T22:00", "2026-10-25T23:00") == [
        ("2026-10-25 02:00 +02:00", "1"),
        ("2026-10-25 02:00 +01:00", "2"),
    ]


def test_a_day_without_usage_has_a_row(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    start, end = local_range(acme.organization, date(2026, 3, 1), date(2026, 3, 3))
    rows = cost_report(acme.organization, "day", start, end).rows
    assert [(row.label, row.detail, row.sums.requests) for row in rows] == [
        ("2026-03-01", "Sunday", 1),
        ("2026-03-02", "Monday", 0),
        ("2026-03-03", "Tuesday", 0),
    ]


def test_a_half_hour_zone_divides_the_hour_around_midnight_exactly() -> None:
    # Kolkata is 5:30 ahead: its 2 March begins at 18:30 UTC on 1 March.
    tenant = make_tenant("indus", "Asia/Kolkata")
    event(tenant.backend, "2026-03-01T18:29:59.999999", "before", "1", status=429)
    event(tenant.backend, "2026-03-01T18:30", "after", "2", input_tokens=10)
    rollup(tenant.backend, "2026-03-01T18:00", "3", requests=2, errors=1, input_tokens=10)
    rollup(tenant.backend, "2026-03-01T17:00", "4")
    rollup(tenant.backend, "2026-03-01T19:00", "8")
    start, end = local_range(tenant.organization, date(2026, 3, 1), date(2026, 3, 2))
    report = cost_report(tenant.organization, "day", start, end)
    assert [(row.key, row.sums.charge, row.sums.requests, row.sums.errors) for row in report.rows] == [
        ("2026-03-01", Decimal(5), 2, 1),
        ("2026-03-02", Decimal(10), 2, 0),
    ]
    only_second = local_range(tenant.organization, date(2026, 3, 2), date(2026, 3, 2))
    by_key = cost_report(tenant.organization, "key", *only_second)
    assert by_key.totals.charge == Decimal(10)
    assert by_key.totals.input_tokens == 10
    assert [row.label for row in by_key.rows] == ["backend"]


def test_where_every_boundary_is_a_full_hour_requests_are_not_read(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    with CaptureQueriesContext(connection) as queries:
        cost_report(
            acme.organization, "day", *local_range(acme.organization, date(2026, 1, 1), date(2026, 12, 31))
        )
    assert not [query for query in queries.captured_queries if "usageevent" in query["sql"]]


def test_the_rest_is_folded_into_one_row_and_the_total_kept(acme: Tenant) -> None:
    for number in range(1, 6):
        rollup(acme.backend, "2026-03-01T10:00", str(number), end_user=f"u{number}")
    report = cost_report(acme.organization, "end_user", *MARCH, most=2)
    assert [(row.label, row.sums.charge) for row in report.rows] == [
        ("u5", Decimal(5)),
        ("u4", Decimal(4)),
        ("3 others", Decimal(6)),
    ]
    assert report.totals.charge == Decimal(15)


def test_top_gives_the_dearest(acme: Tenant) -> None:
    for number in range(1, 6):
        rollup(acme.backend, "2026-03-01T10:00", str(number), model_group=f"m{number}")
    assert [row.label for row in top(acme.organization, "model", *MARCH, count=2)] == ["m5", "m4"]


def test_a_condition_narrows_rows_and_total(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    rollup(acme.banner, "2026-03-01T10:00", "2")
    report = cost_report(acme.organization, "model", *MARCH, Q(team_id=acme.ads.pk))
    assert report.totals.charge == Decimal(2)


@pytest.mark.parametrize(
    ("role", "admin_of", "expected"),
    [(Role.FINANCE, "", "7"), (Role.MEMBER, "", "1"), (Role.MEMBER, "ads", "5"), (Role.VIEWER, "", "1")],
)
def test_what_a_person_may_see(acme: Tenant, role: Role, admin_of: str, expected: str) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")  # ann's own key
    rollup(acme.batch, "2026-03-01T10:00", "2")
    rollup(acme.banner, "2026-03-01T10:00", "4")
    acme.ann.role = role.value
    roles = {acme.ads.pk: Role.ADMIN} if admin_of else {}
    access = TenantAccess(acme.organization, acme.ann, roles)
    assert totals_for(acme.organization, *MARCH, visible_to(access)).charge == Decimal(expected)


def test_spending_this_month_is_two_queries_for_all_keys(
    acme: Tenant, django_assert_num_queries: Callable[[int], CaptureQueriesContext]
) -> None:
    # March in Berlin begins on 28 February at 23:00 UTC.
    rollup(acme.backend, "2026-02-28T22:00", "1")
    rollup(acme.backend, "2026-02-28T23:00", "2")
    rollup(acme.banner, "2026-03-31T21:00", "4")
    rollup(acme.banner, "2026-03-31T22:00", "8")
    # Which spans there are, and the sums.
    with django_assert_num_queries(2):
        spent = spent_this_month(acme.organization, "key", at=utc("2026-03-15"))
    assert {key: sums.charge for key, sums in spent.items()} == {
        acme.backend.pk: Decimal(2),
        acme.banner.pk: Decimal(4),
    }


def test_keys_without_owner_count_for_no_member(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1")
    rollup(acme.batch, "2026-03-02T10:00", "2")
    assert list(spent_this_month(acme.organization, "member", at=utc("2026-03-15"))) == [acme.ann.pk]


def test_hours_still_being_summed_are_counted_once_each(acme: Tenant) -> None:
    with scopes_disabled():
        for hour in ("2026-03-01T10:00", "2026-03-01T10:00", "2026-03-01T11:00", "2026-04-01T00:00"):
            DirtyBucket.objects.create(organization=acme.organization, hour=utc(hour))
    assert cost_report(acme.organization, "key", *MARCH).pending_hours == 2


def test_an_empty_range_is_empty(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-01T10:00", "1")
    for by in DIMENSIONS:
        assert cost_report(acme.organization, by, MARCH[0], MARCH[0]).rows == []


def test_an_unknown_dimension_is_refused(acme: Tenant) -> None:
    with pytest.raises(ValueError, match="'colour' is no dimension"):
        cost_report(acme.organization, "colour", *MARCH)  # type: ignore[arg-type]  # that is the point


def test_the_last_day_may_not_come_before_the_first(acme: Tenant) -> None:
    with pytest.raises(ValueError, match="before the first"):
        local_range(acme.organization, date(2026, 3, 2), date(2026, 3, 1))


@pytest.mark.parametrize("time_zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"])
def test_reports_over_recomputed_rollups_equal_the_requests_themselves(time_zone: str) -> None:
    # Over both changes of the clocks; Lord Howe's are by half an hour.
    tenant, chance = make_tenant("acme", time_zone), Random(7)  # repeatable, guards nothing
    local, expected = ZoneInfo(time_zone), defaultdict[date, Decimal](Decimal)
    begun = [utc("2026-04-03"), utc("2026-10-02")]
    for number in range(200):
        at = chance.choice(begun) + timedelta(seconds=chance.randrange(4 * 86400))
        charge = Decimal(chance.randrange(10**6)) / 10**9
        key = chance.choice([tenant.backend, tenant.batch, tenant.banner])
        event(key, at.replace(tzinfo=None).isoformat(), f"req-{number}", str(charge))
        expected[at.astimezone(local).date()] += charge
        with scopes_disabled():
            hour = at.replace(minute=0, second=0)
            DirtyBucket.objects.create(organization=tenant.organization, hour=hour)
    rollups.refresh()
    for first, last in ((date(2026, 4, 1), date(2026, 4, 10)), (date(2026, 10, 1), date(2026, 10, 10))):
        bounds = local_range(tenant.organization, first, last)
        by_day = cost_report(tenant.organization, "day", *bounds)
        assert {row.key: row.sums.charge for row in by_day.rows if row.sums.requests} == {
            day.isoformat(): charge for day, charge in expected.items() if first <= day <= last
        }
        for by in DIMENSIONS:
            assert cost_report(tenant.organization, by, *bounds).totals == by_day.totals
        assert by_day.pending_hours == 0


def test_one_sum_of_everything_is_one_line_from_the_database(
    django_assert_max_num_queries: Callable[[int], CaptureQueriesContext],
) -> None:
    acme = make_tenant("acme")
    for number in range(3):
        rollup(acme.backend, "2026-03-02T10:00", "1", end_user=f"u{number}")
    with django_assert_max_num_queries(10) as captured:
        assert totals_for(acme.organization, utc("2026-03-01"), utc("2026-04-01")).charge == 3
    (sums,) = [each["sql"] for each in captured.captured_queries if "SUM(" in each["sql"]]
    # Grouped by every column, it would be a line for each row there is.
    assert "GROUP BY" not in sums
