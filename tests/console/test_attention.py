"""What the overview says that needs attention."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django_scopes import scopes_disabled

from billing.calendars import period_bounds
from billing.models import Budget
from billing.services.quotas import set_quota
from tenants.models import ApiKey, Membership, Team
from tests.cast import Cast
from tests.console.conftest import SignIn

pytestmark = pytest.mark.django_db


def budget(target: ApiKey | Membership | Team, limit: str, spent: str) -> None:
    """A budget a month, and its counter in this one."""
    scope = {ApiKey: "key", Membership: "member", Team: "team"}[type(target)]
    quota = set_quota(
        acting_user=None, scope=scope, target=target, metric="budget", limit=Decimal(limit), period="month"
    )
    start, end = period_bounds("month", datetime.now(UTC), target.organization.time_zone)
    with scopes_disabled():
        Budget.objects.create(
            organization=target.organization,
            quota=quota,
            period_start=start,
            period_end=end,
            limit=quota.limit,
            spent=Decimal(spent),
        )


def titles(sign_in: SignIn, who: Membership) -> list[tuple[str, str]]:
    matters = sign_in(who).get("/o/acme/").context["matters"]
    return [(matter.title, matter.detail) for matter in matters]


def test_a_budget_needs_attention_from_four_fifths_on(acme: Cast, sign_in: SignIn) -> None:
    budget(acme.search_key, "10", "8")
    budget(acme.support_key, "10", "7.99")
    budget(acme.bob, "8", "8")
    budget(acme.cleo, "1", "0")
    budget(acme.search, "9", "8")
    budget(acme.support, "100", "7.99")
    assert titles(sign_in, acme.ann) == [
        ("bob@acme.example: budget a month used up", "$8.00 of $8.00 spent"),
        (f"{acme.search.name}: budget a month nearly used up", "$8.00 of $9.00 spent"),
        (f"{acme.search_key.name}: budget a month nearly used up", "$8.00 of $10.00 spent"),
    ]


def test_a_member_is_told_of_nobody_elses_budget(acme: Cast, sign_in: SignIn) -> None:
    for target in (acme.search_key, acme.bob, acme.search):
        budget(target, "8", "8")
    assert titles(sign_in, acme.cleo) == []
