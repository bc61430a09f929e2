"""What the write functions of billing keep true."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import Sum
from django_scopes import scope, scopes_disabled

from billing.models import Budget, LedgerEntry, LedgerTransaction, Price, Quota
from billing.services import prices, quotas, wallet
from routing.models import Deployment, ModelGroup
from routing.services import create_deployment, create_model_group, create_provider
from routing.services.groups import Place
from tenants.models import AuditEntry, Organization
from tenants.services.organizations import BadTerms, create_plan
from tests.cast import make_cast

pytestmark = pytest.mark.django_db
FIVE = Decimal("5.00")


def a_deployment() -> Deployment:
    provider = create_provider(
        acting_user=None, name="sim", kind="simulator", base_url="http://127.0.0.1:9/v1"
    )
    return create_deployment(acting_user=None, name="small", provider=provider, model="sim-small")


def balances(organization: Organization) -> dict[str, Decimal]:
    with scope(organization=organization):
        return dict(LedgerEntry.objects.values_list("account").annotate(Sum("amount")).order_by("account"))


def test_a_prepaid_wallet_begins_with_nothing_to_spend() -> None:
    cast = make_cast("acme", billing="prepaid")
    assert wallet.wallet(cast.organization).limit == 0


def test_a_postpaid_wallet_is_counted_but_not_limited() -> None:
    assert wallet.wallet(make_cast("acme").organization).limit is None


def test_a_postpaid_wallet_may_spend_its_credit_limit_and_what_was_paid_in() -> None:
    cast = make_cast("acme", credit_limit=Decimal(500))
    wallet.top_up(acting_user=None, organization=cast.organization, amount=FIVE, reference="r1")
    assert wallet.wallet(cast.organization).limit == Decimal(505)


def test_asking_for_a_wallet_twice_makes_one() -> None:
    cast = make_cast("acme")
    assert wallet.wallet(cast.organization).pk == wallet.wallet(cast.organization).pk


def test_a_top_up_is_posted_on_both_sides_and_can_be_spent() -> None:
    cast = make_cast("acme", billing="prepaid")
    wallet.top_up(acting_user=None, organization=cast.organization, amount=FIVE, reference="r1")
    wallet.top_up(acting_user=None, organization=cast.organization, amount=Decimal("0.25"), reference="r2")
    assert balances(cast.organization) == {"cash": Decimal("5.25"), "wallet": Decimal("-5.25")}
    assert wallet.wallet(cast.organization).limit == Decimal("5.25")


def test_a_top_up_with_a_known_reference_changes_nothing() -> None:
    cast = make_cast("acme", billing="prepaid")
    first = wallet.top_up(acting_user=None, organization=cast.organization, amount=FIVE, reference="r1")
    again = wallet.top_up(acting_user=None, organization=cast.organization, amount=FIVE, reference="r1")
    assert first.pk == again.pk
    assert balances(cast.organization) == {"cash": FIVE, "wallet": -FIVE}
    with scope(organization=cast.organization):
        assert AuditEntry.objects.filter(verb="topped up").count() == 1


def test_a_reference_of_another_amount_or_organization_is_refused() -> None:
    cast, other = make_cast("acme", billing="prepaid"), make_cast("other", billing="prepaid")
    wallet.top_up(acting_user=None, organization=cast.organization, amount=FIVE, reference="r1")
    with pytest.raises(wallet.ReferenceUsed):
        wallet.top_up(acting_user=None, organization=cast.organization, amount=Decimal(6), reference="r1")
    with pytest.raises(wallet.ReferenceUsed):
        wallet.top_up(acting_user=None, organization=other.organization, amount=FIVE, reference="r1")
    with scopes_disabled():
        assert LedgerTransaction.objects.count() == 1


@pytest.mark.parametrize("amount", ["0", "-1", "0.0000000000001", "NaN", "Infinity"])
def test_what_is_no_amount_of_money_is_not_topped_up(amount: str) -> None:
    cast = make_cast("acme")
    with pytest.raises(wallet.BadAmount):
        wallet.top_up(
            acting_user=None, organization=cast.organization, amount=Decimal(amount), reference="r1"
        )


def test_new_terms_move_the_wallets_limit() -> None:
    cast = make_cast("acme", billing="prepaid")
    wallet.top_up(acting_user=None, organization=cast.organization, amount=FIVE, reference="r1")
    wallet.set_terms(
        acting_user=None, organization=cast.organization, billing="postpaid", credit_limit=Decimal(10)
    )
    assert wallet.wallet(cast.organization).limit == Decimal(15)
    wallet.set_terms(acting_user=None, organization=cast.organization, billing="postpaid")
    assert wallet.wallet(cast.organization).limit is None


def test_a_prepaid_organization_has_no_credit_limit() -> None:
    cast = make_cast("acme")
    with pytest.raises(BadTerms):
        wallet.set_terms(
            acting_user=None, organization=cast.organization, billing="prepaid", credit_limit=FIVE
        )


def test_a_new_limit_reaches_the_counter_of_this_period_and_leaves_those_that_are_over() -> None:
    cast = make_cast("acme")
    quota = quotas.set_quota(
        acting_user=None, scope="team", target=cast.search, metric="budget", limit=FIVE, period="day"
    )
    now = datetime.now(UTC)
    with scope(organization=cast.organization):
        old, current = (
            Budget.objects.create(
                organization=cast.organization,
                quota=quota,
                period_start=start,
                period_end=start + timedelta(days=1),
                limit=FIVE,
            )
            for start in (now - timedelta(days=2), now - timedelta(hours=1))
        )
    again = quotas.set_quota(
        acting_user=None, scope="team", target=cast.search, metric="budget", limit=Decimal(7), period="day"
    )
    assert again.pk == quota.pk
    old.refresh_from_db()
    current.refresh_from_db()
    assert (old.limit, current.limit) == (FIVE, Decimal(7))


def test_a_budget_made_soft_counts_without_a_limit() -> None:
    cast = make_cast("acme")
    quota = quotas.set_quota(
        acting_user=None, scope="key", target=cast.search_key, metric="budget", limit=FIVE, period="total"
    )
    counter = Budget.objects.create(
        organization=cast.organization, quota=quota, period_start=datetime(1970, 1, 1, tzinfo=UTC), limit=FIVE
    )
    quotas.set_quota(
        acting_user=None,
        scope="key",
        target=cast.search_key,
        metric="budget",
        limit=FIVE,
        period="total",
        hard=False,
        alert_at=[Decimal("0.8")],
    )
    counter.refresh_from_db()
    assert counter.limit is None


def test_setting_the_same_quota_again_writes_nothing() -> None:
    cast = make_cast("acme")
    for _ in range(2):
        quotas.set_quota(
            acting_user=None,
            scope="organization",
            target=cast.organization,
            metric="budget",
            limit=FIVE,
            period="month",
            alert_at=[Decimal("0.5"), Decimal(1)],
        )
    with scope(organization=cast.organization):
        assert Quota.objects.count() == 1
        assert AuditEntry.objects.filter(target_type="quota").count() == 1


def test_a_plans_quota_belongs_to_no_organization() -> None:
    plan = create_plan(acting_user=None, name="enterprise")
    quota = quotas.set_quota(acting_user=None, scope="plan", target=plan, metric="concurrency", limit=500)
    assert (quota.organization, quota.plan, quota.limit) == (None, plan, Decimal(500))


@pytest.mark.parametrize(
    ("metric", "limit", "period", "error"),
    [
        ("budget", "5", "", quotas.BadPeriod),
        ("budget", "-5", "day", quotas.BadLimit),
        ("concurrency", "5", "day", quotas.BadPeriod),
        ("concurrency", "5.5", "", quotas.BadLimit),
        ("wishes", "3", "", quotas.QuotaError),
    ],
)
def test_a_quota_that_makes_no_sense_is_refused(
    metric: str, limit: str, period: str, error: type[Exception]
) -> None:
    cast = make_cast("acme")
    with pytest.raises(error):
        quotas.set_quota(
            acting_user=None,
            scope="team",
            target=cast.search,
            metric=metric,
            limit=Decimal(limit),
            period=period,
        )


def test_a_scope_binds_only_its_kind_of_thing() -> None:
    cast = make_cast("acme")
    with pytest.raises(quotas.WrongTarget):
        quotas.set_quota(acting_user=None, scope="key", target=cast.search, metric="concurrency", limit=5)


def test_lifting_a_limit_takes_its_counters_along() -> None:
    cast = make_cast("acme")
    quota = quotas.set_quota(
        acting_user=None, scope="member", target=cast.bob, metric="budget", limit=FIVE, period="day"
    )
    Budget.objects.create(organization=cast.organization, quota=quota, period_start=datetime.now(UTC))
    quotas.remove_quota(acting_user=None, quota=quota)
    with scope(organization=cast.organization):
        assert not Budget.objects.filter(quota__isnull=False).exists()
        assert AuditEntry.objects.get(verb="removed").target_type == "quota"


def test_a_price_that_says_the_same_is_the_row_there_was() -> None:
    small = a_deployment()
    first = prices.set_price(acting_user=None, deployment=small, input=Decimal("0.25"), output=Decimal(2))
    again = prices.set_price(acting_user=None, deployment=small, input=Decimal("0.250"), output=Decimal(2))
    assert first.pk == again.pk
    with scopes_disabled():
        assert AuditEntry.objects.filter(verb="set price").count() == 1


def test_a_new_price_is_a_new_row_and_the_old_one_stays_as_it_was() -> None:
    small = a_deployment()
    first = prices.set_price(acting_user=None, deployment=small, input=Decimal("0.25"))
    second = prices.set_price(acting_user=None, deployment=small, input=Decimal("0.30"))
    first.refresh_from_db()
    assert first.input == Decimal("0.25")
    assert prices.price_in_force(deployment=small) == second
    assert prices.price_in_force(deployment=small, at=first.effective_from) == first


def test_a_price_to_come_is_not_in_force_yet() -> None:
    small = a_deployment()
    today = prices.set_price(acting_user=None, deployment=small, input=Decimal(1))
    later = datetime.now(UTC) + timedelta(days=30)
    coming = prices.set_price(acting_user=None, deployment=small, input=Decimal(2), effective_from=later)
    assert prices.price_in_force(deployment=small) == today
    assert prices.price_in_force(deployment=small, at=later) == coming


def test_a_price_cannot_change_what_was_charged() -> None:
    small = a_deployment()
    prices.set_price(acting_user=None, deployment=small, input=Decimal(1))
    with pytest.raises(prices.PriceInThePast):
        prices.set_price(
            acting_user=None,
            deployment=small,
            input=Decimal(2),
            effective_from=datetime.now(UTC) - timedelta(days=1),
        )


def test_a_price_that_ended_is_none_and_can_be_set_anew() -> None:
    small = a_deployment()
    own = create_deployment(acting_user=None, name="own", provider=small.provider, model="own")
    prices.set_price(acting_user=None, deployment=own, input=Decimal(0))
    group: ModelGroup = create_model_group(acting_user=None, name="fast", places=[Place(own)])
    prices.set_price(acting_user=None, model_group=group, input=Decimal(1), output=Decimal(2))
    prices.end_price(acting_user=None, model_group=group)
    assert prices.price_in_force(model_group=group) is None
    assert prices.price_in_force(deployment=small) is None
    prices.set_price(acting_user=None, model_group=group, input=Decimal(1), output=Decimal(2))
    assert Price.objects.filter(model_group=group).count() == 3


def test_a_price_is_of_one_thing_and_not_negative() -> None:
    small = a_deployment()
    with pytest.raises(prices.PriceOfOneThing):
        prices.set_price(acting_user=None, input=Decimal(1))
    with pytest.raises(prices.NegativePrice, match="output"):
        prices.set_price(acting_user=None, deployment=small, input=Decimal(1), output=Decimal(-1))


def test_a_quota_on_a_model_group_is_another_quota() -> None:
    cast = make_cast("acme")
    common: dict[str, Any] = {
        "acting_user": None,
        "scope": "team",
        "target": cast.search,
        "metric": "concurrency",
    }
    for_all = quotas.set_quota(**common, limit=5)
    for_fast = quotas.set_quota(**common, limit=2, model_group="fast")
    with scope(organization=cast.organization):
        assert {(row.pk, row.model_group, row.limit) for row in Quota.objects.all()} == {
            (for_all.pk, "", Decimal(5)),
            (for_fast.pk, "fast", Decimal(2)),
        }
    assert quotas.set_quota(**common, limit=3, model_group="fast").pk == for_fast.pk


def test_a_temporary_increase_is_carried_by_the_counter_and_audited() -> None:
    cast = make_cast("acme")
    quota = quotas.set_quota(
        acting_user=None, scope="team", target=cast.search, metric="budget", limit=5, period="total"
    )
    counter = Budget.objects.create(
        organization=cast.organization, quota=quota, period_start=datetime(1970, 1, 1, tzinfo=UTC), limit=FIVE
    )
    until = datetime.now(UTC) + timedelta(days=1)
    raised = quotas.raise_quota(acting_user=cast.ann.user, quota=quota, to=Decimal(8), until=until)
    assert raised.limit_at(until - timedelta(seconds=1)) == Decimal(8)
    assert raised.limit_at(until) == Decimal(5)
    with scope(organization=cast.organization):
        counter.refresh_from_db()
        assert (counter.limit, counter.raised_to, counter.raised_until) == (5, 8, until)
        entry = AuditEntry.objects.get(verb="raised")
        assert entry.detail["raised_to"] == {"from": None, "to": "8"}
        # A limit as high as the increase takes its place.
        quotas.set_quota(
            acting_user=None, scope="team", target=cast.search, metric="budget", limit=8, period="total"
        )
        counter.refresh_from_db()
        assert (counter.limit, counter.raised_to, counter.raised_until) == (8, None, None)


@pytest.mark.parametrize(
    ("to", "hours", "error"),
    [
        (Decimal(5), 1, quotas.BadRaise),
        (Decimal(9), -1, quotas.BadRaise),
        (Decimal("NaN"), 1, quotas.BadRaise),
        (Decimal("5.5"), 1, quotas.BadLimit),
        (None, 1, quotas.BadRaise),
    ],
)
def test_a_temporary_increase_that_makes_no_sense_is_refused(
    to: Decimal | None, hours: int, error: type[Exception]
) -> None:
    cast = make_cast("acme")
    quota = quotas.set_quota(
        acting_user=None, scope="team", target=cast.search, metric="concurrency", limit=5
    )
    with pytest.raises(error):
        quotas.raise_quota(
            acting_user=None, quota=quota, to=to, until=datetime.now(UTC) + timedelta(hours=hours)
        )
    with scope(organization=cast.organization):
        assert Quota.objects.get().raised_to is None
