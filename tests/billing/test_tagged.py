"""The requests that have a tag: found through the sums by tag, wherever these know less than the requests."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db.models import Q
from django_scopes import scopes_disabled

from billing import rollups
from billing.models import DirtyBucket, TagValue
from billing.tag_rollups import MOST_NAMES, MOST_VALUES
from billing.tagged import MOST_HOURS, Found, Tag, tagged_page, tags_offered
from tenants.models import ApiKey, Organization
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db
MARCH = utc("2026-03-01"), utc("2026-04-01")


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme", "UTC")


def used(key: ApiKey, at: str, name: str, **tags: str) -> None:
    """A request whose hour is marked, as the shipper marks it."""
    event(key, at, name, tags=tags)
    with scopes_disabled():
        DirtyBucket.objects.create(
            organization=key.organization, hour=utc(at).replace(minute=0, second=0, microsecond=0)
        )


def added_up() -> None:
    while rollups.refresh():
        pass


def known(organization: Organization, *pairs: tuple[str, str]) -> None:
    with scopes_disabled():
        TagValue.objects.bulk_create(
            TagValue(organization=organization, name=name, value=value) for name, value in pairs
        )


def page(
    organization: Organization,
    text: str,
    *,
    bounds: tuple[datetime, datetime] = MARCH,
    where: Q | None = None,
    after: tuple[datetime, str] | None = None,
    size: int = 50,
) -> Found:
    start, end = bounds
    return tagged_page(
        organization, Tag.read(text), start=start, end=end, where=where or Q(), after=after, size=size
    )


def ids(found: Found) -> list[str]:
    return [each.request_id for each in found.events]


@pytest.mark.parametrize("summed", [True, False])
def test_those_with_the_value_are_found_newest_first(acme: Tenant, summed: bool) -> None:
    used(acme.backend, "2026-03-02T10:00", "first", feature="search", env="prod")
    used(acme.backend, "2026-03-02T10:01", "chat", feature="chat")
    used(acme.banner, "2026-03-09T23:59", "second", feature="search")
    used(acme.backend, "2026-03-09T10:00", "none")
    used(acme.backend, "2026-04-01T00:00", "april", feature="search")
    if summed:
        added_up()
    assert ids(page(acme.organization, "feature=search")) == ["second", "first"]
    assert ids(page(acme.organization, "env=prod")) == ["first"]
    assert ids(page(acme.organization, "env=search")) == []
    assert ids(page(acme.organization, "nothing=prod")) == []


def test_a_tag_without_a_value_means_the_requests_that_lack_it(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "search", feature="search")
    used(acme.backend, "2026-03-02T10:01", "prod", env="prod")
    used(acme.backend, "2026-03-02T10:02", "bare")
    added_up()
    assert ids(page(acme.organization, "feature=")) == ["bare", "prod"]


def test_a_condition_and_the_time_narrow_them(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:20", "early", a="b")
    used(acme.backend, "2026-03-02T10:30", "in", a="b")
    used(acme.banner, "2026-03-02T10:40", "ads", a="b")
    used(acme.backend, "2026-03-02T10:50", "late", a="b")
    added_up()
    bounds = utc("2026-03-02T10:30"), utc("2026-03-02T10:50")
    where = Q(team_id=acme.search.pk)
    assert ids(page(acme.organization, "a=b", bounds=bounds, where=where)) == ["in"]


def test_another_tenants_requests_and_tags_are_not_ours(acme: Tenant) -> None:
    other = make_tenant("other", "UTC")
    used(other.backend, "2026-03-02T10:00", "theirs", a="b")
    added_up()
    assert ids(page(acme.organization, "a=b")) == []
    assert tags_offered(acme.organization) == []


def test_pages_of_a_rare_value_follow_on_without_gap_or_repetition(acme: Tenant) -> None:
    # One in every third hour: more hours than a page looks through, in none of which is a page full.
    hours = MOST_HOURS * 2 + 1
    for number in range(hours):
        at = MARCH[0] + timedelta(hours=3 * number, minutes=30)
        used(acme.backend, at.replace(tzinfo=None).isoformat(), f"req-{number:03}", a="rare")
        used(acme.backend, at.replace(tzinfo=None).isoformat(), f"other-{number:03}", a="common")
    added_up()
    seen: list[str] = []
    sizes, after = [], None
    while True:
        found = page(acme.organization, "a=rare", after=after)
        seen += ids(found)
        sizes.append(len(found.events))
        if found.reached is None:
            break
        after = (found.reached, "")
    assert seen == [f"req-{number:03}" for number in reversed(range(hours))]
    # A page that begins where one ended looks at that hour's beginning once more.
    assert sizes == [MOST_HOURS, MOST_HOURS - 1, 2]


def test_pages_of_a_common_value_go_on_within_a_moment(acme: Tenant) -> None:
    for number in range(9):
        used(acme.backend, f"2026-03-02T1{number // 4}:00", f"req-{number}", a="b")
    added_up()
    seen: list[str] = []
    after = None
    while found := page(acme.organization, "a=b", after=after, size=2).events:
        seen += [each.request_id for each in found]
        after = (found[-1].started_at, found[-1].request_id)
    assert seen == [f"req-{number}" for number in reversed(range(9))]


def test_an_hour_without_a_match_is_no_end(acme: Tenant) -> None:
    for number in range(MOST_HOURS + 1):
        at = (MARCH[0] + timedelta(hours=2 * number)).replace(tzinfo=None).isoformat()
        used(acme.banner if number else acme.backend, at, f"req-{number}", a="b")
    added_up()
    where = Q(team_id=acme.search.pk)
    first = page(acme.organization, "a=b", where=where)
    assert (ids(first), first.reached) == ([], MARCH[0] + timedelta(hours=2))
    assert ids(page(acme.organization, "a=b", where=where, after=(MARCH[0] + timedelta(hours=2), ""))) == [
        "req-0"
    ]


def test_a_value_beyond_the_bound_is_found(acme: Tenant) -> None:
    known(acme.organization, *(("a", f"v{number}") for number in range(MOST_VALUES)))
    used(acme.backend, "2026-03-02T10:00", "one", a="x")
    used(acme.backend, "2026-03-02T10:01", "two", a="y")
    added_up()
    assert ids(page(acme.organization, "a=y")) == ["two"]


def test_a_name_beyond_the_bound_is_found(acme: Tenant) -> None:
    known(acme.organization, *((f"n{number}", "v") for number in range(MOST_NAMES)))
    used(acme.backend, "2026-03-02T10:00", "one", x="1")
    added_up()
    assert ids(page(acme.organization, "x=1")) == ["one"]


@pytest.mark.parametrize(
    "text", ["search", "=search", "Feature=search", "a=b,c=d", "weir.x=1", "a=" + "b" * 101, ""]
)
def test_what_is_no_tag_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no tag"):
        Tag.read(text)


def test_ten_values_of_each_tag_are_offered(acme: Tenant) -> None:
    known(acme.organization, ("env", "prod"), *(("a", f"v{number:02}") for number in range(12)))
    expected = [f"a=v{number:02}" for number in range(10)]
    assert tags_offered(acme.organization) == [*expected, "env=prod"]
