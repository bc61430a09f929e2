"""The members page: what each member and each team has spent, and the budgets of their own."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.calendars import period_bounds
from billing.models import Budget, Quota
from billing.reports import spent_since
from billing.services.quotas import set_quota
from tenants.models import ApiKey, Membership, Team
from tenants.permissions import Role
from tenants.services.members import add_member
from tenants.services.teams import create_team
from tests.billing.made_usage import rollup, utc
from tests.cast import Cast
from tests.console.conftest import SignIn

pytestmark = pytest.mark.django_db
DASH = "\N{EN DASH}"


def this_hour() -> str:
    """The UTC hour that is under way, as ``rollup`` wants it; in Berlin it lies within the month."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:00")


def spend(key: ApiKey, charge: str) -> None:
    rollup(key, this_hour(), charge)


def budget(of: Membership | Team, limit: int, period: str = "month") -> Quota:
    scope = "team" if isinstance(of, Team) else "member"
    return set_quota(
        acting_user=None, scope=scope, target=of, metric="budget", limit=Decimal(limit), period=period
    )


def cells(page: bytes, name: str) -> tuple[str, str]:
    """The text of the cells "Spent this month" and "Budget" in the row of ``name``."""
    (row,) = [row for row in page.decode().split("<tr>") if f">{name}</" in row and "data-label" in row]
    found = [
        re.search(rf'data-label="{label}"[^>]*>(.*?)</td>', row, re.DOTALL)
        for label in ("Spent this month", "Budget")
    ]
    spent, limits = (re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", cell[1])).strip() for cell in found if cell)
    return spent, limits


def test_each_member_has_their_spend_beside_their_budget(acme: Cast, sign_in: SignIn) -> None:
    budget(acme.bob, 40)
    spend(acme.search_key, "10")
    spend(acme.support_key, "3")
    page = sign_in(acme.ann).get("/o/acme/members/").content
    assert cells(page, "bob@acme.example") == ("$10.00", "$10.00 of $40.00 a month Change")
    assert 'aria-label="25% used"' in page.decode()
    # The support bot has no owner.
    assert cells(page, "cleo@acme.example") == ("$0.00", "Set a budget")


def test_a_team_has_the_spend_of_its_keys_beside_its_budget(acme: Cast, sign_in: SignIn) -> None:
    budget(acme.support, 12)
    spend(acme.support_key, "3")
    page = sign_in(acme.ann).get("/o/acme/members/").content
    assert cells(page, "Support") == ("$3.00", "$3.00 of $12.00 a month Change")
    assert cells(page, "Search") == ("$0.00", "Set a budget")


def test_a_budget_with_a_counter_says_what_that_counted(acme: Cast, sign_in: SignIn) -> None:
    quota, now = budget(acme.bob, 40, "day"), datetime.now(UTC)
    start, end = period_bounds("day", now, "Europe/Berlin")
    Budget.objects.create(
        organization=acme.organization, quota=quota, period_start=start, period_end=end, limit=40, spent=7
    )
    page = sign_in(acme.ann).get("/o/acme/members/").content
    assert cells(page, "bob@acme.example") == ("$0.00", "$7.00 of $40.00 a day Change")


def test_a_counter_of_a_period_that_is_over_does_not_count(acme: Cast, sign_in: SignIn) -> None:
    quota, now = budget(acme.bob, 40, "day"), datetime.now(UTC)
    start, _ = period_bounds("day", now, "Europe/Berlin")
    Budget.objects.create(
        organization=acme.organization,
        quota=quota,
        period_start=start - timedelta(days=1),
        period_end=start,
        limit=40,
        spent=7,
    )
    page = sign_in(acme.ann).get("/o/acme/members/").content
    assert cells(page, "bob@acme.example")[1] == "$0.00 of $40.00 a day Change"


def test_a_member_sees_their_own_and_nobody_elses(acme: Cast, sign_in: SignIn) -> None:
    for member in (acme.bob, acme.cleo):
        budget(member, 40)
    spend(acme.search_key, "10")
    page = sign_in(acme.bob).get("/o/acme/members/").content
    assert cells(page, "bob@acme.example") == ("$10.00", "$10.00 of $40.00 a month")
    assert cells(page, "cleo@acme.example") == (DASH, DASH)


def test_a_team_member_sees_its_limit_and_its_admin_the_spend(acme: Cast, sign_in: SignIn) -> None:
    for team in (acme.search, acme.support):
        budget(team, 12)
    spend(acme.search_key, "3")
    spend(acme.support_key, "4")
    by_bob = sign_in(acme.bob).get("/o/acme/members/").content
    assert cells(by_bob, "Search") == ("$3.00", "$3.00 of $12.00 a month Change")
    assert cells(by_bob, "Support") == (DASH, DASH)
    assert cells(sign_in(acme.cleo).get("/o/acme/members/").content, "Support") == (DASH, "$12.00 a month")


def test_the_link_opens_the_form_of_that_budget(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.adam)
    page = client.get("/o/acme/members/").content.decode()
    for anchor in (f"member-{acme.cleo.pk}", f"team-{acme.search.pk}"):
        assert f'href="/o/acme/quotas/?edit={anchor}#{anchor}"' in page
        form = client.get(f"/o/acme/quotas/?edit={anchor}").content.decode()
        assert f'action="/o/acme/quotas/{anchor}/"' in form


def test_more_members_teams_and_budgets_ask_no_more_questions(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.ann)
    budget(acme.bob, 40)
    budget(acme.search, 40)
    client.get("/o/acme/members/")
    with CaptureQueriesContext(connection) as few:
        client.get("/o/acme/members/")
    for number in range(10):
        person = add_member(
            acting_user=None,
            organization=acme.organization,
            email=f"p{number}@acme.example",
            role=Role.MEMBER,
        )
        team = create_team(
            acting_user=None, organization=acme.organization, slug=f"t{number}", name=f"Team {number}"
        )
        budget(person, 40)
        budget(team, 40)
    with CaptureQueriesContext(connection) as many:
        client.get("/o/acme/members/")
    assert len(many) == len(few)


def test_since_the_beginning_is_every_hour_there_is(acme: Cast) -> None:
    rollup(acme.search_key, "2024-02-29T10:00", "1")
    rollup(acme.search_key, "2026-03-15T09:00", "2")
    found = spent_since(acme.organization, "member", "total", at=utc("2026-03-15T09:30"))
    assert {pk: sums.charge for pk, sums in found.items()} == {acme.bob.pk: Decimal(3)}
