"""Details of old requests go when their organization says so; what its books rest on stays as it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from celery.schedules import crontab
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django_scopes import scopes_disabled

from billing import reconcile, retention, tag_rollups, tasks
from billing.models import DetailRemoval, TagValue, UsageEvent
from billing.reports import cost_report
from billing.tag_reports import report_of
from gateway.celery import app
from tests.billing.books import Books, stamp
from tests.billing.made_usage import event, make_tenant, utc
from tests.billing.test_tasks import messages

pytestmark = pytest.mark.django_db

# The first day kept is then the second of March: 30 days back by Berlin's calendar, which an hour
# after Greenwich's midnight is in April already.
NOW = utc("2026-03-31T22:30")
OLD, YOUNG = "2026-03-01T10:00:00", "2026-03-20T10:00:00"
MARCH = utc("2026-03-01"), utc("2026-04-01")
ATTEMPTS = [{"deployment": "openai/small", "provider": "openai", "status": 503, "reason": "overloaded"}]


def opened(slug: str, days: int | None = 30) -> Books:
    """Books by Berlin's calendar, whose details are kept for ``days``."""
    books = Books.open(slug)
    with scopes_disabled():
        books.organization.time_zone = "Europe/Berlin"
        books.organization.keep_details_days = days
        books.organization.save()
    return books


def used(books: Books, name: str, at: str, charge: str = "0.10", **changes: Any) -> None:
    """A request with all there is to remove, and all there is to keep."""
    begun = utc(at)
    described: dict[str, Any] = {
        "started_at": stamp(begun),
        "ended_at": stamp(begun + timedelta(seconds=2)),
        "end_user": "customer-7",
        "attempts": ATTEMPTS,
        "error_code": "overloaded",
        "first_token_ms": 120,
        "quantities": {"searches": "2"},
        "tags": {"app": "search", "weir.refused_by": "a budget"},
    }
    books.ship(books.end(name, charge, **(described | changes)))


def remove(books: Books, **options: Any) -> bool:
    with scopes_disabled():
        books.organization.refresh_from_db()
        return retention.remove_details(books.organization, now=NOW, **options)


def details(books: Books) -> dict[str, tuple[Any, ...]]:
    return {
        each.request_id.partition("-")[2]: (each.attempts, each.error_code, each.first_token_ms)
        for each in books.events()
    }


FULL = (ATTEMPTS, "overloaded", 120)
GONE: tuple[Any, ...] = ([], "", None)


def test_details_go_with_the_day_by_the_organizations_calendar(slug: str) -> None:
    books = opened(slug)
    # Berlin's midnight.
    used(books, "last", "2026-03-01T22:59:59.999999")
    used(books, "first", "2026-03-01T23:00:00")
    assert remove(books)
    assert details(books) == {"last": GONE, "first": FULL}


def test_all_else_of_an_old_request_stays(slug: str) -> None:
    books = opened(slug)
    used(books, "a", OLD)
    (before,) = books.events()
    remove(books)
    (after,) = books.events()
    columns = [field.name for field in UsageEvent._meta.concrete_fields]
    differing = {name for name in columns if getattr(before, name) != getattr(after, name)}
    assert differing == {"attempts", "error_code", "first_token_ms", "tags", "details_removed_at"}
    assert (after.end_user, after.charge, after.quantities) == (
        "customer-7",
        Decimal("0.10"),
        {"searches": "2"},
    )


def test_of_tags_what_reports_add_up_stays(slug: str) -> None:
    books = opened(slug)
    known = [TagValue(organization=books.organization, name="app", value="search")]
    with scopes_disabled():
        TagValue.objects.bulk_create(known)
    used(books, "a", OLD, tags={"app": "search", "note": "of Ann's", "weir.refused_by": "a budget"})
    used(books, "b", OLD, tags={"app": "of Ann's"})
    remove(books)
    assert [each.tags for each in books.events()] == [{"app": "search"}, {"app": ""}]


def differences(books: Books) -> list[Any]:
    with scopes_disabled():
        found = reconcile.compare().differences
    return [each for each in found if each.organization == books.organization.slug]


def reports(books: Books) -> list[Any]:
    """Of March, by each thing that a report divides by here, also of parts of hours."""
    part = utc("2026-03-01T09:30"), utc("2026-03-20T10:30")
    found: list[Any] = []
    with scopes_disabled():
        for bounds in (MARCH, part):
            for by in ("day", "key", "end_user", "model"):
                report = cost_report(books.organization, by, *bounds)
                found.append((by, [(row.label, row.sums) for row in report.rows], report.totals))
            report = report_of(books.organization, "tag:app", *bounds, Q())
            found.append(("tag:app", [(row.label, row.sums) for row in report.rows], report.totals))
    return found


def test_books_balance_and_reports_say_the_same_as_before(slug: str) -> None:
    books = opened(slug)
    with scopes_disabled():
        # All values but one are taken, so that the last to come is summed under none.
        TagValue.objects.bulk_create(
            TagValue(organization=books.organization, name="app", value=f"v{number:03}")
            for number in range(tag_rollups.MOST_VALUES - 1)
        )
    used(books, "a", OLD, "0.10", tags={"app": "search"})
    used(books, "b", OLD, "0.20", tags={"app": "unknown"}, status=502, end_reason="provider_error")
    used(books, "c", OLD, "0.40", tags={"weir.refused_by": "a budget"})
    used(books, "d", YOUNG, "0.80", tags={"app": "search"})
    with scopes_disabled():
        reconcile.bring_up_to_date(settle=True)
    before = reports(books)
    assert differences(books) == []
    assert before[0][2].charge == Decimal("1.50")
    remove(books)
    assert details(books)["b"] == GONE
    assert (differences(books), reports(books)) == ([], before)
    # Nor does adding the old hours up again change anything.
    with scopes_disabled(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_dirtybucket (organization_id, hour) VALUES (%s, %s)",
            [books.organization.id, utc("2026-03-01T10:00")],
        )
        reconcile.bring_up_to_date(settle=True)
    assert (differences(books), reports(books)) == ([], before)


def test_another_organizations_requests_keep_theirs(slug: str) -> None:
    books, forever = opened(slug), opened(f"{slug}-x", None)
    for each in (books, forever):
        used(each, "a", OLD)
    remove(books)
    remove(forever)
    assert details(forever) == {"a": FULL}


def test_doing_it_again_changes_nothing(slug: str) -> None:
    books = opened(slug)
    used(books, "a", OLD)
    remove(books)
    with scopes_disabled():
        before = (books.events()[0].details_removed_at, DetailRemoval.objects.values().get())
        assert remove(books)
        assert (books.events()[0].details_removed_at, DetailRemoval.objects.values().get()) == before
    assert before[1]["requests"] == 1


def test_it_stops_when_its_time_is_over_and_goes_on_from_there() -> None:
    acme = make_tenant("acme", "Europe/Berlin")
    with scopes_disabled():
        acme.organization.keep_details_days = 30
        acme.organization.save()
        made = event(acme.backend, OLD, "req-0", error_code="overloaded")
        for number in range(1, retention.BATCH + 1):
            made.request_id = f"req-{number}"
            made.started_at += timedelta(seconds=1)
            made.pk = (made.started_at, made.request_id)
            made.save(force_insert=True)
        left = UsageEvent.objects.filter(details_removed_at=None)
        assert not retention.remove_details(acme.organization, now=NOW, seconds=0)
        assert left.count() == 1
        assert retention.remove_details(acme.organization, now=NOW, seconds=0)
        assert left.count() == 0


def test_a_request_that_arrives_late_loses_its_details_too(slug: str) -> None:
    books = opened(slug)
    used(books, "a", "2026-03-01T12:00:00")
    remove(books)
    used(books, "late", OLD)
    assert details(books)["late"] == FULL
    remove(books)
    assert details(books) == {"a": GONE, "late": GONE}


def test_the_platforms_days_bound_what_organizations_choose(slug: str, settings: Any) -> None:
    longer, forever = opened(slug, 400), opened(f"{slug}-x", None)
    settings.KEEP_DETAILS_DAYS = 30
    for each in (longer, forever):
        used(each, "a", OLD)
        remove(each)
        assert details(each) == {"a": GONE}


def test_each_organization_that_has_a_limit_gets_a_message(slug: str, settings: Any) -> None:
    limited, forever = opened(slug), opened(f"{slug}-x", None)
    messages("remove_details_of")
    tasks.remove_details()
    assert messages("remove_details_of") == {limited.organization.id}
    settings.KEEP_DETAILS_DAYS = 90
    tasks.remove_details()
    assert messages("remove_details_of") >= {limited.organization.id, forever.organization.id}


def test_the_task_is_on_the_clock_when_the_page_says() -> None:
    assert app.conf.beat_schedule["details"]["schedule"] == crontab(hour=3, minute=40)
    # On the second, and a moment later.
    assert retention.next_removal(utc("2026-03-01T03:39:59")) == utc("2026-03-01T03:40")
    assert retention.next_removal(utc("2026-03-01T03:40:00")) == utc("2026-03-02T03:40")


def test_the_task_removes_what_is_old_today(slug: str) -> None:
    books = opened(slug)
    used(books, "a", OLD)
    used(books, "b", f"{datetime.now(tz=UTC):%Y-%m-%dT%H:%M:%S}")
    tasks.remove_details_of(books.organization.id)
    assert details(books) == {"a": GONE, "b": FULL}


EMPTIED = "attempts = '[]', error_code = '', first_token_ms = NULL, tags = '{}', details_removed_at = now()"


@pytest.mark.parametrize(
    "assignments",
    [
        f"{EMPTIED}, charge = 0",
        f"{EMPTIED}, end_user = ''",
        EMPTIED.replace("error_code = ''", "error_code = 'other'"),
        EMPTIED.replace("tags = '{}'", """tags = '{"app": "other"}'"""),
        EMPTIED.replace("tags = '{}'", """tags = '{"new": ""}'"""),
        EMPTIED.replace("now()", "NULL"),
    ],
)
def test_nothing_but_details_can_be_taken_from_an_event(slug: str, assignments: str) -> None:
    books = opened(slug)
    used(books, "a", OLD)
    with (
        pytest.raises(IntegrityError, match="only ever added"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            f"UPDATE billing_usageevent SET {assignments} WHERE organization_id = %s", [books.organization.id]
        )


def test_details_are_removed_once(slug: str) -> None:
    books = opened(slug)
    used(books, "a", OLD)
    remove(books)
    with pytest.raises(IntegrityError, match="only ever added"), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE billing_usageevent SET {EMPTIED} WHERE organization_id = %s", [books.organization.id]
        )
