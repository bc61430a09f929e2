"""Three charges worked out elsewhere, from the provider's own bytes through /v1 to every place that counts them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django_scopes import scope

from billing import ledger, rollups
from billing.models import Budget
from billing.reports import DIMENSIONS, cost_report
from billing.services.quotas import set_quota
from routing.models import GroupDeployment, Provider
from tests.dialects.player import Recording, running_player
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance, events
from tests.v1.test_errors import wait_for_model

OPENAI = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"}],
}
ANTHROPIC = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Yes"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
}


@dataclass(frozen=True)
class Golden:
    """What a provider of ``kind`` answers, the price by the million tokens, and what it comes to."""

    kind: str
    answer: dict[str, Any]
    usage: dict[str, Any]
    # Input, cached input, cache write, output.
    rates: tuple[str, str, str, str]
    charge: str


VECTORS = (
    # Cached within the prompt.
    Golden(
        "openai",
        OPENAI,
        {
            "prompt_tokens": 24_643,
            "completion_tokens": 3_110,
            "total_tokens": 27_753,
            "prompt_tokens_details": {"cached_tokens": 24_503},
        },
        ("1.5", "0.15", "1.5", "9"),
        "0.03187545",
    ),
    # Read from the cache beside the input.
    Golden(
        "anthropic",
        ANTHROPIC,
        {"input_tokens": 56_322, "cache_read_input_tokens": 72_960, "output_tokens": 87},
        ("1", "0.1", "1", "5"),
        "0.064053",
    ),
    # Written to the cache too.
    Golden(
        "anthropic",
        ANTHROPIC,
        {
            "input_tokens": 24_951,
            "cache_read_input_tokens": 64_126,
            "cache_creation_input_tokens": 2_805,
            "output_tokens": 854,
        },
        ("1.75", "0.175", "2.1875", "8.75"),
        "0.0684947375",
    ),
)
SCOPES = ("organization", "team", "member", "key", "end_user")


def bound(tenant: Tenant, model: str) -> None:
    """A budget at each scope, for every model and for ``model``."""
    targets: dict[str, Any] = dict(
        zip(
            SCOPES,
            (tenant.organization, tenant.team, tenant.owner, tenant.key, tenant.organization),
            strict=True,
        )
    )
    for name, target in targets.items():
        for of in ("", model):
            set_quota(
                acting_user=None,
                scope=name,
                target=target,
                metric="budget",
                limit=10,
                period="month",
                model_group=of,
            )


def asked(stack: Stack, tenant: Tenant, model: str, golden: Golden, url: str) -> None:
    """One request for ``model``, whose provider at ``url`` reports the golden usage."""
    Provider.objects.create(name=model, kind=golden.kind, base_url=url)
    names = "input", "cached_input", "cache_write", "output"
    price = {name: Decimal(rate) for name, rate in zip(names, golden.rates, strict=True)}
    group = stack.group(model, price=price)
    GroupDeployment.objects.create(group=group, deployment=stack.deployment(model, "m", provider=model))
    with tenant.http() as http:
        wait_for_model(http, model)
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "user": "ada"}
        assert http.post("/v1/chat/completions", json=body).status_code == 200


def shown(tenant: Tenant) -> dict[str, set[Decimal]]:
    """Every figure of the tenant's money, by where it is shown."""
    with scope(organization=tenant.organization):
        budgets = list(Budget.objects.select_related("quota"))
    found = {
        f"{budget.quota.scope} {budget.quota.model_group}" if budget.quota else "wallet": {budget.spent}
        for budget in budgets
    }
    today = datetime.now(UTC)
    for by in DIMENSIONS:
        report = cost_report(tenant.organization, by, today - timedelta(days=1), today + timedelta(days=1))
        used = [row.sums.charge for row in report.rows if row.sums.requests]
        found[f"by {by}"] = {report.totals.charge, *used}
    posted = ledger.balances(tenant.organization)
    return {**found, "receivable": {posted["receivable"]}, "revenue": {-posted["revenue"]}}


def test_a_golden_charge_is_the_same_at_every_scope(stack: Stack, slug: str) -> None:
    models = {f"{slug}-{number}": golden for number, golden in enumerate(VECTORS)}
    tenants = {model: stack.tenant(model) for model in models}
    recordings = {
        model: Recording(
            json.dumps({**golden.answer, "usage": golden.usage}).encode(), content_type="application/json"
        )
        for model, golden in models.items()
    }
    with running_player(recordings) as player:
        for model, golden in models.items():
            bound(tenants[model], model)
            asked(stack, tenants[model], model, golden, player.base_url(model))
    charges = {model: [event.charge for event in events(tenant)] for model, tenant in tenants.items()}
    assert charges == {model: [Decimal(golden.charge)] for model, golden in models.items()}
    while rollups.refresh():
        pass
    while ledger.post_usage():
        pass
    for model, golden in models.items():
        figures = shown(tenants[model])
        assert {f"{name} {of}" for name in SCOPES for of in ("", model)} < set(figures)
        assert figures == {name: {Decimal(golden.charge)} for name in figures}
        books_balance(tenants[model])
