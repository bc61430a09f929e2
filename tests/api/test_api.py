"""The JSON API: shapes, pages, who gets in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing.usage_export import COLUMNS
from tenants.models import Membership
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_member, make_tenant, rollup

pytestmark = pytest.mark.django_db

BASE = "/api/organizations/acme"
MARCH = "from=2026-03-01&to=2026-03-31"


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def signed_in(membership: Membership) -> Client:
    client = Client()
    client.force_login(membership.user)
    return client


@pytest.fixture
def owner(acme: Tenant) -> Client:
    return signed_in(make_member(acme.organization, "owner@acme.example", Role.OWNER))


def get(client: Client, path: str) -> Any:
    response = client.get(f"{BASE}/{path}")
    assert response.status_code == 200, response.content
    return response.json()


def test_usage_has_the_columns_of_the_export_and_exact_strings(acme: Tenant, owner: Client) -> None:
    event(acme.backend, "2026-03-01T10:00", "req-1", "0.000000000004", end_user="u1")
    answer = get(owner, f"usage?{MARCH}")
    row = answer["data"][0]
    assert tuple(row) == COLUMNS
    assert (row["request_id"], row["key"], row["charge"], row["cost"]) == (
        "req-1",
        "backend",
        "0.000000000004",
        None,
    )
    assert answer["next"] is None


def test_usage_comes_in_pages_without_gap_or_repetition(acme: Tenant, owner: Client) -> None:
    for number in range(5):
        event(acme.backend, f"2026-03-01T10:00:0{number // 2}", f"req-{number}")
    seen, query = [], f"{MARCH}&limit=2"
    while True:
        answer = get(owner, f"usage?{query}")
        seen += [row["request_id"] for row in answer["data"]]
        if answer["next"] is None:
            break
        query = f"{MARCH}&limit=2&cursor={answer['next']}"
    assert seen == [f"req-{number}" for number in range(5)]


def test_the_report_adds_up(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1.5", requests=3, errors=1, input_tokens=10)
    rollup(acme.banner, "2026-03-02T10:00", "0.25", requests=1, output_tokens=4)
    answer = get(owner, f"report?by=team&{MARCH}")
    assert [(row["label"], row["charge"], row["requests"]) for row in answer["rows"]] == [
        ("search", "1.50", 3),
        ("ads", "0.25", 1),
    ]
    assert answer["totals"] == {
        "requests": 4,
        "errors": 1,
        "input_tokens": 10,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 4,
        "reasoning_tokens": 0,
        "charge": "1.75",
    }
    # March in Berlin: from 1 March 00:00 at +1 to 1 April 00:00 at +2.
    assert (answer["start"], answer["end"]) == ("2026-02-28T23:00:00+00:00", "2026-03-31T22:00:00+00:00")
    assert (answer["currency"], answer["time_zone"]) == ("USD", "Europe/Berlin")


def test_a_member_gets_the_report_of_their_own_keys(acme: Tenant) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "1")
    rollup(acme.batch, "2026-03-02T10:00", "2")
    assert get(signed_in(acme.ann), f"report?{MARCH}")["totals"]["charge"] == "1.00"


def test_operators_also_get_what_providers_ask(acme: Tenant, owner: Client) -> None:
    rollup(acme.backend, "2026-03-02T10:00", "3", cost=Decimal(2))
    event(acme.backend, "2026-03-02T10:00", "req-1", "3", cost=Decimal(2))
    operator = make_member(acme.organization, "op@weir.example", Role.OWNER)
    operator.user.is_staff = True
    operator.user.save(update_fields=["is_staff"])
    staff = signed_in(operator)
    assert get(staff, f"report?{MARCH}")["totals"]["margin"] == "1.00"
    assert get(staff, f"usage?{MARCH}")["data"][0]["cost"] == "2.00"
    assert "cost" not in get(owner, f"report?{MARCH}")["totals"]


def test_keys_are_listed_without_anything_secret(acme: Tenant, owner: Client) -> None:
    body = owner.get(f"{BASE}/keys")
    keys = body.json()["data"]
    assert [(key["team"], key["name"], key["owner"], key["status"]) for key in keys] == [
        ("ads", "banner", None, "active"),
        ("search", "backend", "ann@acme.example", "active"),
        ("search", "batch", None, "active"),
    ]
    assert "digest" not in body.content.decode()
    assert acme.backend.digest not in body.content.decode()
    assert [key["name"] for key in get(signed_in(acme.ann), "keys")["data"]] == ["backend"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("usage?from=x", "from: “x” is no date"),
        ("usage?limit=0", "limit: use a number from 1 to 1000"),
        ("usage?limit=9999999999999999999", "limit: use a number from 1 to 1000"),
        ("usage?cursor=x", "cursor: "),
        ("report?by=colour", "by: use one of user, member"),
        ("report?by=deployment", "by: use one of user, member"),
        ("report?team=none-such", "team: there is no team"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_a_400_that_names_it(
    owner: Client, path: str, message: str
) -> None:
    response = owner.get(f"{BASE}/{path}")
    assert response.status_code == 400
    assert message in response.json()["detail"]


@pytest.mark.parametrize("path", ["usage", "report", "keys"])
def test_who_gets_in(acme: Tenant, owner: Client, path: str) -> None:
    globex = signed_in(make_member(make_tenant("globex").organization, "boss@globex.example", Role.OWNER))
    assert Client().get(f"{BASE}/{path}").status_code == 401
    assert globex.get(f"{BASE}/{path}").status_code == 404
    assert owner.get(f"{BASE}/{path}").status_code == 200
    assert owner.post(f"{BASE}/{path}").status_code == 405


def test_raw_usage_needs_its_permission(acme: Tenant) -> None:
    assert signed_in(acme.ann).get(f"{BASE}/usage").status_code == 403
    lead = make_member(acme.organization, "lead@acme.example", Role.MEMBER, acme.ads)
    assert signed_in(lead).get(f"{BASE}/usage").status_code == 403
