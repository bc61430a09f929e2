"""Quotas that refuse: the message, the headers, and that nothing reached the provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import openai
import pytest
from django_scopes import scope

from billing.models import Budget
from billing.services.quotas import raise_quota, set_quota
from billing.services.wallet import top_up
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance, events
from tests.v1.test_errors import wait_for_model

ASK: list[Any] = [{"role": "user", "content": "one two three"}]


def ask(tenant: Tenant, **more: Any) -> Any:
    return tenant.client().chat.completions.with_raw_response.create(
        **{"model": "sim-small", "messages": ASK, "max_tokens": 10, **more}
    )


@pytest.mark.parametrize("scope_name", ["organization", "team", "key", "member"])
def test_requests_per_minute_hold_on_every_scope(stack: Stack, slug: str, scope_name: str) -> None:
    tenant = stack.tenant(slug, quotas=[(scope_name, "requests_per_minute", "2", "")])
    first = ask(tenant)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    ask(tenant)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(tenant)
    assert caught.value.code == "rate_limit_exceeded"
    assert "2 requests per minute" in str(caught.value)
    assert "a limit of this gateway" in str(caught.value)
    headers = caught.value.response.headers
    assert int(headers["retry-after"]) >= 1
    shown = [headers[f"x-ratelimit-{what}-requests"] for what in ("limit", "remaining", "reset")]
    # Of two a minute both are taken, and one flows in each half a minute.
    assert shown == ["2", "0", "1m0s"]
    refused = events(tenant)[-1]
    assert (refused.end_reason, refused.status, refused.charge, refused.attempts) == ("refused", 429, 0, [])
    assert refused.tags["weir.refused_by"].startswith("Rate limit reached for")
    books_balance(tenant)


def test_a_spent_budget_is_a_429_that_forbids_retries_and_names_the_budget(stack: Stack, slug: str) -> None:
    # Each request costs 0.000086, so the budget ends before the 40th.
    tenant = stack.tenant(slug, quotas=[("key", "budget", "0.003", "day")])
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(40):
            ask(tenant)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.type == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "$0.003 per day of key key" in str(caught.value)
    assert "resets at" in str(caught.value)
    done = [event for event in events(tenant) if event.end_reason == "completed"]
    assert done
    assert sum(event.charge for event in done) <= Decimal("0.003")
    books_balance(tenant)


def refused_until(tenant: Tenant, change: Callable[[], object]) -> bool:
    """Whether requests are refused until ``change`` is made, and each next one passes a second after it, on
    connections to both workers."""
    body = {"model": "sim-small", "messages": ASK, "max_tokens": 10}
    with ExitStack() as opened:
        connections = [opened.enter_context(tenant.http()) for _ in range(12)]

        def statuses() -> set[int]:
            return {http.post("/v1/chat/completions", json=body).status_code for http in connections}

        before = statuses()
        change()
        time.sleep(1)
        return (before, statuses()) == ({429}, {200})


def test_a_raised_budget_lets_the_next_request_through(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, quotas=[("team", "budget", "0.0000001", "month")])

    def more() -> None:
        budget: dict[str, Any] = {"metric": "budget", "limit": 1, "period": "month"}
        set_quota(acting_user=None, scope="team", target=tenant.team, **budget)

    assert refused_until(tenant, more)
    books_balance(tenant)


def test_a_prepaid_organization_without_money_is_refused_until_it_tops_up(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, billing="prepaid")
    with pytest.raises(openai.RateLimitError, match="balance of organization"):
        ask(tenant)
    organization = tenant.organization
    assert refused_until(
        tenant,
        lambda: top_up(acting_user=None, organization=organization, amount=Decimal(1), reference=slug),
    )
    books_balance(tenant)


def test_each_end_user_has_the_default_budget_from_the_first_request(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, quotas=[("end_user", "budget", "0.0004", "day")])
    with pytest.raises(openai.RateLimitError, match="this end user"):
        for _ in range(10):
            ask(tenant, user="ada")
    ask(tenant, user="bob")
    with scope(organization=tenant.organization):
        subjects = set(Budget.objects.filter(quota__isnull=False).values_list("subject", flat=True))
    assert subjects == {"ada", "bob"}
    books_balance(tenant)


def test_a_soft_budget_counts_and_never_refuses(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    set_quota(
        acting_user=None,
        scope="key",
        target=tenant.key,
        metric="budget",
        limit=Decimal("0.00001"),
        period="day",
        hard=False,
    )
    for _ in range(3):
        ask(tenant)
    events(tenant)
    with scope(organization=tenant.organization):
        assert Budget.objects.get(quota__isnull=False).spent == 3 * Decimal("0.000086")
    books_balance(tenant)


def test_concurrency_is_given_back_when_a_request_ends(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, quotas=[("key", "concurrency", "1", "")])
    for _ in range(3):
        ask(tenant)
    slow: list[Any] = [{"role": "user", "content": "pace_ms=100"}]
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, tenant, messages=slow, user=slug)
        wait_until(lambda: bool(stack.simulator.log(slug)))
        with pytest.raises(openai.RateLimitError, match="1 requests at a time"):
            ask(tenant)
        running.result()
    ask(tenant)
    books_balance(tenant)


def test_parallel_requests_never_overdraw_a_hard_budget(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, quotas=[("team", "budget", "0.01", "total")])

    def one(number: int) -> bool:
        try:
            ask(tenant, max_tokens=10 + number % 40, messages=[{"role": "user", "content": "words=60"}])
        except openai.RateLimitError as error:
            assert error.code == "insufficient_quota"
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        answered = list(pool.map(one, range(150)))
    done = [event for event in events(tenant) if event.end_reason == "completed"]
    assert len(done) == sum(answered)
    total = sum(event.charge for event in done)
    assert total <= Decimal("0.01")
    # An answer costs 0.000242 on average: most of the budget is used.
    assert total >= Decimal("0.009")
    books_balance(tenant)


def test_a_rotated_key_counts_as_one_key_while_both_secrets_work(stack: Stack, slug: str) -> None:
    from tenants.services.keys import rotate_key

    tenant = stack.tenant(slug, quotas=[("key", "requests_per_minute", "2", "")])
    _, secret = rotate_key(acting_user=None, key=tenant.key, overlap=timedelta(hours=1))
    ask(tenant)
    tenant.client(secret).chat.completions.create(model="sim-small", messages=ASK, max_tokens=10)
    with pytest.raises(openai.RateLimitError):
        ask(tenant)
    assert {event.key_id for event in events(tenant)} == {tenant.key.pk}
    books_balance(tenant)


def test_a_group_whose_own_price_ended_is_charged_at_cost_and_markup(stack: Stack, slug: str) -> None:
    from billing.services.prices import end_price

    tenant = stack.tenant(slug, markup=Decimal("0.5"))
    group = stack.group(slug, "sim-small")
    end_price(acting_user=None, model_group=group)
    with tenant.http() as http:
        wait_for_model(http, slug)
    # Both workers have the end of the price by now.
    time.sleep(1)
    ask(tenant, model=slug)
    # 1.5 x (3 x 1.00 + 10 x 4.00) US dollars per million tokens.
    assert [event.charge for event in events(tenant)] == [Decimal("0.0000645")]


@pytest.mark.parametrize("scope_name", ["organization", "team", "key", "member", "end_user"])
def test_a_quota_on_a_model_group_binds_only_requests_for_it(
    stack: Stack, slug: str, scope_name: str
) -> None:
    tenant = stack.tenant(slug)
    targets: dict[str, Any] = {
        "organization": tenant.organization,
        "team": tenant.team,
        "key": tenant.key,
        "member": tenant.owner,
        "end_user": tenant.organization,
    }
    other = f"other-{slug[-6:]}"
    stack.group(other, "sim-small")
    limited: dict[str, Any] = {
        "acting_user": None,
        "scope": scope_name,
        "target": targets[scope_name],
        "model_group": "sim-small",
    }
    set_quota(**limited, metric="requests_per_minute", limit=1)
    ask(tenant, user="ada")
    with pytest.raises(openai.RateLimitError, match=r"for model sim-small: 1 requests per minute") as caught:
        ask(tenant, user="ada")
    assert caught.value.code == "rate_limit_exceeded"
    with tenant.http() as http:
        wait_for_model(http, other)
    ask(tenant, user="ada", model=other)
    books_balance(tenant)


def test_a_budget_on_a_model_group_counts_only_what_asked_for_it_and_says_so(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    other = f"other-{slug[-6:]}"
    stack.group(other, "sim-small")
    with tenant.http() as http:
        wait_for_model(http, other)
    # Two requests at 0.000086 each before the quota is there; the one of the other group does not count.
    ask(tenant)
    ask(tenant, model=other)
    events(tenant)
    set_quota(
        acting_user=None,
        scope="team",
        target=tenant.team,
        metric="budget",
        limit=Decimal("0.0003"),
        period="total",
        model_group="sim-small",
    )

    def refused() -> bool:
        try:
            ask(tenant)
        except openai.RateLimitError as error:
            assert error.code == "insufficient_quota"
            assert "of team team for model sim-small" in str(error)
            return True
        return False

    wait_until(refused, 5)
    ask(tenant, model=other)
    of_group = [event for event in events(tenant) if event.model_group == "sim-small"]
    with scope(organization=tenant.organization):
        budget = Budget.objects.get(quota__isnull=False)
    assert budget.opening >= Decimal("0.000086")
    assert budget.spent == sum(event.charge for event in of_group)
    books_balance(tenant)


def test_a_temporary_increase_lets_requests_pass_until_it_ends_by_itself(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    rate = set_quota(acting_user=None, scope="key", target=tenant.key, metric="requests_per_minute", limit=0)
    budget = set_quota(
        acting_user=None,
        scope="team",
        target=tenant.team,
        metric="budget",
        limit=Decimal("0.0000001"),
        period="month",
    )
    with pytest.raises(openai.RateLimitError):
        ask(tenant)
    until = datetime.now(UTC) + timedelta(seconds=4)
    raise_quota(acting_user=None, quota=rate, to=1000, until=until)
    raise_quota(acting_user=None, quota=budget, to=Decimal(1), until=until)

    def passes() -> bool:
        try:
            ask(tenant)
        except openai.RateLimitError:
            return False
        return True

    wait_until(passes, 3)
    wait_until(lambda: datetime.now(UTC) > until, 6)
    with pytest.raises(openai.RateLimitError, match="0 requests per minute"):
        ask(tenant)
    set_quota(acting_user=None, scope="key", target=tenant.key, metric="requests_per_minute", limit=1000)

    def over_budget() -> bool:
        try:
            ask(tenant)
        except openai.RateLimitError as error:
            return error.code == "insufficient_quota"
        return False

    # What was leased while it was raised may be spent; it returns or is used within seconds.
    wait_until(over_budget, 8)
    books_balance(tenant)


LONG: list[Any] = [{"role": "user", "content": "words=5000"}]


@pytest.mark.parametrize("named", [{}, {"max_tokens": 3000}, {"max_completion_tokens": 3000}])
def test_an_answer_is_shortened_to_what_a_hard_budget_has_left(
    stack: Stack, slug: str, named: dict[str, Any]
) -> None:
    tenant = stack.tenant(slug, quotas=[("key", "budget", "0.004", "total")], lower_max_tokens=True)
    raw = tenant.client().chat.completions.with_raw_response.create(model="sim-small", messages=LONG, **named)
    tokens = int(raw.headers["x-weir-max-tokens-lowered"])
    answer = raw.parse()
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    # At 0.000008 a token of output, 0.004 buys 500, less what the input may cost.
    assert 440 <= tokens < 500
    assert answer.usage.completion_tokens == tokens
    (event,) = events(tenant)
    assert event.charge <= Decimal("0.004")
    assert event.tags == {"weir.max_tokens_lowered": str(tokens)}
    books_balance(tenant)


def test_no_answer_is_shortened_below_sixteen_tokens(stack: Stack, slug: str) -> None:
    # 0.000128 pays for sixteen tokens and no input.
    tenant = stack.tenant(slug, quotas=[("key", "budget", "0.000128", "total")], lower_max_tokens=True)
    with pytest.raises(openai.RateLimitError) as caught:
        tenant.client().chat.completions.create(model="sim-small", messages=LONG)
    assert caught.value.code == "insufficient_quota"
    # 4,096 tokens at 0.000008 and the input: what was asked for, not what was tried.
    assert "may cost up to $0.03" in str(caught.value)
    books_balance(tenant)


def test_by_default_a_request_that_may_cost_too_much_is_refused(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, quotas=[("key", "budget", "0.004", "total")])
    with pytest.raises(openai.RateLimitError):
        tenant.client().chat.completions.create(model="sim-small", messages=LONG)
    books_balance(tenant)


def test_an_unbounded_answer_ends_where_the_reservation_of_a_hard_budget_does(
    stack: Stack, slug: str
) -> None:
    # No max_output_tokens is known of sim-small, so 4,096 tokens are reserved.
    free = stack.tenant(f"free-{slug[-6:]}")
    answer = free.client().chat.completions.create(model="sim-small", messages=LONG)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5000
    tenant = stack.tenant(slug, quotas=[("key", "budget", "1.00", "total")])
    answer = tenant.client().chat.completions.create(model="sim-small", messages=LONG)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4096
    assert answer.choices[0].finish_reason == "length"
    books_balance(tenant)
