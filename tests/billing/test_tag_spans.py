"""Sums of days and months by tag: always what the hours say, whichever of them a report reads."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from random import Random

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing import reconcile, rollups, spans
from billing.access import local_range
from billing.models import DirtyBucket, TagRollup, TagSpanSum, UsageSpan
from billing.tag_reports import report_of, series_of
from tenants.models import ApiKey
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db
# Three days after the month the usage is in.
LATER = "2026-04-03T12:00"
MARCH = utc("2026-03-01"), utc("2026-04-01")
Lines = list[tuple[str, Decimal, int]]


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme", "UTC")


def used(key: ApiKey, at: str, name: str, charge: str, **tags: str) -> None:
    """One request and the mark that the shipper leaves."""
    event(key, at, name, charge, tags=tags)
    with scopes_disabled():
        DirtyBucket.objects.create(
            organization=key.organization, hour=utc(at).replace(minute=0, second=0, microsecond=0)
        )


def build(at: str = LATER) -> None:
    while rollups.refresh(at=utc(at)):
        pass
    while spans.refresh(at=utc(at)):
        pass


def by_tag(tenant: Tenant, where: Q | None = None) -> Lines:
    report = report_of(tenant.organization, "tag:a", *MARCH, where)
    return [(row.label, row.sums.charge, row.sums.requests) for row in report.rows]


def tagged(tenant: Tenant) -> list[str]:
    """The spans whose sums by tag hold: kind and day."""
    with scopes_disabled():
        found = UsageSpan.objects.filter(organization=tenant.organization, tag_sums__isnull=False).distinct()
        return [
            f"{each.kind} {each.start:%m-%d}"
            for each in found.order_by("kind", "start")
            if each.fresh and each.tagged_until == each.until
        ]


def test_a_whole_month_by_tag_reads_no_hours(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "one", "1", a="x")
    used(acme.banner, "2026-03-02T10:01", "two", "2", a="x")
    used(acme.backend, "2026-03-31T23:59", "three", "4", a="y")
    used(acme.backend, "2026-03-31T23:59", "four", "8")
    build()
    assert tagged(acme) == ["day 03-02", "day 03-31", "month 03-01"]
    with CaptureQueriesContext(connection) as queries:
        assert by_tag(acme) == [
            ("y", Decimal(4), 1),
            ("x", Decimal(3), 2),
            ("Without this tag", Decimal(8), 1),
        ]
    assert not [each for each in queries if "billing_tagrollup" in each["sql"]]
    ads = Q(team_id=acme.ads.pk)
    assert by_tag(acme, ads) == [("x", Decimal(2), 1)]


def test_a_late_request_is_in_the_report_before_and_after_its_month_is_summed_again(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "one", "1", a="x")
    build()
    used(acme.backend, "2026-03-02T10:30", "late", "2", a="x")
    while rollups.refresh(at=utc(LATER)):
        pass
    assert tagged(acme) == []
    assert by_tag(acme) == [("x", Decimal(3), 2)]
    build()
    assert tagged(acme) == ["day 03-02", "month 03-01"]
    assert by_tag(acme) == [("x", Decimal(3), 2)]


def test_a_span_that_another_release_built_again_is_read_by_the_hour_until_it_is_built_once_more(
    acme: Tenant,
) -> None:
    used(acme.backend, "2026-03-02T10:00", "one", "1", a="x")
    build()
    with scopes_disabled():
        TagSpanSum.objects.update(charge=100)
        # What a process without sums by tag does: it spoils a span and builds it, and says nothing of them.
        UsageSpan.objects.update(fresh=False)
        UsageSpan.objects.update(fresh=True)
    assert tagged(acme) == []
    assert by_tag(acme) == [("x", Decimal(1), 1)]
    build()
    assert tagged(acme) == ["day 03-02", "month 03-01"]
    assert by_tag(acme) == [("x", Decimal(1), 1)]


def test_a_day_that_another_release_took_further_is_read_by_the_hour(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "one", "1", a="x")
    build("2026-03-02T11:30")
    assert tagged(acme) == ["day 03-02"]
    with scopes_disabled():
        TagSpanSum.objects.update(charge=100)
        UsageSpan.objects.filter(kind="day", start=MARCH[0] + timedelta(days=1)).update(
            until=utc("2026-03-02T13:00")
        )
    assert tagged(acme) == []
    assert by_tag(acme) == [("x", Decimal(1), 1)]


def test_a_month_waits_for_its_days_and_nothing_is_built_for_ever(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "one", "1", a="x")
    build()
    with scopes_disabled():
        # A month and a day of it that no process has summed by tag.
        UsageSpan.objects.filter(kind="month").update(tagged_until=None)
        UsageSpan.objects.filter(kind="day", start=utc("2026-03-02")).update(tagged_until=None)
    assert by_tag(acme) == [("x", Decimal(1), 1)]
    # The day, and then the month that it was missing from.
    assert spans.refresh(limit=1, at=utc(LATER)) == 1
    assert tagged(acme) == ["day 03-02"]
    assert spans.refresh(at=utc(LATER)) == 1
    assert tagged(acme) == ["day 03-02", "month 03-01"]
    assert spans.refresh(at=utc(LATER)) == 0


@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
def test_every_report_by_tag_is_the_same_with_and_without_spans(time_zone: str) -> None:
    acme = make_tenant("acme", time_zone)
    dice = Random(11)
    for number in range(60):
        at = MARCH[0] + timedelta(minutes=dice.randrange(32 * 24 * 60))
        tags = {"a": dice.choice("xyz")} if dice.random() < 0.8 else {}
        key = dice.choice((acme.backend, acme.banner))
        used(key, f"{at:%Y-%m-%dT%H:%M}", f"req-{number}", str(dice.randrange(1, 9)), **tags)
    while rollups.refresh(at=utc(LATER)):
        pass

    def seen() -> list[object]:
        found: list[object] = []
        for first, last in (
            (date(2026, 3, 1), date(2026, 3, 31)),
            (date(2026, 3, 5), date(2026, 4, 1)),
            (date(2026, 3, 9), date(2026, 3, 9)),
        ):
            start, end = local_range(acme.organization, first, last)
            for where in (Q(), Q(team_id=acme.ads.pk)):
                report = report_of(acme.organization, "tag:a", start, end, where)
                found += [(row.key, row.sums) for row in report.rows]
                found.append(series_of(acme.organization, "tag:a", start, end, report.rows, where))
                found.append(
                    series_of(acme.organization, "tag:a", start, end, report.rows[:2], where, step="month")
                )
        return found

    before = seen()
    build()
    assert bool(tagged(acme)) == (time_zone not in ("Asia/Kolkata", "America/St_Johns"))
    assert seen() == before


def test_the_days_of_a_tag_add_up_to_its_report(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "one", "1", a="x")
    used(acme.backend, "2026-03-02T11:00", "two", "2", a="y")
    used(acme.backend, "2026-03-03T10:00", "three", "4", a="x")
    used(acme.backend, "2026-03-03T10:00", "four", "8")
    build()
    bounds = utc("2026-03-02"), utc("2026-03-04")
    rows = report_of(acme.organization, "tag:a", *bounds).rows
    assert [row.label for row in rows] == ["x", "y", "Without this tag"]
    found = series_of(acme.organization, "tag:a", *bounds, [rows[0], rows[2]])
    assert [(day, [sums.charge for sums in line]) for day, line in found] == [
        (date(2026, 3, 2), [Decimal(1), Decimal(0), Decimal(2)]),
        (date(2026, 3, 3), [Decimal(4), Decimal(8), Decimal(0)]),
    ]


def test_a_wrong_sum_of_a_day_by_tag_is_found_and_settled(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "one", "1", a="x")
    build()

    def found() -> list[tuple[str, Decimal, Decimal]]:
        with scopes_disabled():
            differences = reconcile.compare().differences
        return [
            (each.what, Decimal(each.expected), Decimal(each.found))
            for each in differences
            if "s by tag" in each.what and "of hours" in each.what
        ]

    assert found() == []
    with scopes_disabled():
        TagSpanSum.objects.filter(span__kind="day").update(charge=5)
    assert found() == [("charge of hours and days by tag", Decimal(1), Decimal(5))]
    reconcile.bring_up_to_date(settle=True)
    build()
    assert found() == []
    with scopes_disabled():
        TagSpanSum.objects.all().delete()
        assert TagRollup.objects.exists()
    assert {what for what, *_ in found()} >= {
        "requests of hours and days by tag",
        "charge of hours and months by tag",
    }
