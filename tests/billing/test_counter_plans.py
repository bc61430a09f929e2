"""A counter that is made while a request waits reads what it counts from an index, and not all of a period."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from billing.leases import rows
from billing.services.quotas import set_quota
from tests.billing.made_usage import event, make_tenant, utc

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("scope", "condition"), [("end_user", r"end_user\)::text = "), ("key", "key_id = ")])
def test_the_sum_of_one_end_user_or_key_is_read_from_its_index(scope: str, condition: str) -> None:
    tenant = make_tenant("acme")
    target: Any = tenant.organization if scope == "end_user" else tenant.batch
    quota = set_quota(
        acting_user=None,
        scope=scope,
        target=target,
        metric="budget",
        limit=Decimal(1),
        period="total",
    )
    first = utc("2026-03-01T00:00")
    for number in range(300):
        at = first + timedelta(minutes=number)
        key = tenant.batch if number == 7 else tenant.backend
        event(key, f"{at:%Y-%m-%dT%H:%M}", f"req-{number}", end_user=f"user-{number}")
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
    assert re.search(rf"\A.*?Index Cond: [^\n]*{condition}", of_events, re.DOTALL), plan
