"""Sums of days and months: always what the hours say, whichever of them a report reads."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from random import Random

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing import rollups, spans
from billing.access import local_range
from billing.models import DirtyBucket, UsageRollup, UsageSpan, UsageSpanSum
from billing.reports import DIMENSIONS, Dimension, charges_of, cost_report, daily_series
from billing.sums import total
from tenants.models import ApiKey
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db
# Three days after the month the usage is in.
LATER = utc("2026-04-03T12:00")


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def used(key: ApiKey, at: str, name: str, charge: str, **columns: str) -> None:
    """One request and the mark that the shipper leaves."""
    event(key, at, name, charge, **columns)
    with scopes_disabled():
        DirtyBucket.objects.create(
            organization=key.organization, hour=utc(at).replace(minute=0, second=0, microsecond=0)
        )


def build(at: str = "2026-04-03T12:00") -> None:
    rollups.refresh(at=utc(at))
    while spans.refresh(at=utc(at)):
        pass


def kept(tenant: Tenant) -> list[tuple[str, str, str, bool]]:
    """Kind, start, until and freshness of the spans that hold something."""
    with scopes_disabled():
        found = UsageSpan.objects.filter(organization=tenant.organization, sums__isnull=False).distinct()
        return [
            (each.kind, f"{each.start:%m-%dT%H}", f"{each.until:%m-%dT%H}", each.fresh)
            for each in found.order_by("kind", "start")
        ]


def test_a_month_and_its_days_follow_the_calendar_of_the_organization(acme: Tenant) -> None:
    # Berlin's March has its first days an hour ahead of UTC, its last two ahead.
    used(acme.backend, "2026-02-28T23:30", "first", "1")
    used(acme.backend, "2026-03-31T21:30", "last", "2")
    build()
    assert kept(acme) == [
        ("day", "02-28T23", "03-01T23", True),
        ("day", "03-30T22", "03-31T22", True),
        ("month", "02-28T23", "03-31T22", True),
    ]


def test_a_late_request_is_in_the_report_before_and_after_its_month_is_summed_again(acme: Tenant) -> None:
    march = local_range(acme.organization, date(2026, 3, 1), date(2026, 3, 31))
    used(acme.backend, "2026-03-10T10:30", "a", "1")
    build()
    used(acme.backend, "2026-03-10T10:40", "b", "2")
    rollups.refresh(at=LATER)
    assert [each[3] for each in kept(acme)] == [False, False]
    assert cost_report(acme.organization, "key", *march).totals.charge == Decimal(3)
    build()
    assert [each[3] for each in kept(acme)] == [True, True]
    assert cost_report(acme.organization, "key", *march).totals.charge == Decimal(3)


def test_a_day_under_way_is_summed_up_to_its_last_hour_that_is_over(acme: Tenant) -> None:
    used(acme.backend, "2026-03-10T08:30", "a", "1")
    used(acme.backend, "2026-03-10T10:30", "b", "2")
    build("2026-03-10T10:45")
    assert kept(acme) == [("day", "03-09T23", "03-10T10", True)]
    today = local_range(acme.organization, date(2026, 3, 10), date(2026, 3, 10))
    assert cost_report(acme.organization, "team", *today).totals.charge == Decimal(3)
    # Hours over ten minutes ago count as over.
    build("2026-03-10T11:10")
    assert kept(acme) == [("day", "03-09T23", "03-10T11", True)]


def test_a_report_over_a_whole_month_reads_no_hours(acme: Tenant) -> None:
    used(acme.backend, "2026-03-10T10:30", "a", "1")
    build()
    march = local_range(acme.organization, date(2026, 3, 1), date(2026, 3, 31))
    for by in DIMENSIONS:
        with CaptureQueriesContext(connection) as queries:
            assert cost_report(acme.organization, by, *march).totals.charge == Decimal(1)
        read_hours = any("billing_usagerollup" in query["sql"] for query in queries.captured_queries)
        assert read_hours == (by == "hour")


def test_after_a_change_of_the_time_zone_days_are_those_of_the_new_one(acme: Tenant) -> None:
    used(acme.backend, "2026-03-10T23:30", "a", "1")
    build()
    acme.organization.time_zone = "America/New_York"
    acme.organization.save(update_fields=["time_zone"])
    by_day = cost_report(
        acme.organization, "day", *local_range(acme.organization, date(2026, 3, 10), date(2026, 3, 11))
    )
    assert [row.sums.requests for row in by_day.rows] == [1, 0]
    used(acme.backend, "2026-03-10T23:40", "b", "1")
    build()
    by_day = cost_report(
        acme.organization, "day", *local_range(acme.organization, date(2026, 3, 10), date(2026, 3, 11))
    )
    assert [row.sums.requests for row in by_day.rows] == [2, 0]


def test_a_late_request_after_a_move_to_a_zone_of_half_hours_is_in_the_reports(acme: Tenant) -> None:
    used(acme.backend, "2026-03-10T10:30", "a", "1")
    build()
    acme.organization.time_zone = "Asia/Kolkata"
    acme.organization.save(update_fields=["time_zone"])
    used(acme.backend, "2026-03-10T10:40", "b", "2")
    build()
    around = (utc("2026-03-01"), utc("2026-03-20"))
    assert cost_report(acme.organization, "key", *around).totals.charge == Decimal(3)


def test_the_dearest_are_found_over_days_that_are_summed_hours_and_divided_hours(acme: Tenant) -> None:
    used(acme.batch, "2026-03-09T10:10", "a", "3")
    used(acme.backend, "2026-03-10T10:10", "b", "2")
    build()
    used(acme.backend, "2026-04-02T10:10", "c", "2")
    used(acme.banner, "2026-04-03T09:10", "d", "1")
    rollups.refresh(at=LATER)
    report = cost_report(acme.organization, "user", utc("2026-03-01"), utc("2026-04-03T09:30"), most=1)
    # Ann owns the key `backend`: 2 + 2. Of the others, 3 is in a month's sums and 1 in an hour that is cut.
    assert [(row.label, row.sums.charge, row.sums.requests) for row in report.rows] == [
        ("ann@acme.example", Decimal(4), 2),
        ("2 others", Decimal(4), 2),
    ]
    assert (report.folded, report.totals.charge) == (2, Decimal(8))


@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"])
def test_every_report_is_the_same_with_and_without_spans(time_zone: str) -> None:
    tenant, chance = make_tenant("acme", time_zone), Random(3)  # repeatable, guards nothing
    for number in range(60):
        at = utc("2026-03-20") + timedelta(seconds=chance.randrange(20 * 86400))
        key = chance.choice([tenant.backend, tenant.batch, tenant.banner])
        used(
            key,
            at.replace(tzinfo=None).isoformat(),
            f"req-{number}",
            str(Decimal(chance.randrange(10**6)) / 10**9),
            end_user=chance.choice(["", "", "u1", "u2"]),
            model_group=chance.choice(["fast", "best"]),
        )
    rollups.refresh(at=utc("2026-04-20"))
    ranges = [
        local_range(tenant.organization, date(2026, 3, 1), date(2026, 4, 30)),
        local_range(tenant.organization, date(2026, 3, 25), date(2026, 4, 2)),
        (utc("2026-03-21T05:00"), utc("2026-04-05T17:20")),
    ]
    conditions = [
        Q(),
        Q(team_id=tenant.search.pk),
        Q(team_id__in=[tenant.ads.pk]) | Q(member_id=tenant.ann.pk),
        Q(end_user="u1"),
        Q(model_group="fast"),
        Q(key_id=tenant.batch.pk) & Q(end_user=""),
    ]

    def everything() -> list[object]:
        found: list[object] = []
        for start, end in ranges:
            for where in conditions:
                for by in DIMENSIONS:
                    report = cost_report(tenant.organization, by, start, end, where)
                    found += [[(row.key, row.sums) for row in report.rows], report.totals]
                    few = cost_report(tenant.organization, by, start, end, where, most=2)
                    assert few.totals == report.totals
                    if few.folded:
                        assert few.rows[:2] == report.rows[:2]
                        assert (len(few.rows), few.folded) == (3, len(report.rows) - 2)
                    if by not in ("day", "hour"):
                        found += daily_series(tenant.organization, start, end, report.rows[:2], where)
        return found

    from_hours = everything()
    while spans.refresh(at=utc("2026-04-20")):
        pass
    with scopes_disabled():
        assert UsageSpanSum.objects.exists() == (time_zone != "Asia/Kolkata")
    assert everything() == from_hours


@pytest.mark.parametrize("by", ["user", "member", "end_user", "key", "team", "model", "deployment"])
def test_a_report_of_whole_days_and_its_chart_read_no_hours(acme: Tenant, by: Dimension) -> None:
    used(acme.backend, "2026-03-03T10:00", "first", "1")
    used(acme.batch, "2026-03-03T10:00", "second", "2")
    used(acme.banner, "2026-03-04T10:00", "third", "4", end_user="eve", model_group="b", deployment="b")
    build("2026-04-05T12:00")
    with scopes_disabled():
        UsageRollup.objects.all().delete()
    march = local_range(acme.organization, date(2026, 3, 1), date(2026, 3, 31))
    report = cost_report(acme.organization, by, *march, most=2)
    assert report.totals.charge == 7
    first, *others = report.rows
    assert charges_of(acme.organization, by, [first.key], *march) == (
        {first.key: first.sums.charge},
        Decimal(7),
    )
    days = daily_series(acme.organization, *march, [first])
    assert {day.day: total(sums).charge for day, sums in days if total(sums).requests} == {
        3: Decimal(3),
        4: Decimal(4),
    }
    assert total(of_first for _, (of_first, _) in days) == first.sums
    assert total(of_others for _, (_, of_others) in days) == total(row.sums for row in others)
