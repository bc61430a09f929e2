"""Usage by the tags of its requests: exact at any time, bounded, and proved by the books."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from django.db.models import Q
from django_scopes import scopes_disabled

from billing import reconcile, rollups
from billing.models import DirtyBucket, TagRollup, TagValue
from billing.tag_reports import NotByTag, report_of, tag_names
from billing.tag_rollups import MOST_NAMES, MOST_VALUES
from tenants.models import ApiKey, Organization
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db
MARCH = utc("2026-03-01"), utc("2026-04-01")
LATER = utc("2026-05-01")


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme", "UTC")


def used(key: ApiKey, at: str, charge: str, *, tags: dict[str, str] | None = None, name: str = "") -> None:
    """A request of ten tokens, whose minute is marked."""
    event(key, at, f"req-{name or at}-{charge}", charge, tags=tags or {}, input_tokens=10)
    begun = utc(at)
    with scopes_disabled():
        DirtyBucket.objects.create(
            organization=key.organization,
            hour=begun.replace(minute=0, second=0),
            minute=begun.minute,
        )


def added_up(at: datetime = LATER) -> None:
    while rollups.refresh(at=at):
        pass


def by_tag(
    organization: Organization,
    name: str,
    bounds: tuple[datetime, datetime] = MARCH,
    where: Q | None = None,
    most: int | None = None,
) -> list[tuple[str, Decimal, int]]:
    report = report_of(organization, f"tag:{name}", *bounds, where, most=most)
    assert report.totals == report_of(organization, "team", *bounds, where).totals
    return [(row.label, row.sums.charge, row.sums.requests) for row in report.rows]


def test_each_value_has_its_requests_and_the_rest_has_none(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "0.000000000001", tags={"feature": "search", "env": "prod"})
    used(acme.banner, "2026-03-09T10:00", "2", tags={"feature": "search"})
    used(acme.backend, "2026-03-02T10:30", "4", tags={"feature": "chat", "env": "prod"})
    used(acme.backend, "2026-03-02T11:00", "8")
    used(acme.backend, "2026-04-01T00:00", "16", tags={"feature": "search"})
    added_up()
    assert by_tag(acme.organization, "feature") == [
        ("chat", Decimal(4), 1),
        ("search", Decimal("2.000000000001"), 2),
        ("Without this tag", Decimal(8), 1),
    ]
    assert by_tag(acme.organization, "env") == [
        ("prod", Decimal("4.000000000001"), 2),
        ("Without this tag", Decimal(10), 2),
    ]
    assert tag_names(acme.organization) == ["env", "feature"]


def test_late_requests_and_doing_it_again_change_nothing_else(acme: Tenant) -> None:
    # While the hour is young it is summed by the minute, afterwards as a whole.
    for at in (utc("2026-03-02T10:40"), utc("2026-03-02T10:45"), LATER):
        used(acme.backend, f"2026-03-02T10:{10 if at == LATER else at.minute - 20}", "1", tags={"a": "b"})
        added_up(at)
        added_up(at)
    assert by_tag(acme.organization, "a") == [("b", Decimal(3), 3)]
    with scopes_disabled():
        assert [row.minute for row in TagRollup.objects.all()] == [None]


def test_a_team_and_a_model_narrow_and_nothing_else_does(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "1", tags={"a": "b"})
    used(acme.banner, "2026-03-02T10:00", "2", tags={"a": "b"})
    added_up()
    assert by_tag(acme.organization, "a", where=Q(team_id=acme.ads.pk)) == [("b", Decimal(2), 1)]
    assert by_tag(acme.organization, "a", where=Q(model_group="other")) == []
    with pytest.raises(NotByTag, match="not by key"):
        report_of(acme.organization, "tag:a", *MARCH, Q(key_id=acme.backend.pk))


def test_another_tenants_tags_are_not_ours(acme: Tenant) -> None:
    other = make_tenant("other", "UTC")
    used(other.backend, "2026-03-02T10:00", "1", tags={"a": "b"}, name="other")
    added_up()
    assert by_tag(acme.organization, "a") == []
    assert tag_names(acme.organization) == []


def test_a_midnight_within_an_hour_divides_it(acme: Tenant) -> None:
    used(acme.backend, "2026-03-01T18:29", "1", tags={"7": "b"})
    used(acme.backend, "2026-03-01T18:30", "2", tags={"7": "b"})
    used(acme.backend, "2026-03-01T18:31", "4")
    added_up()
    # The second of March in India.
    bounds = utc("2026-03-01T18:30"), utc("2026-03-02T18:30")
    assert by_tag(acme.organization, "7", bounds) == [
        ("b", Decimal(2), 1),
        ("Without this tag", Decimal(4), 1),
    ]


def test_the_gateways_own_notes_are_no_tags(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "1", tags={"weir.refused_by": "a budget"})
    added_up()
    assert tag_names(acme.organization) == []


def known(organization: Organization, *pairs: tuple[str, str]) -> None:
    with scopes_disabled():
        TagValue.objects.bulk_create(
            TagValue(organization=organization, name=name, value=value) for name, value in pairs
        )


def test_values_beyond_the_bound_are_one_row(acme: Tenant) -> None:
    known(acme.organization, *(("a", f"v{number}") for number in range(MOST_VALUES - 1)))
    for value in ("x", "y", "z"):
        used(acme.backend, "2026-03-02T10:00", "1", tags={"a": value}, name=value)
    added_up()
    used(acme.backend, "2026-03-03T10:00", "1", tags={"a": "y"})
    added_up()
    assert by_tag(acme.organization, "a") == [("x", Decimal(1), 1), ("Further values", Decimal(3), 3)]
    divided = utc("2026-03-02T09:30"), utc("2026-03-02T10:30")
    assert by_tag(acme.organization, "a", divided) == [
        ("x", Decimal(1), 1),
        ("Further values", Decimal(2), 2),
    ]


def test_names_beyond_the_bound_are_not_summed(acme: Tenant) -> None:
    known(acme.organization, *((f"n{number}", "v") for number in range(MOST_NAMES - 1)))
    used(acme.backend, "2026-03-02T10:00", "1", tags={"x": "1", "y": "1", "n0": "2"})
    added_up()
    names = tag_names(acme.organization)
    assert len(names) == MOST_NAMES
    assert ("x" in names, "y" in names) == (True, False)
    assert by_tag(acme.organization, "y") == [("Without this tag", Decimal(1), 1)]
    assert by_tag(acme.organization, "n0") == [("2", Decimal(1), 1)]


def test_only_the_dearest_are_named_and_the_total_kept(acme: Tenant) -> None:
    for number in range(1, 5):
        used(acme.backend, "2026-03-02T10:00", str(number), tags={"a": f"v{number}"})
    used(acme.backend, "2026-03-02T10:00", "9")
    added_up()
    assert by_tag(acme.organization, "a", most=2) == [
        ("v4", Decimal(4), 1),
        ("v3", Decimal(3), 1),
        ("Without this tag", Decimal(9), 1),
        ("2 others", Decimal(3), 2),
    ]


def test_a_wrong_sum_by_tag_is_found_and_settled(acme: Tenant) -> None:
    used(acme.backend, "2026-03-02T10:00", "1", tags={"a": "b"})
    added_up()

    def differences() -> list[tuple[str, str, str, str]]:
        with scopes_disabled():
            found = reconcile.compare().differences
        return [
            (each.what, each.where, each.expected, each.found)
            for each in found
            if each.what.endswith("events and rollups by tag")
        ]

    assert differences() == []
    with scopes_disabled():
        TagRollup.objects.update(charge=5)
    (wrong,) = differences()
    assert wrong[0] == "charge of events and rollups by tag"
    assert "a=b" in wrong[1]
    assert [Decimal(figure) for figure in wrong[2:]] == [1, 5]
    reconcile.bring_up_to_date(settle=True)
    assert differences() == []
    with scopes_disabled():
        TagRollup.objects.all().delete()
    assert {what for what, *_ in differences()} == {
        f"{measure} of events and rollups by tag" for measure in ("requests", "tokens", "cost", "charge")
    }
