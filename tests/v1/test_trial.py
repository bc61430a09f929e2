"""What a trial foretells is what a request then gets: status, code and message, case by case."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest
from django.db import connection
from django_scopes import scope

from billing.models import Budget, Lease, UsageEvent
from billing.services.end_users import block_end_user
from billing.services.quotas import set_quota
from gateway.trial import Trial, chat_request, try_request
from tenants.models import AuditEntry
from tenants.services.keys import create_key
from tests.stack import Stack, Tenant, wait_for_workers
from tests.v1.conftest import books_balance, events
from tests.v1.test_errors import wait_for_model

WORDS = "one two three"


@dataclass
class Asked:
    """A request, tried and then sent."""

    model: str = "sim-small"
    end_user: str = ""
    text: str = WORDS
    max_tokens: int | None = 10
    key: Any = None
    secret: str = ""
    body: bytes = field(init=False, default=b"")

    def tried(self, tenant: Tenant) -> Trial:
        facts, body = chat_request(
            self.model, end_user=self.end_user, text=self.text, max_tokens=self.max_tokens
        )
        assert body is not None
        self.body = body
        with scope(organization=tenant.organization):
            return try_request(self.key or tenant.key, facts)

    def sent(self, tenant: Tenant) -> httpx.Response:
        with tenant.http(self.secret or None) as http:
            return http.post("/v1/chat/completions", content=self.body)


def without_wait(message: str) -> str:
    """A refusal without the time that goes by between a trial and a request."""
    return re.sub(r"Try again in [0-9.]+ s", "Try again in a while", message)


def agree(tenant: Tenant, asked: Asked, code: str | None) -> Trial:
    """Try, then send; both say ``code`` (None: it passes) in the same words."""
    wait_for_workers()
    trial, answer = asked.tried(tenant), asked.sent(tenant)
    if code is None:
        assert trial.error is None, trial.error.message
        assert answer.status_code == 200, answer.text
        return trial
    assert trial.error is not None
    told = answer.json()["error"]
    assert (told["code"], told["type"]) == (code, trial.error.type)
    assert (trial.error.status, trial.error.code) == (answer.status_code, code)
    assert without_wait(trial.error.message) == without_wait(told["message"])
    shown = {name.decode(): value.decode() for name, value in trial.error.headers}
    assert shown.get("x-should-retry") == answer.headers.get("x-should-retry")
    return trial


def budget(tenant: Tenant, limit: str, scope_name: str = "team", **more: Any) -> None:
    targets: dict[str, Any] = {
        "organization": tenant.organization,
        "team": tenant.team,
        "key": tenant.key,
        "member": tenant.owner,
        "end_user": tenant.organization,
    }
    set_quota(
        acting_user=None,
        scope=scope_name,
        target=targets[scope_name],
        metric="budget",
        limit=Decimal(limit),
        period="month",
        **more,
    )


def test_a_budget_that_is_enough_passes_and_the_trial_reserves_nothing(tenant: Tenant) -> None:
    budget(tenant, "1")
    asked = Asked()
    for _ in range(3):
        trial = asked.tried(tenant)
    with scope(organization=tenant.organization):
        # Not even the counter is made.
        assert not Budget.objects.filter(quota__isnull=False).exists()
        assert not Lease.objects.exists()
        assert not UsageEvent.objects.exists()
    # Every byte of the body counts as a token, at 2 and 8 US dollars a million.
    amount = (Decimal(2) * len(asked.body) + Decimal(8) * 10) / 1_000_000
    assert (trial.amount, trial.refused_by, trial.uncertain) == (amount, "", False)
    assert [(look.rule.scope, look.limit, look.take, look.fits) for look in trial.budgets] == [
        ("wallet", None, amount, True),
        ("team", Decimal(1), amount, True),
    ]
    agree(tenant, asked, None)


def test_a_budget_that_is_short_refuses_in_the_same_words(tenant: Tenant) -> None:
    budget(tenant, "0.0001", "key")
    budget(tenant, "0.00001", "team")
    trial = agree(tenant, Asked(), "insufficient_quota")
    assert trial.refused_by == "budget"
    # Both are short, and the one set first bites first.
    assert [look.fits for look in trial.budgets] == [True, False, False]
    assert trial.error is not None
    assert "of key key" in trial.error.message


def test_what_was_spent_before_there_was_a_counter_counts(tenant: Tenant) -> None:
    tenant.client().chat.completions.create(
        model="sim-small", messages=[{"role": "user", "content": WORDS}], max_tokens=10
    )
    (event,) = events(tenant)
    budget(tenant, "0.0002", "member")
    trial = agree(tenant, Asked(), "insufficient_quota")
    assert trial.budgets[1].spent == event.charge == Decimal("0.000086")


def test_a_prepaid_wallet_without_money_refuses(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, billing="prepaid")
    trial = agree(tenant, Asked(), "insufficient_quota")
    assert trial.budgets[0].rule.scope == "wallet"
    assert not trial.budgets[0].fits


@pytest.mark.parametrize(
    ("metric", "limit", "used"), [("requests_per_minute", 1, 1), ("tokens_per_minute", 600, 504)]
)
def test_a_limit_per_minute_that_is_used_up_refuses(
    tenant: Tenant, metric: str, limit: int, used: int
) -> None:
    set_quota(acting_user=None, scope="key", target=tenant.key, metric=metric, limit=limit)
    # The simulator counts a token a word, here one of input and as many of output as it is let.
    asked = Asked(text="words=600", max_tokens=500)
    first = agree(tenant, asked, None)
    assert first.rates is not None
    assert [(look.used, look.fits) for look in first.rates] == [(0, True)]
    # The tokens are put right before the event is there.
    assert len(events(tenant)) == 1
    trial = agree(tenant, asked, "rate_limit_exceeded")
    assert trial.rates is not None
    (look,) = trial.rates
    assert (look.bites, trial.refused_by) == (True, "rate")
    assert 0 < look.used <= used
    assert look.wait_seconds is not None
    assert look.wait_seconds > 0


def test_a_request_larger_than_a_minutes_tokens_never_passes(tenant: Tenant) -> None:
    set_quota(acting_user=None, scope="key", target=tenant.key, metric="tokens_per_minute", limit=20)
    trial = agree(tenant, Asked(max_tokens=100), "rate_limit_exceeded")
    assert trial.rates is not None
    assert trial.rates[0].wait_seconds is None


def test_a_trial_counts_in_no_limit(tenant: Tenant) -> None:
    set_quota(acting_user=None, scope="key", target=tenant.key, metric="requests_per_minute", limit=1)
    set_quota(acting_user=None, scope="key", target=tenant.key, metric="concurrency", limit=1)
    for _ in range(5):
        assert Asked().tried(tenant).error is None
    agree(tenant, Asked(), None)


def test_a_model_without_a_price_refuses(stack: Stack, tenant: Tenant, slug: str) -> None:
    stack.group(slug, price=None)
    stack.deployment(f"{slug}-free", "sim-small", cost=None)
    from routing.models import Deployment, GroupDeployment, ModelGroup

    GroupDeployment.objects.create(
        group=ModelGroup.objects.get(name=slug), deployment=Deployment.objects.get(name=f"{slug}-free")
    )
    trial = agree(tenant, Asked(model=slug), "model_not_priced")
    assert (trial.refused_by, trial.amount) == ("model", None)


def test_a_model_that_the_key_may_not_use_refuses(tenant: Tenant) -> None:
    key, secret = create_key(acting_user=None, team=tenant.team, name="narrow", model_groups=["sim-embed"])
    agree(tenant, Asked(key=key, secret=secret), "model_not_allowed")


def test_a_blocked_end_user_is_refused_and_another_passes(tenant: Tenant) -> None:
    block_end_user(acting_user=None, organization=tenant.organization, end_user="mallory")
    trial = agree(tenant, Asked(end_user="mallory"), "end_user_blocked")
    assert trial.refused_by == "end_user"
    agree(tenant, Asked(end_user="ann"), None)


def test_an_end_users_own_budget_takes_the_place_of_the_default(tenant: Tenant) -> None:
    budget(tenant, "0.00001", "end_user")
    budget(tenant, "1", "end_user", end_user="vip")
    agree(tenant, Asked(end_user="ann"), "insufficient_quota")
    agree(tenant, Asked(end_user="vip"), None)
    agree(tenant, Asked(), None)


def test_a_budget_of_one_model_group_binds_requests_for_it(stack: Stack, tenant: Tenant, slug: str) -> None:
    stack.group(slug, "sim-small")
    budget(tenant, "0.00001", model_group="sim-small")
    with tenant.http() as http:
        wait_for_model(http, slug)
    trial = agree(tenant, Asked(), "insufficient_quota")
    assert trial.error is not None
    assert "for model sim-small" in trial.error.message
    agree(tenant, Asked(model=slug), None)


def test_an_answer_is_foretold_to_be_shortened_to_what_is_left(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, lower_max_tokens=True)
    budget(tenant, "0.004", "key")
    asked = Asked(max_tokens=3000)
    wait_for_workers()
    trial, answer = asked.tried(tenant), asked.sent(tenant)
    assert trial.error is None
    assert answer.headers["x-weir-max-tokens-lowered"] == str(trial.lowered_to)


def test_what_workers_hold_makes_a_refusal_uncertain(tenant: Tenant) -> None:
    budget(tenant, "0.0003", "team")
    agree(tenant, Asked(), None)
    # Nothing is held any more.
    books_balance(tenant)
    with scope(organization=tenant.organization):
        counter = Budget.objects.get(quota__isnull=False)
        assert not Asked().tried(tenant).uncertain
        # As if the request were still under way, with more than it will cost.
        Budget.objects.filter(pk=counter.pk).update(held=Decimal("0.0001"), spent=0)
        try:
            trial = Asked().tried(tenant)
        finally:
            Budget.objects.filter(pk=counter.pk).update(held=counter.held, spent=counter.spent)
    assert trial.refused_by == "budget"
    assert trial.uncertain


def test_a_trial_changes_no_row(tenant: Tenant) -> None:
    budget(tenant, "0.0001")

    def rows() -> list[int]:
        with scope(organization=tenant.organization), connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM billing_budget WHERE organization_id = %s", [tenant.organization.pk]
            )
            (budgets,) = cursor.fetchone()
            return [budgets, Lease.objects.count(), AuditEntry.objects.count()]

    before = rows()
    Asked().tried(tenant)
    assert rows() == before


def test_without_a_text_so_many_tokens_are_taken_for_four_bytes_each() -> None:
    facts, body = chat_request("sim-small", input_tokens=1000, max_tokens=5)
    assert body is None
    assert (facts.input_tokens, facts.input_bound, facts.output_bound) == (1000, 3996, 5)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Nothing of a trial may stay on the connection."""
    yield
    assert not connection.in_atomic_block


def test_the_body_is_what_an_sdk_sends() -> None:
    _, body = chat_request("m", end_user="ä", text="hi", max_tokens=1)
    assert body == orjson.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "user": "ä"}
    )
