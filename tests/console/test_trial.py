"""The page that says whether a request would pass: every layer, and only what one may know of it.

That it says what ``/v1`` then does is in tests/v1/test_trial.py.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from billing.calendars import BEGINNING
from billing.models import Budget
from billing.services.end_users import block_end_user
from billing.services.quotas import set_quota
from gateway.templatetags.console import DASH
from tenants.models import Membership
from tests.cast import Cast
from tests.console.conftest import SignIn
from tests.v1.test_trial import WORDS

PAGE = "/o/acme/quotas/trial/"


@pytest.fixture
def priced(acme: Cast) -> Cast:
    """The model group ``fast`` has a deployment, at 2 and 8 US dollars a million tokens."""
    from billing.services.prices import set_price
    from routing.models import Deployment, GroupDeployment, ModelGroup, Provider

    provider = Provider.objects.create(name="sim", kind="simulator", base_url="http://127.0.0.1:9/v1")
    deployment = Deployment.objects.create(name="small", provider=provider, model="sim-small")
    group = ModelGroup.objects.get(name="fast")
    GroupDeployment.objects.create(group=group, deployment=deployment)
    prices: dict[str, Any] = {"input": Decimal(2), "output": Decimal(8)}
    set_price(acting_user=None, deployment=deployment, **prices)
    set_price(acting_user=None, model_group=group, **prices)
    return acme


def text_of(html: str) -> str:
    """The answer's text, in one line."""
    part = html[html.index('<div id="answer"') : html.index("</main>")]
    return " ".join(re.sub(r"<[^>]+>", " ", part).split())


def tried(sign_in: SignIn, person: Membership, **values: Any) -> str:
    response = sign_in(person).post(PAGE, {"model": "fast", "tokens": "1000", "output": "500", **values})
    assert response.status_code == 200
    return text_of(response.content.decode())


def team_budget(cast: Cast, limit: str) -> None:
    set_quota(
        acting_user=None,
        scope="team",
        target=cast.search,
        metric="budget",
        limit=Decimal(limit),
        period="month",
    )


def test_every_layer_is_shown_with_limit_used_and_what_the_request_takes(
    priced: Cast, sign_in: SignIn
) -> None:
    team_budget(priced, "5")
    set_quota(
        acting_user=None,
        scope="key",
        target=priced.search_key,
        metric="tokens_per_minute",
        limit=9000,
    )
    text = tried(sign_in, priced.ann, key=priced.search_key.pk)
    assert "It would pass." in text
    # 3,996 bytes at 2 and 500 tokens at 8 US dollars a million: 0.007992 + 0.004.
    assert "It would reserve $0.01 and count 1,500 tokens" in text
    assert f"Key search-backend tokens per minute 9,000 0 {DASH} 1,500 Passes" in text
    assert "Team search budget a month $5.00 $0.00 $0.00 $0.01 Passes" in text
    assert "Account of organization acme to spend none $0.00 $0.00 $0.01 Only counts" in text


def test_the_layer_that_bites_first_is_told_apart_from_those_that_refuse_too(
    priced: Cast, sign_in: SignIn
) -> None:
    team_budget(priced, "0.001")
    set_quota(
        acting_user=None,
        scope="organization",
        target=priced.organization,
        metric="budget",
        limit=Decimal("0.002"),
        period="day",
    )
    set_quota(acting_user=None, scope="key", target=priced.search_key, metric="requests_per_minute", limit=0)
    text = tried(sign_in, priced.ann, key=priced.search_key.pk)
    assert "It would be refused. The client gets status 429, code rate_limit_exceeded" in text
    assert "0 requests per minute (a limit of this gateway)" in text
    assert "1 Refuses first the request alone is too large" in text
    assert text.count("Refuses first") == 1
    assert text.count("Refuses too") == 2


def test_of_budgets_that_refuse_the_one_that_the_client_is_told_of_is_marked(
    priced: Cast, sign_in: SignIn
) -> None:
    team_budget(priced, "0.001")
    set_quota(
        acting_user=None,
        scope="organization",
        target=priced.organization,
        metric="budget",
        limit=Decimal("0.002"),
        period="day",
    )
    text = tried(sign_in, priced.ann, key=priced.search_key.pk)
    # Asked in the order in which they were set.
    assert "the budget of $0.001 per month of team search does not cover this request" in text
    assert re.search(r"Team search budget a month \S+ \S+ \S+ \S+ Refuses first resets", text)
    assert re.search(r"Organization acme budget a day \S+ \S+ \S+ \S+ Refuses too", text)


def test_a_text_is_counted_by_its_bytes_and_not_kept_in_an_address(priced: Cast, sign_in: SignIn) -> None:
    text = tried(sign_in, priced.ann, key=priced.search_key.pk, text=WORDS)
    # {"model":"fast","messages":[{"role":"user","content":"one two three"}],"max_tokens":500}: 88 bytes, so 23
    # tokens of input.
    assert "count 523 tokens" in text
    form = sign_in(priced.ann).get(PAGE).content.decode()
    assert re.search(r'<form class="card"[^>]*method="post"', form)


def test_a_blocked_end_user_is_refused_first(priced: Cast, sign_in: SignIn) -> None:
    block_end_user(acting_user=None, organization=priced.organization, end_user="mallory")
    text = tried(sign_in, priced.ann, key=priced.search_key.pk, end_user="mallory")
    assert "status 403, code end_user_blocked" in text
    assert "mallory Is this end user blocked? Refuses first" in text


def test_a_model_that_is_not_served_leaves_the_limits_unasked(priced: Cast, sign_in: SignIn) -> None:
    team_budget(priced, "5")
    text = tried(sign_in, priced.ann, key=priced.search_key.pk, model="quality")
    assert "status 503, code no_deployment" in text
    assert f"Team search budget a month $5.00 $0.00 $0.00 {DASH} Not asked" in text


def test_a_member_tries_their_own_keys_without_learning_what_others_spent(
    priced: Cast, sign_in: SignIn
) -> None:
    wallet = Budget.objects.get(quota__isnull=True)
    Budget.objects.filter(pk=wallet.pk).update(spent=Decimal("7.77"))
    for level, target in (("organization", priced.organization), ("team", priced.support)):
        quota = set_quota(
            acting_user=None, scope=level, target=target, metric="budget", limit=Decimal(50), period="total"
        )
        # As a worker made it.
        Budget.objects.create(
            organization=priced.organization,
            quota=quota,
            period_start=BEGINNING,
            limit=Decimal(50),
            spent=Decimal("7.77"),
        )
    priced.support_key.owner = priced.cleo
    priced.support_key.save(update_fields=["owner"])
    text = tried(sign_in, priced.cleo, key=priced.support_key.pk)
    assert "It would pass" in text
    assert "Organization acme budget in total $50.00" in text
    assert "7.77" not in text
    # A key of a team that is not theirs is no choice, and the part that is renewed says so.
    response = sign_in(priced.cleo).post(
        PAGE, {"key": priced.search_key.pk, "model": "fast", "tokens": "1", "output": "1"}
    )
    assert response.status_code == 422
    assert "Sent with: Select a valid choice" in text_of(response.content.decode())


def test_another_tenants_key_is_no_choice(priced: Cast, other: Cast, sign_in: SignIn) -> None:
    response = sign_in(priced.ann).post(
        PAGE, {"key": other.search_key.pk, "model": "fast", "tokens": "1", "output": "1"}
    )
    assert response.status_code == 422
    assert "other" not in text_of(response.content.decode())


def test_who_sees_no_key_is_told_what_is_missing(priced: Cast, sign_in: SignIn) -> None:
    page = sign_in(priced.vera).get(PAGE).content.decode()
    assert "There is no key to try it with" in page
