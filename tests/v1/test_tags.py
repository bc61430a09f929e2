"""Tags that a client gives its requests in X-Weir-Tags: kept with the usage, never sent on, refused when unclear."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance, events

ASK: list[Any] = [{"role": "user", "content": "one two three"}]


def ask(tenant: Tenant, tags: str) -> Any:
    return tenant.client().chat.completions.create(
        model="sim-small", messages=ASK, max_tokens=10, extra_headers={"X-Weir-Tags": tags}
    )


def test_tags_are_kept_with_the_usage(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    ask(tenant, "feature=search, env = a=b c")
    (event,) = events(tenant)
    assert event.tags == {"feature": "search", "env": "a=b c"}
    books_balance(tenant)


def test_what_looks_like_a_key_is_not_kept(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    ask(tenant, f"feature={tenant.secret}")
    (event,) = events(tenant)
    assert event.tags == {"feature": "sk-…"}


def test_a_refused_request_keeps_its_tags_beside_the_reason(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug, quotas=[("key", "requests_per_minute", "1", "")])
    ask(tenant, "feature=search")
    with pytest.raises(openai.RateLimitError):
        ask(tenant, "feature=search")
    refused = events(tenant)[-1]
    assert refused.end_reason == "refused"
    assert (refused.tags["feature"], len(refused.tags)) == ("search", 2)


@pytest.mark.parametrize(
    "tags",
    [
        "",
        "search",
        "feature=",
        "=search",
        "Feature=search",
        "weir.refused_by=me",
        "a=1,a=2",
        f"a={'x' * 101}",
        f"{'a' * 41}=x",
        ",".join(f"t{number}=x" for number in range(9)),
    ],
)
def test_unclear_tags_are_the_clients_mistake(stack: Stack, slug: str, tags: str) -> None:
    tenant = stack.tenant(slug)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(tenant, tags)
    assert caught.value.param == "X-Weir-Tags"
