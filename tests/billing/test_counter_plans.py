"""A counter that is made while a request waits reads events by index, of the times whose sums changed alone."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from billing.leases import rows
from billing.models import DirtyBucket
from billing.services.quotas import set_quota
from tests.billing.made_usage import event, make_tenant, utc

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("scope", ["organization", "team", "member", "key", "end_user"])
def test_the_events_of_a_marked_hour_are_read_from_an_index(scope: str) -> None:
    tenant = make_tenant("acme")
    targets: dict[str, Any] = {"team": tenant.search, "member": tenant.ann, "key": tenant.batch}
    quota = set_quota(
        acting_user=None,
        scope=scope,
        target=targets.get(scope, tenant.organization),
        metric="budget",
        limit=Decimal(1),
        period="total",
    )
    first = utc("2026-03-01T00:00")
    for number in range(300):
        at = first + timedelta(minutes=number)
        event(tenant.backend, f"{at:%Y-%m-%dT%H:%M}", f"req-{number}", end_user=f"user-{number}")
    DirtyBucket.objects.create(organization=tenant.organization, hour=first)
    values = {
        "organization": tenant.organization.pk,
        "quota": quota.pk,
        "subject": "user-7" if scope == "end_user" else "",
        "start": utc("1970-01-01T00:00"),
        "end": None,
        "amount": Decimal(0),
    }
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE billing_usageevent")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {rows.LOOK_QUOTA[scope]}", values)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    # Of the one partition that has events.
    _, _, of_events = plan.partition("on billing_usageevent_2026_03 ")
    assert re.search(r"\A.*?Index Cond: [^\n]*started_at >= ", of_events, re.DOTALL), plan
