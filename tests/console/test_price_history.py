"""The price history of a model: what an organization paid over time, by whoever's price held."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from billing.models import Price
from gateway.console.price_history import rows_of
from gateway.console.price_steps import Markups, Step, steps_of
from gateway.v1.rates import read_rates
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.table import read_table
from tenants.models import AuditEntry, Organization
from tenants.services.organizations import update_organization
from tests.billing.made_usage import utc
from tests.cast import Cast
from tests.console.conftest import SignIn

pytestmark = pytest.mark.django_db
NOW = utc("2026-06-01")


@pytest.fixture
def fast(acme: Cast) -> ModelGroup:
    """The group ``fast``, answered by ``a``; the organization is there since 2025."""
    Organization.objects.filter(pk=acme.organization.pk).update(created_at=utc("2025-01-01"))
    acme.organization.refresh_from_db()
    group = ModelGroup.objects.get(name="fast")
    answered_by(group, "a")
    return group


def answered_by(group: ModelGroup, name: str) -> Deployment:
    provider, _ = Provider.objects.get_or_create(
        name="simulator", defaults={"kind": "simulator", "base_url": "http://127.0.0.1:9/v1"}
    )
    deployment = Deployment.objects.create(provider=provider, name=name, model=name)
    GroupDeployment.objects.create(group=group, deployment=deployment)
    return deployment


def asked(name: str, since: str, output: str | None, **terms: Any) -> None:
    """A provider's price."""
    Price.objects.create(
        deployment=Deployment.objects.get(name=name),
        effective_from=utc(since),
        input=output and Decimal(output) / 4,
        output=output and Decimal(output),
        **terms,
    )


def paid(group: ModelGroup, since: str, output: str | None, organization: Organization | None = None) -> None:
    """A price that tenants pay, or one of them."""
    Price.objects.create(
        model_group=group,
        organization=organization,
        effective_from=utc(since),
        input=output and Decimal(output) / 4,
        output=output and Decimal(output),
    )


def history(acme: Cast) -> list[Step]:
    connection.ensure_connection()
    found = read_table(connection.connection).groups["fast"]
    return steps_of(read_rates(connection.connection), acme.organization, found, Markups(acme.organization))


def told(steps: list[Step]) -> list[tuple[str, list[tuple[str, tuple[str, ...], Decimal | None]]]]:
    return [
        (
            f"{step.since:%Y-%m-%d}",
            [(offer.price.source, offer.names, offer.price.rates.output) for offer in step.offers],
        )
        for step in steps
    ]


def test_an_agreed_price_hides_the_models_and_the_providers_until_it_ends(
    acme: Cast, fast: ModelGroup
) -> None:
    asked("a", "2026-01-01", "2")
    paid(fast, "2026-02-01", "3")
    paid(fast, "2026-03-01", "2.5", acme.organization)
    paid(fast, "2026-04-01", None, acme.organization)
    assert told(history(acme)) == [
        ("2026-01-01", [("provider", (), Decimal(2))]),
        ("2026-02-01", [("model", (), Decimal(3))]),
        ("2026-03-01", [("own", (), Decimal("2.5"))]),
        ("2026-04-01", [("model", (), Decimal(3))]),
    ]


def test_what_changes_nothing_for_the_organization_is_no_step(acme: Cast, fast: ModelGroup) -> None:
    asked("a", "2026-01-01", "2")
    paid(fast, "2026-01-01", "3")
    asked("a", "2026-02-01", "1")
    assert told(history(acme)) == [("2026-01-01", [("model", (), Decimal(3))])]


def test_another_tenants_price_is_not_ours(acme: Cast, other: Cast, fast: ModelGroup) -> None:
    asked("a", "2026-01-01", "2")
    paid(fast, "2026-02-01", "1", other.organization)
    assert told(history(acme)) == [("2026-01-01", [("provider", (), Decimal(2))])]


def test_the_markup_is_that_of_its_time(acme: Cast, fast: ModelGroup) -> None:
    asked("a", "2026-01-01", "2")
    update_organization(acting_user=None, organization=acme.organization, markup=Decimal("0.5"))
    AuditEntry.objects.filter(detail__has_key="markup").update(at=utc("2026-03-01"))
    assert told(history(acme)) == [
        ("2026-01-01", [("provider", (), Decimal(2))]),
        ("2026-03-01", [("provider", (), Decimal(3))]),
    ]


def test_where_prices_differ_by_who_answers_each_has_its_name(acme: Cast, fast: ModelGroup) -> None:
    answered_by(fast, "b")
    asked("a", "2026-01-01", "2")
    asked("b", "2026-02-01", "4")
    assert told(history(acme)) == [
        ("2026-01-01", [("provider", (), Decimal(2))]),
        ("2026-02-01", [("provider", ("a",), Decimal(2)), ("provider", ("b",), Decimal(4))]),
    ]


def test_a_time_without_a_price_is_a_step_without_one(acme: Cast, fast: ModelGroup) -> None:
    asked("a", "2026-01-01", "2")
    asked("a", "2026-02-01", None)
    asked("a", "2026-03-01", "2")
    assert [since for since, offers in told(history(acme)) if not offers] == ["2026-02-01"]


def test_what_was_over_before_the_organization_was_there_is_left_out(acme: Cast, fast: ModelGroup) -> None:
    asked("a", "2024-01-01", "9")
    asked("a", "2024-06-01", "2")
    assert told(history(acme)) == [("2024-06-01", [("provider", (), Decimal(2))])]


def test_the_table_is_newest_first_and_says_what_changed(acme: Cast, fast: ModelGroup) -> None:
    asked("a", "2026-01-01", "2")
    asked("a", "2026-02-01", "1")
    asked("a", "2026-07-01", "1.25")
    rows = rows_of(history(acme), ["output"], NOW)
    assert [(row.state, row.cells[0].amount, row.cells[0].change) for row in rows] == [
        ("coming", Decimal("1.25"), "+25%"),
        ("now", Decimal(1), "\N{MINUS SIGN}50%"),
        ("past", Decimal(2), ""),
    ]


def test_a_price_that_stays_is_one_row_while_another_changes(acme: Cast, fast: ModelGroup) -> None:
    answered_by(fast, "b")
    asked("a", "2026-01-01", "2")
    asked("b", "2026-01-01", "4")
    asked("b", "2026-02-01", "5")
    rows = rows_of(history(acme), ["output"], NOW)
    assert [
        (f"{row.run.since:%m-%d}", row.run.offer and row.run.offer.names, row.cells[0].amount, row.state)
        for row in rows
    ] == [
        ("02-01", ("b",), Decimal(5), "now"),
        ("01-01", ("a",), Decimal(2), "now"),
        ("01-01", ("b",), Decimal(4), "past"),
    ]


def test_the_page_shows_each_price_with_its_tiers_and_hours(
    acme: Cast, fast: ModelGroup, sign_in: SignIn
) -> None:
    asked(
        "a",
        "2026-01-01",
        "2",
        tiers=[{"above": 200_000, "output": "5"}],
        peaks=[{"start": "09:00", "end": "12:00", "multiplier": "2"}],
    )
    page = sign_in(acme.fay).get("/o/acme/models/fast/prices/").content.decode()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "prompts over 200,000 tokens: output $5" in text
    assert "times 2 from 09:00 to 12:00 UTC, every day" in text
    # 2026-01-01T00:00 UTC is one o'clock in Berlin.
    assert "1 Jan 2026, 01:00" in text
    assert page.count('class="step s1"') == 1


def test_the_chart_shows_the_class_that_was_asked_for(acme: Cast, fast: ModelGroup, sign_in: SignIn) -> None:
    asked("a", "2026-01-01", "2")
    client = sign_in(acme.fay)
    assert b'aria-label="Input, US dollars' in client.get("/o/acme/models/fast/prices/?class=input").content
    assert b'aria-label="Output, US dollars' in client.get("/o/acme/models/fast/prices/?class=x").content


def test_a_model_without_a_price_says_so(acme: Cast, fast: ModelGroup, sign_in: SignIn) -> None:
    assert b"No price yet" in sign_in(acme.fay).get("/o/acme/models/fast/prices/").content


def test_a_member_without_the_money_sees_neither_page_nor_tab(
    acme: Cast, fast: ModelGroup, sign_in: SignIn
) -> None:
    client = sign_in(acme.bob)
    assert client.get("/o/acme/models/fast/prices/").status_code == 403
    assert b"Price history" not in client.get("/o/acme/models/fast/").content


def test_a_tenants_page_never_has_what_a_provider_asks(acme: Cast, fast: ModelGroup, sign_in: SignIn) -> None:
    asked("a", "2026-01-01", "1.7171")
    paid(fast, "2026-01-01", "3")
    page = sign_in(acme.ann).get("/o/acme/models/fast/prices/").content.decode()
    assert "1.7171" not in page
    assert "$3" in page


def test_operators_see_what_a_provider_asked(acme: Cast, fast: ModelGroup, sign_in: SignIn) -> None:
    asked("a", "2026-01-01", "1.7171")
    asked("a", (datetime.now(UTC) + timedelta(days=9)).strftime("%Y-%m-%dT00:00"), "2")
    acme.ann.user.is_staff = True
    acme.ann.user.save(update_fields=["is_staff"])
    page = sign_in(acme.ann).get("/operator/deployments/a/prices/").content.decode()
    assert page.index("Coming") < page.index("In force")
    assert "$1.7171" in page


def test_the_list_says_what_holds_since_when_and_what_comes(
    acme: Cast, fast: ModelGroup, sign_in: SignIn
) -> None:
    now = datetime.now(UTC)
    asked("a", "2026-01-01", "2")
    asked("a", "2026-02-01", "1.5")
    asked("a", (now + timedelta(days=9)).strftime("%Y-%m-%dT12:00"), "2.5")
    page = sign_in(acme.fay).get("/o/acme/prices/?q=FAST").content.decode()
    (row,) = [row for row in page.split("<tr>") if 'href="/o/acme/models/fast/prices/"' in row]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row))
    coming = now + timedelta(days=9)
    assert "$0.38 in, $1.50 out 1 Feb 2026 output \N{MINUS SIGN}25%" in re.sub(r" ,", ",", text)
    assert f"{coming:%-d %b %Y}" in text


def test_the_list_has_only_models_the_organization_may_use(
    acme: Cast, fast: ModelGroup, sign_in: SignIn
) -> None:
    acme.organization.model_groups = ["quality"]
    acme.organization.save(update_fields=["model_groups"])
    page = sign_in(acme.fay).get("/o/acme/prices/").content.decode()
    assert "/o/acme/models/quality/prices/" in page
    assert "/o/acme/models/fast/prices/" not in page
