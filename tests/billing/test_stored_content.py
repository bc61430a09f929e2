"""What is stored of requests goes when its days are over, and only then."""

from __future__ import annotations

from datetime import datetime

import pytest
from django_scopes import scopes_disabled

from billing import stored_content, tasks
from billing.models import RequestContent
from tenants.models import Organization
from tests.billing.made_usage import make_tenant, utc
from tests.billing.test_tasks import messages

pytestmark = pytest.mark.django_db
# An hour after Berlin's midnight; ten days before is the twenty-second of March there.
NOW = utc("2026-03-31T22:30")


def storing(slug: str, days: int = 10) -> Organization:
    organization = make_tenant(slug, "Europe/Berlin").organization
    organization.log_content, organization.content_days = True, days
    organization.save()
    return organization


def stored(organization: Organization, name: str, at: datetime) -> None:
    with scopes_disabled():
        RequestContent.objects.create(
            organization=organization, request_id=name, started_at=at, content=b"sealed"
        )


def left(organization: Organization) -> list[str]:
    with scopes_disabled():
        found = RequestContent.objects.filter(organization=organization)
        return sorted(found.values_list("request_id", flat=True))


def test_it_goes_with_the_day_by_the_organizations_calendar_and_only_its_own() -> None:
    acme, other = storing("acme"), storing("other", 11)
    for each in (acme, other):
        stored(each, "last", utc("2026-03-21T22:59:59"))
        stored(each, "first", utc("2026-03-21T23:00"))
    assert stored_content.remove_content(acme, now=NOW)
    assert stored_content.remove_content(other, now=NOW)
    assert left(acme) == ["first"]
    assert left(other) == ["first", "last"]
    assert stored_content.remove_content(acme, now=NOW)
    assert left(acme) == ["first"]


def test_it_is_never_kept_longer_than_details() -> None:
    acme = storing("acme", 300)
    assert stored_content.kept_days(acme) == 300
    acme.keep_details_days = 30
    assert stored_content.kept_days(acme) == 30


def test_it_stops_when_its_time_is_over_and_goes_on_from_there() -> None:
    acme = storing("acme")
    with scopes_disabled():
        RequestContent.objects.bulk_create(
            RequestContent(
                organization=acme, request_id=f"{number}", started_at=utc("2026-03-01"), content=b""
            )
            for number in range(stored_content.BATCH + 1)
        )
    assert not stored_content.remove_content(acme, now=NOW, seconds=0)
    assert len(left(acme)) == 1
    assert stored_content.remove_content(acme, now=NOW, seconds=0)
    assert left(acme) == []


def test_the_daily_task_removes_it_also_where_nothing_is_stored_any_more() -> None:
    acme = storing("acme")
    acme.log_content = False
    acme.save()
    stored(acme, "old", utc("2026-03-01"))
    messages("remove_details_of")
    tasks.remove_details()
    assert messages("remove_details_of") == {acme.pk}
    tasks.remove_details_of(acme.pk)
    assert left(acme) == []
