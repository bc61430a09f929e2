"""500 mixed requests: every place that shows the money shows the same, and it is tokens times price."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django_scopes import scope

from billing.ledger import balances
from billing.reports import cost_report
from tenants.models import ApiKey
from tenants.permissions import Role
from tenants.services.keys import create_key
from tenants.services.members import add_member
from tenants.services.teams import create_team
from tests.stack import Stack, Tenant

MILLION = Decimal(1_000_000)
# US dollars per token, from tests.stack.PRICE.
INPUT, CACHED, OUTPUT = Decimal(2) / MILLION, Decimal("0.20") / MILLION, Decimal(8) / MILLION


@dataclass(frozen=True)
class Caller:
    key: ApiKey
    secret: str
    email: str


def callers(tenant: Tenant) -> list[Caller]:
    """Three keys of two people in two teams."""
    slug = tenant.organization.slug
    second = create_team(acting_user=None, organization=tenant.organization, slug="second", name="Second")
    bob = add_member(
        acting_user=None, organization=tenant.organization, email=f"bob@{slug}.example", role=Role.MEMBER
    )
    made = [create_key(acting_user=None, team=second, name=name, owner=bob) for name in ("b1", "b2")]
    return [
        Caller(tenant.key, tenant.secret, str(tenant.owner.user)),
        *(Caller(key, secret, str(bob.user)) for key, secret in made),
    ]


def send(tenant: Tenant, caller: Caller, number: int) -> Decimal:
    """One request of a kind that ``number`` chooses; returns its charge worked out by hand."""
    sdk = tenant.client(caller.secret)
    words = 1 + number % 17
    padding = " ".join(["word"] * (number % 5))
    kind = number % 5
    if kind == 0:
        text = f"{padding} embed this"
        sdk.embeddings.create(model="sim-embed", input=text)
        return len(text.split()) * INPUT
    text = f"{padding} words={words}"
    cached = 0
    if kind == 1:
        text += " cached=1"
        cached = 1
    ask: dict[str, Any] = {
        "model": "sim-small",
        "messages": [{"role": "user", "content": text}],
        "user": f"u{number % 3}",
    }
    if kind == 2:
        list(sdk.chat.completions.create(**ask, stream=True))
    elif kind == 3:
        words = min(words, 6)
        sdk.chat.completions.create(**ask, max_tokens=6)
    else:
        sdk.chat.completions.create(**ask)
    return (len(text.split()) - cached) * INPUT + cached * CACHED + words * OUTPUT


def test_report_csv_export_and_ledger_show_the_sum_worked_out_by_hand(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(
        slug, quotas=[("team", "budget", "1", "day"), ("key", "requests_per_minute", "5000", "")]
    )
    people = callers(tenant)
    with ThreadPoolExecutor(20) as pool:
        charges = list(pool.map(lambda number: send(tenant, people[number % 3], number), range(500)))
    by_person: dict[str, Decimal] = {}
    for number, charge in enumerate(charges):
        email = people[number % 3].email
        by_person[email] = by_person.get(email, Decimal(0)) + charge
    expected = sum(charges, Decimal(0))
    stack.settled()

    # Exit status 0 means that no SystemExit or CommandError is raised.
    call_command("reconcile")

    now = datetime.now(UTC)
    organization = tenant.organization
    with scope(organization=organization):
        report = cost_report(organization, "member", now - timedelta(days=1), now + timedelta(days=1))
        assert report.totals.charge == expected
        assert report.totals.requests == 500
        assert {row.label: row.sums.charge for row in report.rows} == by_person
        ledger = balances(organization)
        assert ledger["receivable"] == expected
        assert ledger["revenue"] == -expected

    days = {
        "from": (now - timedelta(days=1)).date().isoformat(),
        "to": (now + timedelta(days=1)).date().isoformat(),
    }
    output = io.StringIO()
    call_command("export_usage", org=slug, first=days["from"], last=days["to"], format="csv", stdout=output)
    rows = list(csv.DictReader(io.StringIO(output.getvalue())))
    assert len(rows) == 500
    assert sum(Decimal(row["charge"]) for row in rows) == expected
    lines = io.StringIO()
    call_command("export_usage", org=slug, first=days["from"], last=days["to"], format="jsonl", stdout=lines)
    assert sum(Decimal(json.loads(line)["charge"]) for line in lines.getvalue().splitlines()) == expected

    browser = Client()
    browser.force_login(tenant.owner.user)
    # Streamed: read the answer whole before looking at it.
    raw = b"".join(browser.get(f"/o/{slug}/costs/usage.csv", days))
    shown = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    assert sum(Decimal(row["charge"]) for row in shown) == expected
    page = browser.get(f"/o/{slug}/costs/report.csv", {"by": "member", **days})
    body = b"".join(page).decode("utf-8-sig")
    listed = list(csv.DictReader(io.StringIO(body)))
    column = next(name for name in listed[0] if "charge" in name.lower())
    people_rows = [row for row in listed if any(email in row.values() for email in by_person)]
    assert sum(Decimal(row[column]) for row in people_rows) == expected


def test_reconcile_finds_a_counter_that_was_tampered_with(stack: Stack, slug: str) -> None:
    from billing.models import Budget

    tenant = stack.tenant(slug)
    send(tenant, Caller(tenant.key, tenant.secret, ""), 4)
    stack.settled()
    with scope(organization=tenant.organization):
        wallet = Budget.objects.get(quota__isnull=True)
        right = wallet.spent
        Budget.objects.filter(pk=wallet.pk).update(spent=right + 1)
    output = io.StringIO()
    try:
        with pytest.raises(SystemExit) as caught:
            call_command("reconcile", stdout=output)
        assert caught.value.code == 1
        assert slug in output.getvalue()
    finally:
        with scope(organization=tenant.organization):
            Budget.objects.filter(pk=wallet.pk).update(spent=right)
