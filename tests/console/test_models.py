"""The pages about models: what a tenant may see of where its requests go, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_scopes import scopes_disabled
from redis import Redis

from billing.services.prices import set_price
from gateway.attempts import measured
from gateway.v1.board import CIRCUITS
from gateway.v1.pulse import fingerprint
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.services.providers import create_provider
from tenants.models import Plan
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_member, make_tenant

pytestmark = pytest.mark.django_db

SECRETS = ("first-secret-of-the-provider-0001", "second-secret-of-the-provider-0002")


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def owner(acme: Tenant) -> Client:
    client = Client()
    client.force_login(make_member(acme.organization, "owner@acme.example", Role.OWNER).user)
    return client


@pytest.fixture
def provider() -> Provider:
    return create_provider(
        acting_user=None,
        name="upstream",
        kind="generic",
        base_url="http://127.0.0.1:9/v1",
        credentials=list(SECRETS),
    )


@pytest.fixture
def board() -> Iterator[Any]:
    """The circuits in Redis, as workers post them; empty before and after."""
    with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        redis.delete(CIRCUITS)
        yield redis
        redis.delete(CIRCUITS)


def deployed(provider: Provider, name: str, price: str | None = "1", **columns: Any) -> Deployment:
    """A deployment that costs ``price`` US dollars per million input tokens and twice that for output."""
    made = Deployment.objects.create(provider=provider, name=name, model=f"{name}-model", **columns)
    if price is not None:
        set_price(acting_user=None, deployment=made, input=Decimal(price), output=Decimal(price) * 2)
    return made


def grouped(name: str, *members: tuple[Deployment, int, int], **columns: Any) -> ModelGroup:
    """A model group of deployments, each with its priority and weight."""
    group = ModelGroup.objects.create(name=name, **columns)
    for deployment, priority, weight in members:
        GroupDeployment.objects.create(group=group, deployment=deployment, priority=priority, weight=weight)
    return group


def post(
    board: Any, deployment: Deployment, credential: str = "", why: str = "failing", **until: int
) -> None:
    """A circuit that opened, as a worker would post it."""
    notice = {"until": time.time() + until.get("seconds", 60), "why": why, "openings": 1}
    name = fingerprint(credential) if credential else ""
    board.hset(CIRCUITS, f"{deployment.pk}:{name}", orjson.dumps(notice))


def why(client: Client, query: str = "", group: str = "smart") -> Any:
    return client.get(f"/o/acme/models/{group}/why/{query}").context


def order(context: Any) -> list[str]:
    return [row.verdict.deployment.name for row in context["rows"]]


# --- Why this route ---------------------------------------------------------------------------------


def test_the_order_follows_the_strategy_and_each_removal_has_its_reason(
    owner: Client, provider: Provider, board: Any
) -> None:
    grouped(
        "smart",
        (deployed(provider, "second"), 2, 1),
        (deployed(provider, "first"), 1, 1),
        (deployed(provider, "drained"), 1, 0),
        (deployed(provider, "blind", capabilities=["tools"]), 1, 1),
        (deployed(provider, "unpriced", None), 1, 1),
        (deployed(provider, "narrow", context_window=100), 1, 1),
    )
    context = why(owner, "?tokens=1000&output=0&needs=vision")
    assert order(context) == ["first", "second"]
    assert [row.reason for row in context["rows"]] == ["priority 1", "priority 2"]
    assert {row.verdict.deployment.name: row.verdict.removed for row in context["removed"]} == {
        "drained": "drained: its weight is 0",
        "blind": "cannot do: vision",
        "unpriced": "has no price",
        "narrow": "the request is longer than its context window of 100",
    }


def test_the_charge_is_the_tenants_own_and_the_providers_price_is_nowhere(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    acme.organization.markup = Decimal("0.5")
    acme.organization.save(update_fields=["markup"])
    grouped("smart", (deployed(provider, "only", "123.456"), 1, 1))
    page = owner.get("/o/acme/models/smart/why/?tokens=1000000&output=0")
    # 123.456 and half of it.
    assert page.context["rows"][0].charge == Decimal("185.184")
    for address in (
        "/o/acme/models/",
        "/o/acme/models/smart/",
        "/o/acme/models/smart/why/",
        "/o/acme/health/",
    ):
        html = owner.get(address).content.decode()
        assert "123.456" not in html
        assert not any(secret in html or secret[-4:] in html for secret in SECRETS)


def test_an_open_circuit_puts_a_deployment_last_and_says_until_when(
    owner: Client, provider: Provider, board: Any
) -> None:
    first, second = deployed(provider, "first"), deployed(provider, "second")
    grouped("smart", (first, 1, 1), (second, 2, 1))
    post(board, first)
    page = owner.get("/o/acme/models/smart/why/")
    assert order(page.context) == ["second", "first"]
    assert [row.state.word for row in page.context["rows"]] == ["closed", "open"]
    assert "Circuit open" in page.content.decode()


def test_a_pause_that_is_over_is_half_open(owner: Client, provider: Provider, board: Any) -> None:
    only = deployed(provider, "only")
    grouped("smart", (only, 1, 1))
    post(board, only, seconds=-1)
    assert why(owner)["rows"][0].state.word == "half-open"


def test_one_credential_that_rests_is_told_and_all_of_them_keep_requests_away(
    owner: Client, provider: Provider, board: Any
) -> None:
    first, second = deployed(provider, "first"), deployed(provider, "second")
    grouped("smart", (first, 1, 1), (second, 2, 1))
    post(board, first, SECRETS[0], "rate_limited")
    state = why(owner)["rows"][0].state
    assert (state.word, state.credentials_resting, state.credentials) == ("closed", 1, 2)
    post(board, first, SECRETS[1], "credential")
    context = why(owner)
    assert order(context) == ["second", "first"]
    assert context["rows"][1].state.word == "resting"


def test_a_rule_sends_it_elsewhere_and_the_page_says_so(
    owner: Client, provider: Provider, board: Any
) -> None:
    grouped("long", (deployed(provider, "large"), 1, 1))
    grouped(
        "smart",
        (deployed(provider, "small"), 1, 1),
        rules=[{"when": {"input_tokens_over": 32000}, "use": "long"}],
    )
    assert order(why(owner, "?tokens=32000")) == ["small"]
    context = why(owner, "?tokens=32001")
    assert context["redirected"]
    assert order(context) == ["large"]


def test_a_ceiling_is_held_against_what_the_tenant_pays(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    acme.organization.markup = Decimal(1)
    acme.organization.save(update_fields=["markup"])
    grouped("smart", (deployed(provider, "cheap", "1"), 2, 1), (deployed(provider, "dear", "10"), 1, 1))
    # A thousand tokens: 0.002 and 0.02 with the markup.
    context = why(owner, "?tokens=1000&output=0&max_cost=0.002")
    assert order(context) == ["cheap"]
    assert context["removed"][0].verdict.removed.startswith(
        "may cost up to $0.02, more than the ceiling of $0.002"
    )


def test_a_price_of_the_group_that_does_not_cover_the_endpoint_removes_everybody(
    owner: Client, provider: Provider, board: Any
) -> None:
    group = grouped("smart", (deployed(provider, "only"), 1, 1))
    set_price(acting_user=None, model_group=group, input=Decimal(5))
    context = why(owner)
    assert order(context) == []
    assert context["removed"][0].verdict.removed == "the price of smart does not cover chat.completions"
    assert order(why(owner, "?endpoint=embeddings")) == ["only"]


def test_a_key_that_may_not_use_the_model_is_told_what_it_may_use(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    only = deployed(provider, "only")
    grouped("smart", (only, 1, 1))
    grouped("other", (only, 1, 1))
    acme.batch.model_groups = ["other"]
    acme.batch.save(update_fields=["model_groups"])
    context = why(owner, f"?who=key-{acme.batch.pk}")
    assert context["refused"]
    assert context["allowed"] == ["other"]


def test_bad_input_names_the_field_and_keeps_what_was_typed(
    owner: Client, provider: Provider, board: Any
) -> None:
    grouped("smart", (deployed(provider, "only"), 1, 1))
    page = owner.get("/o/acme/models/smart/why/?tokens=many&region=EU!")
    assert page.status_code == 422
    assert set(page.context["form"].errors) == {"tokens", "region"}
    assert 'value="many"' in page.content.decode()


def test_another_tenants_key_cannot_be_asked_about(owner: Client, provider: Provider, board: Any) -> None:
    grouped("smart", (deployed(provider, "only"), 1, 1))
    theirs = make_tenant("globex").batch
    assert set(why(owner, f"?who=key-{theirs.pk}")["form"].errors) == {"who"}


# --- Models -----------------------------------------------------------------------------------------


def test_only_the_models_that_plan_and_organization_both_allow_exist(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    only = deployed(provider, "only")
    for name in ("a", "b", "c"):
        grouped(name, (only, 1, 1))
    with scopes_disabled():
        acme.organization.plan = Plan.objects.create(name="basic", model_groups=["a", "b"])
    acme.organization.model_groups = ["b", "c"]
    acme.organization.save(update_fields=["plan", "model_groups"])
    assert [page.group.name for page in owner.get("/o/acme/models/").context["pages"]] == ["b"]
    assert [owner.get(f"/o/acme/models/{name}/").status_code for name in "abc"] == [404, 200, 404]
    assert owner.get("/o/acme/models/a/why/").status_code == 404


def test_the_price_is_the_organizations_own_else_the_groups_else_the_providers_with_markup(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    acme.organization.markup = Decimal("0.25")
    acme.organization.save(update_fields=["markup"])
    group = grouped("smart", (deployed(provider, "only", "4"), 1, 1))

    def price() -> tuple[str, list[Decimal]]:
        (found,) = owner.get("/o/acme/models/smart/").context["page"].prices
        return found.source, [line.amount for line in found.lines]

    assert price() == ("provider", [Decimal(5), Decimal(10)])
    set_price(acting_user=None, model_group=group, input=Decimal(7), output=Decimal(8))
    assert price() == ("model", [Decimal(7), Decimal(8)])
    set_price(
        acting_user=None,
        model_group=group,
        organization=acme.organization,
        input=Decimal(6),
        output=Decimal(6),
        tiers=[{"above": 1000, "input": "9"}],
    )
    assert price() == ("own", [Decimal(6), Decimal(6)])
    (found,) = owner.get("/o/acme/models/smart/").context["page"].prices
    assert [(above, [(line.label, line.amount) for line in lines]) for above, lines in found.tiers] == [
        (1000, [("Input", Decimal(9))])
    ]


def test_a_rule_about_another_tenants_team_or_plan_is_not_shown(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    grouped("long", (deployed(provider, "large"), 1, 1))
    grouped(
        "smart",
        (deployed(provider, "only"), 1, 1),
        rules=[
            {"when": {"team": "secret-team-of-globex"}, "use": "long"},
            {"when": {"plan": "another-plan"}, "use": "long"},
            {"when": {"team": "search"}, "use": "long"},
        ],
    )
    assert owner.get("/o/acme/models/smart/").context["rules"] == [("the team is search", "goes to long")]


def test_queries_do_not_grow_with_models_and_deployments(
    owner: Client, provider: Provider, board: Any
) -> None:
    def counted(address: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert owner.get(address).status_code == 200
        return len(queries)

    addresses = ("/o/acme/models/", "/o/acme/models/m0/", "/o/acme/models/m0/why/", "/o/acme/health/")
    grouped("m0", (deployed(provider, "d0"), 1, 1))
    before = [counted(address) for address in addresses]
    for number in range(1, 20):
        grouped(f"m{number}", (deployed(provider, f"d{number}"), 1, 1))
    assert [counted(address) for address in addresses] == before


# --- Health -----------------------------------------------------------------------------------------


def attempt(deployment: str, reason: str, first: int | None = None, started: int = 0) -> dict[str, Any]:
    return {"deployment": deployment, "reason": reason, "started_ms": started, "first_token_ms": first}


def recent(key: Any, number: int, *attempts: dict[str, Any], minutes: int = 1) -> None:
    at = timezone.now() - timedelta(minutes=minutes, seconds=number)
    event(key, at.replace(tzinfo=None).isoformat(), f"req-{key.pk}-{number}", attempts=list(attempts))


def test_what_the_last_hour_says_counts_times_from_the_attempts_own_beginning(acme: Tenant) -> None:
    recent(acme.batch, 1, attempt("a", "status_500"), attempt("b", "ok", 900, started=500))
    recent(acme.batch, 2, attempt("b", "ok", 100))
    recent(acme.batch, 3, attempt("b", "ok", 200))
    recent(acme.batch, 4, attempt("b", "rate_limited"), attempt("a", "client_gone"))
    recent(acme.batch, 5, attempt("b", "ok", 9999), minutes=61)
    found = measured(acme.organization)
    a, b = found["a"], found["b"]
    assert (a.count, a.judged, a.faults, a.refused, a.first_token_median) == (2, 1, 1, 0, None)
    # 100, 200 and 900 - 500.
    assert (b.count, b.judged, b.faults, b.refused) == (4, 4, 0, 1)
    assert (b.first_token_median, b.first_token_p95) == (200, 400)
    assert b.latest == ("ok", "ok", "ok", "rate_limited")


def test_only_the_newest_requests_are_looked_at(acme: Tenant) -> None:
    for number in range(5):
        recent(acme.batch, number, attempt(f"d{number}", "ok", 1))
    assert set(measured(acme.organization, most=2)) == {"d0", "d1"}


def test_a_tenant_sees_the_figures_of_its_own_requests_alone(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    grouped("smart", (deployed(provider, "only"), 1, 1))
    recent(acme.batch, 1, attempt("only", "ok", 100))
    recent(make_tenant("globex").batch, 2, attempt("only", "status_500"))
    (row,) = owner.get("/o/acme/health/").context["rows"]
    assert (row.measured.count, row.measured.faults) == (1, 0)
    assert measured()["only"].count == 2


def test_health_lists_troubled_deployments_first_and_only_those_of_ones_models(
    acme: Tenant, owner: Client, provider: Provider, board: Any
) -> None:
    well, ill, foreign = (deployed(provider, name) for name in ("a-well", "b-ill", "c-foreign"))
    grouped("smart", (well, 1, 1), (ill, 1, 1))
    grouped("not-for-acme", (well, 1, 1), (foreign, 1, 1))
    acme.organization.model_groups = ["smart"]
    acme.organization.save(update_fields=["model_groups"])
    post(board, ill)
    page = owner.get("/o/acme/health/")
    assert [(row.deployment.name, row.groups) for row in page.context["rows"]] == [
        ("b-ill", ("smart",)),
        ("a-well", ("smart",)),
    ]
    assert (page.context["well"], page.context["troubled"]) == (1, 1)
    assert "not-for-acme" not in page.content.decode()
