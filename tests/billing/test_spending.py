"""What a counter begins with is what its period's events say, whichever sums stand for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django_scopes import scopes_disabled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import rollups, spans
from billing.calendars import PERIODS, period_bounds
from billing.leases import rows
from billing.models import DirtyBucket, Quota, UsageEvent, UsageRollup, UsageSpanSum
from billing.services.quotas import set_quota
from billing.services.wallet import wallet
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db

# Days and months of the first begin an hour or two off UTC, with a change of clocks in March; of the second
# in the midst of an hour, so it has none that are summed.
ZONES = ("Europe/Berlin", "Asia/Kolkata", "UTC")
BEGAN = utc("2026-02-26T00:00")
SPAN = timedelta(days=40)
END_USERS = ("", "eve", "bob")
MODELS = ("fast", "large")


@dataclass(frozen=True)
class Used:
    """A request, and how its hour is marked: by its minute, as the shipper does, or as a whole."""

    at: datetime
    key: int
    end_user: str
    model_group: str
    charge: Decimal
    by_minute: bool


@dataclass(frozen=True)
class Summed:
    """The sums are brought up to what is settled ``at`` that moment; days and months too, or hours alone."""

    at: datetime
    whole: bool


moments = st.integers(0, int(SPAN.total_seconds()) - 1).map(lambda second: BEGAN + timedelta(seconds=second))
# Many in the same few hours, so that they meet.
near = st.integers(0, 6 * 3600).map(lambda second: utc("2026-03-29T20:00") + timedelta(seconds=second))
uses = st.builds(
    Used,
    st.one_of(moments, near),
    st.integers(0, 2),
    st.sampled_from(END_USERS),
    st.sampled_from(MODELS),
    st.integers(1, 10**6).map(lambda each: Decimal(each).scaleb(-6)),
    st.booleans(),
)
sums = st.builds(Summed, st.one_of(moments, near, st.just(BEGAN + 2 * SPAN)), st.booleans())


def use(tenant: Tenant, number: int, used: Used) -> None:
    key = (tenant.backend, tenant.batch, tenant.banner)[used.key]
    event(
        key,
        used.at.strftime("%Y-%m-%dT%H:%M:%S"),
        f"req-{number}",
        str(used.charge),
        end_user=used.end_user,
        model_group=used.model_group,
    )
    with scopes_disabled():
        DirtyBucket.objects.create(
            organization=key.organization,
            hour=used.at.replace(minute=0, second=0),
            minute=used.at.minute if used.by_minute else None,
        )


def sum_up(summed: Summed) -> None:
    rollups.refresh(at=summed.at)
    while summed.whole and spans.refresh(at=summed.at):
        pass


def quotas_of(tenant: Tenant) -> list[tuple[Quota, str, dict[str, Any]]]:
    """A quota of each scope and some with a model; with its end user, and the events it counts."""
    made = []
    of_scopes: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("organization", tenant.organization, "", {}),
        ("team", tenant.search, "", {"team_id": tenant.search.pk}),
        ("member", tenant.ann, "", {"member_id": tenant.ann.pk}),
        ("key", tenant.batch, "", {"key_id": tenant.batch.pk}),
        ("end_user", tenant.organization, "eve", {"end_user": "eve"}),
    ]
    for name, target, subject, counted in of_scopes:
        for model in ("", "large"):
            quota = set_quota(
                acting_user=None,
                scope=name,
                target=target,
                metric="budget",
                limit=Decimal(1),
                period="total",
                model_group=model,
            )
            made.append((quota, subject, counted | ({"model_group": model} if model else {})))
    return made


def opening(quota: Quota, subject: str, start: datetime, end: datetime | None) -> Decimal:
    """What a counter of ``quota`` would begin with."""
    values = {
        "organization": quota.organization_id,
        "quota": quota.pk,
        "subject": subject,
        "start": start,
        "end": end,
        "amount": Decimal(0),
    }
    with connection.cursor() as cursor:
        cursor.execute(rows.LOOK_QUOTA[quota.scope], values)
        _, spent, _, _ = cursor.fetchone()
        return Decimal(spent)


def of_events(start: datetime, end: datetime | None, counted: dict[str, Any]) -> Decimal:
    with scopes_disabled():
        found = UsageEvent.objects.filter(started_at__gte=start, **counted)
        if end is not None:
            found = found.filter(started_at__lt=end)
        return sum((each.charge for each in found), Decimal(0))


@given(
    zone=st.sampled_from(ZONES),
    steps=st.lists(st.one_of(uses, uses, uses, sums), max_size=25),
    present=st.one_of(moments, near),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_scope_begins_with_the_sum_of_its_periods_events(
    zone: str, steps: list[Used | Summed], present: datetime
) -> None:
    with transaction.atomic():
        tenant = make_tenant("acme", zone)
        for number, step in enumerate(steps):
            if isinstance(step, Used):
                use(tenant, number, step)
            else:
                sum_up(step)
        for quota, subject, counted in quotas_of(tenant):
            for period in PERIODS:
                start, end = period_bounds(period, present, zone)
                assert opening(quota, subject, start, end) == of_events(start, end, counted), (
                    quota.scope,
                    period,
                )
        assert wallet(tenant.organization).opening == of_events(BEGAN, None, {})
        transaction.set_rollback(True)


def test_days_hours_and_minutes_that_hold_stand_for_their_events() -> None:
    tenant = make_tenant("acme", "UTC")
    now = utc("2026-03-20T10:30")
    for number, at in enumerate(
        ("2026-03-02T08:00", "2026-03-20T07:10", "2026-03-20T10:05", "2026-03-20T10:20")
    ):
        use(tenant, number, Used(utc(at), 0, "", "fast", Decimal(1), by_minute=True))
    sum_up(Summed(now, whole=True))
    # Still to be summed.
    use(tenant, 9, Used(utc("2026-03-20T10:20:30"), 0, "", "fast", Decimal(1), by_minute=True))
    # What the sums say is made to differ, each by an amount of its own, to see which of them are read.
    with scopes_disabled():
        UsageSpanSum.objects.filter(span__kind="month").update(charge=100)
        UsageSpanSum.objects.filter(span__kind="day").update(charge=10_000)
        UsageRollup.objects.filter(minute=5).update(charge=1_000_000)
        UsageRollup.objects.filter(minute=20).update(charge=100_000_000)
    quota = set_quota(
        acting_user=None,
        scope="organization",
        target=tenant.organization,
        metric="budget",
        limit=Decimal(1),
        period="month",
    )
    start, end = period_bounds("month", now, "UTC")
    # The month up to this day, this day up to its hours that are over, one minute, and two events of a marked one.
    assert opening(quota, "", start, end) == Decimal(100 + 10_000 + 1_000_000 + 2)


def test_a_span_with_an_hour_that_changed_is_not_read() -> None:
    tenant = make_tenant("acme", "UTC")
    use(tenant, 1, Used(utc("2026-03-02T08:00"), 0, "", "fast", Decimal(1), by_minute=True))
    sum_up(Summed(utc("2026-04-03T12:00"), whole=True))
    use(tenant, 2, Used(utc("2026-03-02T09:00"), 0, "", "fast", Decimal(2), by_minute=True))
    assert wallet(tenant.organization).opening == Decimal(3)
