"""Prices of every kind, from the request to the explanation of its charge."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import openai
import pytest
from django_scopes import scope

from billing.charge_lines import explain
from billing.models import Price, UsageEvent
from billing.services.prices import set_price
from routing.models import Deployment
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance, events
from tests.v1.test_errors import wait_for_model

HEARD: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "words=10 audio=2 one two three"},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ],
    }
]


def ask(tenant: Tenant, model: str, messages: Any, **more: Any) -> None:
    with tenant.http() as http:
        wait_for_model(http, model)
    tenant.client().chat.completions.create(model=model, messages=messages, max_tokens=20, **more)


def explained(tenant: Tenant) -> tuple[UsageEvent, Any]:
    (event,) = [event for event in events(tenant) if event.attempts]
    with scope(organization=tenant.organization):
        return event, explain(event)


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ({"messages": HEARD}, "audio_input"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "audio_output"),
        ({"web_search_options": {}}, "search"),
    ],
)
def test_a_request_for_what_has_no_price_is_refused_before_it_goes_anywhere(
    tenant: Tenant, asked: dict[str, Any], missing: str
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(tenant, "sim-small", asked.pop("messages", [{"role": "user", "content": "hello"}]), **asked)
    assert caught.value.code == "model_not_priced"
    assert f"has no price for {missing}" in str(caught.value)
    assert not any(event.attempts for event in events(tenant))
    books_balance(tenant)


def test_every_class_a_tier_and_a_fee_are_charged_and_explained(
    stack: Stack, slug: str, tenant: Tenant
) -> None:
    price: dict[str, Any] = {
        "input": Decimal(1), "audio_input": Decimal(40), "output": Decimal(4), "request": Decimal("0.001"),
        "tiers": [{"above": 3, "input": "2"}],
    }  # fmt: skip
    stack.group(slug, "sim-small", price=price)
    for deployment in Deployment.objects.filter(name__startswith=slug):
        set_price(acting_user=None, deployment=deployment, **price)
    ask(tenant, slug, HEARD)
    event, explanation = explained(tenant)
    assert (event.input_tokens, event.output_tokens, event.quantities) == (3, 10, {"audio_input": "2"})
    # 3 x 2 + 2 x 40 + 10 x 4 = 126 millionths, and the fee.
    assert event.charge == Decimal("0.001126")
    assert (explanation.source, explanation.tier, explanation.agrees) == ("model", 3, True)
    assert [line.label for line in explanation.lines if line.amount] == [
        "Input",
        "Output",
        "Audio input",
        "Request",
    ]
    books_balance(tenant)


def test_an_organization_pays_its_own_price_and_others_the_groups(
    stack: Stack, slug: str, tenant: Tenant
) -> None:
    group = stack.group(slug, "sim-small", price={"input": Decimal(100), "output": Decimal(100)})
    own = set_price(
        acting_user=None, model_group=group, organization=tenant.organization, input=Decimal(1),
        output=Decimal(1), minimum=Decimal("0.5"),
    )  # fmt: skip
    other = stack.tenant(f"{slug}-other")
    for each in (tenant, other):
        ask(each, slug, [{"role": "user", "content": "words=10 two three"}])
    event, explanation = explained(tenant)
    assert (event.charge_price_id, event.charge) == (own.pk, Decimal("0.5"))
    assert (explanation.source, explanation.agrees) == ("own", True)
    event, explanation = explained(other)
    # 3 + 10 tokens at 100 a million.
    assert (event.charge, explanation.source) == (Decimal("0.0013"), "model")
    assert Price.objects.get(pk=event.charge_price_id or 0).organization_id is None
    books_balance(other)
