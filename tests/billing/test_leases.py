"""Leases: workers spend one budget side by side, without asking each time and never too much."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
import pytest
from django.db import transaction
from django_scopes import scopes_disabled
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from psycopg_pool import AsyncConnectionPool

from billing import settlement
from billing.leases import BudgetExceeded, BudgetRule, LeaseBook, MoneyUnavailable, Reservation
from billing.management.commands.ship import connection_parameters
from billing.models import Budget, Lease, LedgerEntry, LedgerTransaction, Quota
from tenants.models import ApiKey, Organization, Team
from tests.billing.books import NOON, stamp
from tests.relay import Relay

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("committed")
D = Decimal


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class House:
    """An organization with one team and one key, its budgets, and what is in the journals."""

    def __init__(self, slug: str, **terms: Any) -> None:
        with scopes_disabled():
            self.organization = Organization.objects.create(slug=slug, name=slug, **terms)
            self.team = Team.objects.create(organization=self.organization, slug="team", name="Team")
            self.key = ApiKey.objects.create(
                organization=self.organization,
                team=self.team,
                name="key",
                prefix="sk-weir-",
                last_four="aaaa",
                digest=slug,
            )
        self.shipped = 0

    def quota(
        self,
        limit: str,
        *,
        scope: str = "organization",
        period: str = "total",
        hard: bool = True,
        time_zone: str = "UTC",
    ) -> BudgetRule:
        """A budget in the database, and the rule by which admission knows it."""
        with scopes_disabled():
            made = Quota.objects.create(
                organization=self.organization,
                scope=scope,
                team=self.team if scope == "team" else None,
                key=self.key if scope == "key" else None,
                metric="budget",
                period=period,
                limit=D(limit),
                hard=hard,
            )
        return BudgetRule(
            quota_id=made.id,
            organization_id=self.organization.id,
            scope=scope,
            subject_kind="end_user" if scope == "end_user" else "",
            period=period,
            limit=D(limit),
            hard=hard,
            time_zone=time_zone,
            label=f"{scope} budget",
        )

    def wallet(self) -> BudgetRule:
        """The rule of the wallet."""
        return BudgetRule(
            None, self.organization.id, "organization", "", "total", None, True, "UTC", "wallet"
        )

    def pay_in(self, amount: str, kind: str = "top_up") -> None:
        """A posting that credits the wallet account."""
        with scopes_disabled(), transaction.atomic():
            posted = LedgerTransaction.objects.create(
                organization=self.organization, kind=kind, reference=str(uuid4())
            )
            for account, sign in (("cash", 1), ("wallet", -1)):
                LedgerEntry.objects.create(
                    transaction=posted,
                    organization=self.organization,
                    account=account,
                    amount=sign * D(amount),
                )

    def change(self, budget_rule: BudgetRule, limit: str) -> None:
        """Another limit, as the service that sets quotas leaves it."""
        assert budget_rule.quota_id is not None
        with scopes_disabled():
            Quota.objects.filter(id=budget_rule.quota_id).update(limit=D(limit))
            Budget.objects.filter(quota_id=budget_rule.quota_id).update(limit=D(limit))

    def remove(self, budget_rule: BudgetRule) -> None:
        assert budget_rule.quota_id is not None
        with scopes_disabled():
            Quota.objects.filter(id=budget_rule.quota_id).delete()

    def budgets(self) -> list[Budget]:
        with scopes_disabled():
            return list(Budget.objects.filter(organization=self.organization).order_by("period_start", "id"))

    def budget(self) -> Budget:
        (only,) = self.budgets()
        return only

    def counters(self) -> tuple[Decimal, Decimal]:
        """``spent`` and ``held`` of the only budget."""
        only = self.budget()
        return only.spent, only.held

    def leased(self) -> dict[UUID, Decimal]:
        with scopes_disabled():
            leases = Lease.objects.filter(budget__organization=self.organization)
            return dict(leases.values_list("worker", "remaining"))

    def ship(self, worker: UUID, *charges: tuple[Reservation | None, str | Decimal], **changes: Any) -> None:
        """Events of requests of ``worker``, settled as the shipper does."""
        ends = []
        for reservation, charge in charges:
            self.shipped += 1
            record = {
                "request_id": f"{self.organization.id}-{self.shipped}",
                "started_at": stamp(NOON if reservation is None else reservation.started_at),
                "ended_at": stamp(NOON + timedelta(seconds=2)),
                "organization_id": self.organization.id,
                "team_id": self.team.id,
                "key_id": self.key.id,
                "endpoint": "chat.completions",
                "streamed": False,
                "status": 200,
                "end_reason": "completed",
                "input_tokens": 1,
                "cached_input_tokens": 0,
                "cache_write_tokens": 0,
                "output_tokens": 1,
                "reasoning_tokens": 0,
                "usage_source": "reported",
                "cost": str(charge),
                "charge": str(charge),
                "budget_ids": [] if reservation is None else reservation.budget_ids,
                "duration_ms": 1,
            } | changes
            ends.append(settlement.Ended(worker, record, orjson.dumps(record)))
        with psycopg.connect(**connection_parameters(), autocommit=True) as connection:
            settlement.settle(connection, ends)


@pytest.fixture
def house(slug: str, committed: None) -> House:
    return House(slug)


@asynccontextmanager
async def opened(*, autocommit: bool = True) -> AsyncIterator[AsyncConnectionPool[Any]]:
    kwargs = connection_parameters() | {"autocommit": autocommit}
    async with AsyncConnectionPool(kwargs=kwargs, min_size=1, max_size=4) as pool:
        yield pool


async def aside(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run Django or psycopg code that waits, outside the event loop."""

    def call() -> Any:
        from django.db import connection

        try:
            return function(*arguments, **named)
        finally:
            connection.close()

    return await asyncio.to_thread(call)


def run(scenario: Callable[[AsyncConnectionPool[Any]], Awaitable[Any]]) -> Any:
    """Run ``scenario`` with a pool."""

    async def main() -> Any:
        async with opened() as pool:
            return await scenario(pool)

    return asyncio.run(main())


def at_once(coroutine: Coroutine[Any, Any, Reservation]) -> Reservation:
    """The result of a coroutine that must not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Reservation = stop.value
        return result
    coroutine.close()
    raise AssertionError("It waited.")


def test_a_budget_gives_what_it_has_and_no_more(house: House) -> None:
    budget_rule = house.quota("1.00")

    async def scenario(pool: AsyncConnectionPool[Any]) -> BudgetExceeded:
        book = LeaseBook(pool, uuid4())
        for _ in range(4):
            (await book.reserve([budget_rule], "", D("0.25"), NOON)).settle(D("0.25"))
        with pytest.raises(BudgetExceeded) as refusal:
            await book.reserve([budget_rule], "", D("0.000000000001"), NOON)
        return refusal.value

    refusal = run(scenario)
    assert refusal.rule is budget_rule
    assert (refusal.limit, refusal.resets_at) == (D(1), None)
    assert house.counters() == (D(0), D(1))


def test_inside_a_lease_nothing_waits(house: House) -> None:
    budget_rule = house.quota("16")

    async def scenario(pool: AsyncConnectionPool[Any]) -> int:
        book = LeaseBook(pool, uuid4())
        (await book.reserve([budget_rule], "", D("0.01"), NOON)).release()
        # A slice of 16 requests was leased.
        held = [at_once(book.reserve([budget_rule], "", D("0.01"), NOON)) for _ in range(8)]
        for reservation in held:
            reservation.settle(D("0.01"))
        return book.grants

    assert run(scenario) == 1


def test_the_unspent_part_can_be_spent_again(house: House) -> None:
    budget_rule = house.quota("1")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        reservation = await book.reserve([budget_rule], "", D(1), NOON)
        reservation.settle(D("0.4"))
        at_once(book.reserve([budget_rule], "", D("0.6"), NOON))

    run(scenario)


def test_a_reservation_ends_once(house: House) -> None:
    budget_rule = house.quota("1")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        reservation = await book.reserve([budget_rule], "", D(1), NOON)
        reservation.settle(D("0.4"))
        reservation.settle(D(0))
        reservation.release()
        with pytest.raises(BudgetExceeded):
            await book.reserve([budget_rule], "", D("0.61"), NOON)

    run(scenario)


def test_a_refusal_by_one_budget_takes_nothing_from_the_others(house: House) -> None:
    wide, narrow = house.quota("1"), house.quota("0.5", scope="key")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        with pytest.raises(BudgetExceeded) as refusal:
            await book.reserve([wide, narrow], "", D("0.6"), NOON)
        assert refusal.value.rule is narrow
        assert (refusal.value.limit, refusal.value.spent) == (D("0.5"), D(0))
        at_once(book.reserve([wide], "", D("0.6"), NOON))

    run(scenario)


def test_a_soft_budget_is_counted_and_never_refuses(house: House) -> None:
    soft = house.quota("0.5", hard=False)

    async def scenario(pool: AsyncConnectionPool[Any]) -> list[int]:
        book = LeaseBook(pool, uuid4())
        reservation = await book.reserve([soft], "", D(100), NOON)
        reservation.settle(D(100))
        await book.close()
        return reservation.budget_ids

    assert run(scenario) == [house.budget().id]
    assert house.budget().limit is None
    assert house.leased() == {}


def test_a_request_that_costs_nothing_passes_an_exhausted_budget(house: House) -> None:
    budget_rule = house.quota("0")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        (await book.reserve([budget_rule], "", D(0), NOON)).settle(D(0))

    run(scenario)
    assert house.counters() == (D(0), D(0))


def test_two_first_requests_make_one_counter_that_opens_with_what_was_spent(house: House) -> None:
    budget_rule = house.quota("10", scope="key", period="month")
    house.ship(uuid4(), (None, "1.5"), (None, "0.25"))
    house.ship(uuid4(), (None, "4"), key_id=house.key.id + 1_000_000)
    house.ship(uuid4(), (None, "8"), started_at=stamp(NOON - timedelta(days=2)))

    async def scenario(pool: AsyncConnectionPool[Any]) -> set[int]:
        books = [LeaseBook(pool, uuid4()) for _ in range(4)]
        held = await asyncio.gather(
            *(book.reserve([budget_rule], "", D("0.1"), NOON) for book in books for _ in range(5))
        )
        return {reservation.budget_ids[0] for reservation in held}

    assert run(scenario) == {house.budget().id}
    assert (house.budget().opening, house.budget().spent) == (D("1.75"), D("1.75"))


@pytest.mark.parametrize(
    ("terms", "limit"),
    [
        pytest.param({"billing": "prepaid"}, D(7), id="prepaid: what was paid in"),
        pytest.param({"billing": "prepaid", "credit_limit": D(5)}, D(7), id="prepaid: no credit"),
        pytest.param(
            {"billing": "postpaid", "credit_limit": D(5)}, D(12), id="postpaid: and the credit limit"
        ),
        pytest.param({"billing": "postpaid"}, None, id="postpaid without a limit"),
    ],
)
def test_the_wallet_holds_what_was_paid_in_and_the_credit_limit(
    slug: str, terms: dict[str, Any], limit: Decimal | None
) -> None:
    house = House(slug, **terms)
    house.pay_in("10")
    house.pay_in("-3", kind="adjustment")
    house.pay_in("-2", kind="usage")
    house.ship(uuid4(), (None, "2"))

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        await LeaseBook(pool, uuid4()).reserve([house.wallet()], "", D(1), NOON)

    run(scenario)
    wallet = house.budget()
    assert (wallet.limit, wallet.opening, wallet.spent) == (limit, D(2), D(2))
    assert (wallet.quota_id, wallet.subject, wallet.period_end) == (None, "", None)
    assert wallet.period_start == datetime(1970, 1, 1, tzinfo=UTC)


def test_each_end_user_has_a_budget_and_nobody_in_particular_has_none(house: House) -> None:
    budget_rule = house.quota("1", scope="end_user", period="month")
    house.ship(uuid4(), (None, "0.5"), end_user="ann")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        with pytest.raises(BudgetExceeded):
            await book.reserve([budget_rule], "ann", D("0.6"), NOON)
        await book.reserve([budget_rule], "bob", D(1), NOON)
        assert (await book.reserve([budget_rule], "", D(5), NOON)).budget_ids == []

    run(scenario)
    assert {(budget.subject, budget.opening) for budget in house.budgets()} == {
        ("ann", D("0.5")),
        ("bob", D(0)),
    }


@pytest.mark.parametrize(
    ("zone", "end", "hours"),
    [
        # In Berlin the clock reads 00:00 at this moment of January.
        ("Europe/Berlin", "2026-01-14T23:00", 24),
        # Clocks go forward on the 29th, back on the 25th.
        ("Europe/Berlin", "2026-03-29T22:00", 23),
        ("Europe/Berlin", "2026-10-25T23:00", 25),
        ("America/New_York", "2026-03-09T04:00", 23),
        ("America/New_York", "2026-11-02T05:00", 25),
        # Beirut's clocks skip the first hour of the 29th: midnight there is when it would have been.
        ("Asia/Beirut", "2026-03-29T21:00", 23),
    ],
)
def test_a_day_begins_at_the_organizations_midnight(house: House, zone: str, end: str, hours: int) -> None:
    budget_rule = house.quota("1", period="day", time_zone=zone)
    midnight = datetime.fromisoformat(end).replace(tzinfo=UTC)

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        await book.reserve([budget_rule], "", D(1), midnight - timedelta(seconds=1))
        with pytest.raises(BudgetExceeded) as refusal:
            await book.reserve([budget_rule], "", D(1), midnight - timedelta(microseconds=1))
        assert refusal.value.resets_at == midnight
        await book.reserve([budget_rule], "", D(1), midnight)
        with pytest.raises(BudgetExceeded):
            await book.reserve([budget_rule], "", D(1), midnight - timedelta(seconds=2))

    run(scenario)
    starts = [midnight - timedelta(hours=hours), midnight]
    assert [budget.period_start for budget in house.budgets()] == starts
    assert [budget.held for budget in house.budgets()] == [D(1), D(1)]


def test_what_is_shipped_moves_from_held_to_spent_and_the_rest_returns(house: House) -> None:
    budget_rule = house.quota("10")
    worker = uuid4()

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, worker)
        reservation = await book.reserve([budget_rule], "", D(1), NOON)
        reservation.settle(D("0.3"))
        await book.close()
        assert await aside(house.counters) == (D(0), D("0.3"))
        await aside(house.ship, worker, (reservation, "0.3"))

    run(scenario)
    assert house.counters() == (D("0.3"), D(0))
    assert house.leased() == {worker: D(0)}


def test_idle_money_returns_and_money_in_use_stays(house: House) -> None:
    budget_rule = house.quota("160")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, uuid4(), clock=clock)
        # Leases a sixteenth: 10.
        reservation = await book.reserve([budget_rule], "", D(4), NOON)
        for _ in range(3):
            clock.seconds += 2
            await book.maintain()
        assert await aside(house.counters) == (D(0), D(4))
        reservation.release()
        for _ in range(3):
            clock.seconds += 2
            await book.maintain()
        assert await aside(house.counters) == (D(0), D(0))

    run(scenario)


async def spend_for(book: LeaseBook, clock: Clock, rule_: BudgetRule, seconds: int) -> None:
    """Two dollars a second, each reserved as four."""
    for _ in range(seconds):
        (await book.reserve([rule_], "", D(4), NOON)).settle(D(2))
        clock.seconds += 1
        await book.maintain()


def test_a_lease_lasts_for_about_a_minute_without_the_database(house: House) -> None:
    budget_rule = house.quota("10000")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, uuid4(), clock=clock)
        for _ in range(30):
            await spend_for(book, clock, budget_rule, 2)
            # From the first look on at which the rate is known: half a minute at least, at two dollars a second.
            if clock.seconds > 1006:
                spent, held = await aside(house.counters)
                free = held - 2 * D(clock.seconds - 1000)
                assert (spent, 60 <= free <= 124) == (0, True)
        for _ in range(28):
            at_once(book.reserve([budget_rule], "", D(4), NOON)).settle(D(2))

    run(scenario)


def test_a_lease_is_a_sixteenth_of_what_is_left_at_most_however_fast_it_is_spent(house: House) -> None:
    budget_rule = house.quota("400")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, uuid4(), clock=clock)
        for _ in range(60):
            await spend_for(book, clock, budget_rule, 2)
            _, held = await aside(house.counters)
            used = 2 * D(clock.seconds - 1000)
            # What is free of the lease, of what is not used up, beside what a request needs itself.
            assert held - used <= (400 - used) / 16 + 4

    run(scenario)


def test_a_limit_that_is_lowered_takes_back_what_is_leased_beyond_it(house: House) -> None:
    budget_rule = house.quota("10000")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, uuid4(), clock=clock)
        await spend_for(book, clock, budget_rule, 10)
        await aside(house.change, budget_rule, "30")
        for _ in range(4):
            clock.seconds += 1
            await book.maintain()
        assert await aside(house.counters) == (0, D(20))

    run(scenario)


def test_the_money_of_an_ended_period_returns_with_its_last_request(house: House) -> None:
    budget_rule = house.quota("160", period="day")
    now = [NOON]

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4(), clock=Clock(), now=lambda: now[0])
        reservation = await book.reserve([budget_rule], "", D(4), NOON)
        now[0] = NOON + timedelta(days=2)
        await book.maintain()
        assert await aside(house.counters) == (D(0), D(4))
        reservation.settle(D(1))
        await book.maintain()
        assert await aside(house.counters) == (D(0), D(1))
        await book.maintain()
        assert book._accounts == {}

    run(scenario)


def test_a_refusal_is_remembered_for_a_moment_and_a_raised_limit_is_seen_after_it(house: House) -> None:
    budget_rule = house.quota("1")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, uuid4(), clock=clock)
        with pytest.raises(BudgetExceeded):
            await book.reserve([budget_rule], "", D(2), NOON)
        await aside(house.change, budget_rule, "3")
        for _ in range(3):
            with pytest.raises(BudgetExceeded):
                at_once(book.reserve([budget_rule], "", D(2), NOON))
        clock.seconds += 0.26
        await book.reserve([budget_rule], "", D(2), NOON)

    run(scenario)


def test_a_crowd_of_requests_makes_one_database_call(house: House) -> None:
    budget_rule = house.quota("1000")

    async def scenario(pool: AsyncConnectionPool[Any]) -> int:
        book = LeaseBook(pool, uuid4())
        held = await asyncio.gather(*(book.reserve([budget_rule], "", D("0.1"), NOON) for _ in range(100)))
        assert len(held) == 100
        return book.grants

    assert run(scenario) == 1


def test_a_wallet_that_gets_a_limit_is_enforced_from_the_next_look_on(house: House) -> None:
    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        await book.reserve([house.wallet()], "", D(100), NOON)

        def limit() -> None:
            with scopes_disabled():
                Budget.objects.filter(organization=house.organization).update(limit=D(1))

        await aside(limit)
        await book.maintain()
        with pytest.raises(BudgetExceeded):
            await book.reserve([house.wallet()], "", D(2), NOON)

    run(scenario)


def test_a_removed_quota_binds_nobody(house: House) -> None:
    budget_rule = house.quota("1")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, uuid4(), clock=clock)
        with pytest.raises(BudgetExceeded):
            await book.reserve([budget_rule], "", D(5), NOON)

        await aside(house.remove, budget_rule)
        clock.seconds += 1
        await book.reserve([budget_rule], "", D(5), NOON)
        assert (await book.reserve([budget_rule], "", D(5), NOON)).budget_ids == []

    run(scenario)


def test_a_cancelled_request_loses_no_money(house: House) -> None:
    budget_rule = house.quota("1")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        (await book.reserve([budget_rule], "", D(0), NOON)).release()
        for turns in range(8):
            task = asyncio.create_task(book.reserve([budget_rule], "", D(1), NOON))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(ended, Reservation):
                ended.release()  # It was faster.
        await book.reserve([budget_rule], "", D(1), NOON)

    run(scenario)
    assert house.counters() == (D(0), D(1))


def test_without_the_database_leases_go_on_and_the_rest_is_refused(house: House) -> None:
    budget_rule = house.quota("16")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, uuid4(), clock=clock)
        (await book.reserve([budget_rule], "", D("0.5"), NOON)).release()
        await pool.close()
        clock.seconds += 2
        await book.maintain()
        clock.seconds += 2
        await book.maintain()
        at_once(book.reserve([budget_rule], "", D(1), NOON)).settle(D("0.5"))
        with pytest.raises(MoneyUnavailable):
            await book.reserve([budget_rule], "", D(1), NOON)
        # For a moment the database is not even tried.
        with pytest.raises(MoneyUnavailable):
            at_once(book.reserve([house.wallet()], "", D(1), NOON))
        assert book.failures >= 1
        at_once(book.reserve([budget_rule], "", D("0.5"), NOON))

    run(scenario)


def test_while_one_request_finds_out_whether_the_database_is_back_others_are_told_at_once(
    house: House,
) -> None:
    budget_rule, other_rule = house.quota("16"), house.quota("8", scope="key")
    kwargs = connection_parameters() | {"autocommit": True}

    async def scenario(_: AsyncConnectionPool[Any]) -> None:
        relay, clock = Relay(kwargs), Clock()
        way = kwargs | {"host": "127.0.0.1", "port": await relay.open(), "sslmode": "disable"}
        async with AsyncConnectionPool(kwargs=way, min_size=1, max_size=4) as pool:
            book = LeaseBook(pool, uuid4(), clock=clock)
            (await book.reserve([budget_rule], "", D("0.5"), NOON)).release()
            relay.silent(True)
            with pytest.raises(MoneyUnavailable):
                await book.reserve([budget_rule], "", D(2), NOON)
            clock.seconds += 1
            probe = asyncio.create_task(book.reserve([budget_rule], "", D(2), NOON))
            await asyncio.sleep(0.05)
            with pytest.raises(MoneyUnavailable):
                at_once(book.reserve([other_rule], "", D(1), NOON))
            with pytest.raises(MoneyUnavailable):
                await probe
            relay.silent(False)
            clock.seconds += 1
            (await book.reserve([budget_rule], "", D(2), NOON)).release()
            (await book.reserve([other_rule], "", D(1), NOON)).release()

    run(scenario)


def test_a_name_the_database_cannot_hold_stops_nobody(house: House) -> None:
    budget_rule = house.quota("1", scope="end_user")

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, uuid4())
        await book.reserve([budget_rule], "a\0nn", D("0.5"), NOON)
        await book.reserve([budget_rule], "n" * 300, D("0.5"), NOON)
        with pytest.raises(BudgetExceeded):
            await book.reserve([budget_rule], "ann", D("0.6"), NOON)

    run(scenario)
    assert {budget.subject for budget in house.budgets()} == {"ann", "n" * 256}


def test_a_charge_above_the_reservation_is_made_up_for_first(house: House) -> None:
    budget_rule = house.quota("10")
    worker = uuid4()

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, worker)
        reservation = await book.reserve([budget_rule], "", D(1), NOON)
        reservation.settle(D(3))
        await book.reserve([budget_rule], "", D(1), NOON)
        # The lease has covered the charge of 3 and the reservation of 1.
        assert await aside(house.counters) == (D(0), D(4))
        await aside(house.ship, worker, (reservation, "3"))

    run(scenario)
    assert house.counters() == (D(3), D(1))


def test_a_debt_that_was_shipped_is_forgotten_once_nothing_is_under_way(house: House) -> None:
    """Of 4, 3 were charged to a reservation of 1. With its event the debt of 2 is in ``spent``."""
    budget_rule = house.quota("4")
    worker = uuid4()

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        clock = Clock()
        book = LeaseBook(pool, worker, clock=clock)
        reservation = await book.reserve([budget_rule], "", D(1), NOON)
        reservation.settle(D(3))
        for _ in range(3):
            clock.seconds += 2
            await book.maintain()
        with pytest.raises(BudgetExceeded):
            await book.reserve([budget_rule], "", D(2), NOON)
        await aside(house.ship, worker, (reservation, "3"))
        for _ in range(3):
            clock.seconds += 2
            await book.maintain()
        await book.reserve([budget_rule], "", D(1), NOON)

    run(scenario)
    assert house.counters() == (D(3), D(1))


def test_no_more_returns_than_the_lease_has(house: House) -> None:
    """A request that was admitted while the budget was soft is charged to the lease all the same."""
    budget_rule = house.quota("160")
    worker = uuid4()

    async def scenario(pool: AsyncConnectionPool[Any]) -> None:
        book = LeaseBook(pool, worker)
        reservation = await book.reserve([budget_rule], "", D(4), NOON)
        reservation.release()
        await aside(house.ship, worker, (reservation, "7"))
        assert await aside(house.counters) == (D(7), D(3))
        await book.close()

    run(scenario)
    assert house.counters() == (D(7), D(0))


def test_a_pool_without_autocommit_does_as_well(house: House) -> None:
    budget_rule = house.quota("1")

    async def main() -> None:
        async with opened(autocommit=False) as pool:
            book = LeaseBook(pool, uuid4())
            (await book.reserve([budget_rule], "", D(1), NOON)).settle(D("0.5"))
            await book.close()

    asyncio.run(main())
    assert house.counters() == (D(0), D("0.5"))


WORKER_PROGRAM = """
import asyncio, random, sys
from datetime import datetime
from decimal import Decimal
from uuid import UUID
import orjson
from psycopg_pool import AsyncConnectionPool
from billing.leases import BudgetExceeded, BudgetRule, LeaseBook

job = orjson.loads(sys.argv[1])
rule = BudgetRule(job["quota"], job["organization"], "organization", "", "total", Decimal(1), True, "UTC", "b")
start = datetime.fromisoformat(job["start"])
dice = random.Random(job["seed"])
settled = []

async def client(book):
    refusals = 0
    while refusals < 8:
        amount = Decimal(dice.randint(1, 9)) / 1000
        try:
            reservation = await book.reserve([rule], "", amount, start)
        except BudgetExceeded:
            refusals += 1
            await asyncio.sleep(0.3)
            continue
        await asyncio.sleep(dice.random() / 100)
        charge = amount * dice.choice((0, 1, 1, 1)) * Decimal("0.7")
        reservation.settle(charge)
        settled.append((reservation.budget_ids, str(charge)))

async def tend(book):
    while True:
        await asyncio.sleep(0.5)
        await book.maintain()

async def main():
    kwargs = job["database"] | {"autocommit": True}
    async with AsyncConnectionPool(kwargs=kwargs, min_size=1, max_size=2) as pool:
        book = LeaseBook(pool, UUID(job["worker"]))
        print("ready", flush=True)
        sys.stdin.readline()
        tending = asyncio.create_task(tend(book))
        await asyncio.gather(*(client(book) for _ in range(50)))
        tending.cancel()
        await book.close()

asyncio.run(main())
print(orjson.dumps(settled).decode())
"""


def test_four_processes_of_fifty_requests_at_a_time_never_overdraw_and_use_it_up(house: House) -> None:
    budget_rule = house.quota("1.00")
    workers = [uuid4() for _ in range(4)]
    plain = {name: value for name, value in connection_parameters().items() if isinstance(value, str | int)}
    processes = []
    for seed, worker in enumerate(workers):
        job = {
            "quota": budget_rule.quota_id,
            "organization": house.organization.id,
            "start": NOON.isoformat(),
            "seed": seed,
            "worker": str(worker),
            "database": plain,
        }
        command = [sys.executable, "-c", WORKER_PROGRAM, orjson.dumps(job).decode()]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 4
    total = D(0)
    for worker, output in zip(workers, outputs, strict=True):
        charged = orjson.loads(output)
        assert charged, "Every worker got a part."
        total += sum(D(charge) for _, charge in charged)
        reservation = Reservation(D(0), NOON)
        reservation.budget_ids = charged[0][0]
        house.ship(worker, *((reservation, charge) for _, charge in charged))
    assert D("0.95") <= total <= D("1.00")
    assert house.counters() == (total, D(0))


class Worker:
    """A worker with its book, its open reservations, and its journal."""

    def __init__(self, pool: AsyncConnectionPool[Any], clock: Clock) -> None:
        self.id = uuid4()
        self.book = LeaseBook(pool, self.id, clock=clock)
        self.reserved: dict[int, Reservation] = {}
        self.journal: list[tuple[Reservation, Decimal]] = []


amounts = st.decimals(min_value="0.01", max_value="3", places=2)


class Spending(RuleBasedStateMachine):
    """Two workers spend one budget of 10 between crashes, against real PostgreSQL."""

    reservations = Bundle("reservations")
    # What was charged beyond reservations.
    excess = D(0)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.house = House(f"spending-{uuid4().hex[:12]}")
        self.budget_rule = self.house.quota("10")
        self.charged = D(0)
        self.number = 0
        self.pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            kwargs=connection_parameters() | {"autocommit": True}, min_size=1, max_size=2, open=False
        )
        self.runner.run(self.pool.open())

    @initialize()
    def begin(self) -> None:
        self.workers = [Worker(self.pool, self.clock) for _ in range(2)]

    @rule(target=reservations, place=st.integers(0, 1), amount=amounts)
    def reserve(self, place: int, amount: Decimal) -> Any:
        worker = self.workers[place]
        budget = self.house.budgets()
        left = D(10) - (budget[0].spent + budget[0].held if budget else 0)
        free = sum((account.free for account in worker.book._accounts.values()), D(0))
        self.number += 1
        try:
            reservation = self.runner.run(
                worker.book.reserve(
                    [self.budget_rule], "", amount, NOON + timedelta(microseconds=self.number)
                )
            )
        except BudgetExceeded:
            assert self.excess or amount > left + free
            # So that no refusal is remembered.
            self.clock.seconds += 0.3
            return multiple()
        assert amount <= left + free
        worker.reserved[self.number] = reservation
        return (worker, self.number)

    @rule(taken=consumes(reservations), share=st.sampled_from([D(0), D("0.5"), D(1)]))
    def settle(self, taken: tuple[Worker, int], share: Decimal) -> None:
        worker, number = taken
        reservation = worker.reserved.pop(number, None)
        if reservation is not None:
            charge = reservation.amount * share
            reservation.settle(charge)
            worker.journal.append((reservation, charge))
            self.charged += charge

    @rule(taken=consumes(reservations))
    def release(self, taken: tuple[Worker, int]) -> None:
        worker, number = taken
        reservation = worker.reserved.pop(number, None)
        if reservation is not None:
            reservation.release()

    @rule(place=st.integers(0, 1))
    def ship(self, place: int) -> None:
        worker = self.workers[place]
        self.house.ship(worker.id, *worker.journal)
        worker.journal.clear()

    @rule(place=st.integers(0, 1))
    def crash(self, place: int) -> None:
        """Requests under way are lost uncharged; what is in the journal is shipped, then the leases return."""
        worker = self.workers[place]
        worker.reserved.clear()
        self.ship(place)
        self.end(worker)
        self.workers[place] = Worker(self.pool, self.clock)

    def end(self, worker: Worker) -> None:
        """What the shipper does once a dead worker's journal is shipped."""
        with psycopg.connect(**connection_parameters(), autocommit=True) as connection:
            settlement.return_leases(connection, worker.id)

    @rule()
    def wait(self) -> None:
        self.clock.seconds += 2
        for worker in self.workers:
            self.runner.run(worker.book.maintain())

    @invariant()
    def the_books_agree(self) -> None:
        budgets = self.house.budgets()
        if not budgets:
            return
        (budget,) = budgets
        leased = self.house.leased()
        assert budget.spent + budget.held <= 10 + self.excess
        assert budget.held == sum(leased.values())
        waiting = D(0)
        for worker in self.workers:
            unshipped = sum((charge for _, charge in worker.journal), D(0))
            reserved = sum((reservation.amount for reservation in worker.reserved.values()), D(0))
            free = sum((account.free for account in worker.book._accounts.values()), D(0))
            over = leased.get(worker.id, D(0)) - (free + reserved + unshipped)
            assert 0 <= over <= self.excess
            waiting += unshipped
        assert budget.spent == self.charged - waiting

    def teardown(self) -> None:
        try:
            for place, worker in enumerate(self.workers):
                for reservation in worker.reserved.values():
                    reservation.release()
                self.runner.run(worker.book.close())
                self.ship(place)
                self.end(worker)
            for budget in self.house.budgets():
                assert (budget.spent, budget.held) == (self.charged, D(0))
        finally:
            self.runner.run(self.pool.close())
            self.runner.close()


class Overcharging(Spending):
    """Where a request can be charged more than was reserved for it."""

    @rule(taken=consumes(Spending.reservations), factor=st.sampled_from([D("1.5"), D(3)]))
    def overcharge(self, taken: tuple[Worker, int], factor: Decimal) -> None:
        worker, number = taken
        if number in worker.reserved:
            self.excess += worker.reserved[number].amount * (factor - 1)
        self.settle(taken, factor)


class Layered(RuleBasedStateMachine):
    """Three workers spend a day's budget of 5, which begins anew, inside one of 12 in total.

    Workers settle, release, crash, are idle and end their lives while days pass and the
    journal is shipped late. Model: what was charged in each counter.
    """

    reservations = Bundle("layered")
    limits = (D(5), D(12))

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.house = House(f"layered-{uuid4().hex[:12]}")
        self.budget_rules = [
            self.house.quota("5", period="day", scope="team"),
            self.house.quota("12", scope="organization"),
        ]
        # In the past whatever the day of the month, since the shipper refuses the future.
        self.at = NOON - timedelta(days=20)
        self.charged: dict[int, Decimal] = {}
        self.pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            kwargs=connection_parameters() | {"autocommit": True}, min_size=1, max_size=2, open=False
        )
        self.runner.run(self.pool.open())
        self.workers = [self.hired() for _ in range(3)]

    def hired(self) -> Worker:
        worker = Worker(self.pool, self.clock)
        worker.book = LeaseBook(self.pool, worker.id, clock=self.clock, now=lambda: self.at)
        return worker

    @rule(target=reservations, place=st.integers(0, 2), amount=amounts)
    def reserve(self, place: int, amount: Decimal) -> Any:
        worker = self.workers[place]
        self.at += timedelta(microseconds=1)
        try:
            reservation = self.runner.run(worker.book.reserve(self.budget_rules, "", amount, self.at))
        except BudgetExceeded:
            self.clock.seconds += 0.3
            return multiple()
        assert len(reservation.budget_ids) == 2
        number = id(reservation)
        worker.reserved[number] = reservation
        return (worker, number)

    @rule(taken=consumes(reservations), share=st.sampled_from([D(0), D("0.3"), D(1)]))
    def settle(self, taken: tuple[Worker, int], share: Decimal) -> None:
        worker, number = taken
        reservation = worker.reserved.pop(number, None)
        if reservation is None:
            return
        charge = reservation.amount * share
        reservation.settle(charge)
        worker.journal.append((reservation, charge))
        for budget_id in reservation.budget_ids:
            self.charged[budget_id] = self.charged.get(budget_id, D(0)) + charge

    @rule(taken=consumes(reservations))
    def release(self, taken: tuple[Worker, int]) -> None:
        worker, number = taken
        reservation = worker.reserved.pop(number, None)
        if reservation is not None:
            reservation.release()

    @rule(place=st.integers(0, 2))
    def ship(self, place: int) -> None:
        worker = self.workers[place]
        self.house.ship(worker.id, *worker.journal)
        worker.journal.clear()

    @rule(place=st.integers(0, 2))
    def crash(self, place: int) -> None:
        """What was under way is lost uncharged; the journal is shipped, then the leases expire."""
        worker = self.workers[place]
        worker.reserved.clear()
        self.ship(place)
        with psycopg.connect(**connection_parameters(), autocommit=True) as connection:
            settlement.return_leases(connection, worker.id)
        self.workers[place] = self.hired()

    @rule(hours=st.sampled_from([1, 11, 24]))
    def reset(self, hours: int) -> None:
        """Time passes; midnight may. Requests under way go on in the day they began in."""
        if self.at < NOON - timedelta(days=2):
            self.at += timedelta(hours=hours)
        self.wait()

    @rule()
    def wait(self) -> None:
        self.clock.seconds += 2
        for worker in self.workers:
            self.runner.run(worker.book.maintain())

    @invariant()
    def nothing_is_over_and_nothing_leaks(self) -> None:
        with scopes_disabled():
            leases: dict[int, Decimal] = {}
            for lease in Lease.objects.filter(budget__organization=self.house.organization):
                leases[lease.budget_id] = leases.get(lease.budget_id, D(0)) + lease.remaining
        unshipped: dict[int, Decimal] = {}
        reserved: dict[int, Decimal] = {}
        for worker in self.workers:
            for reservation, charge in worker.journal:
                for budget_id in reservation.budget_ids:
                    unshipped[budget_id] = unshipped.get(budget_id, D(0)) + charge
            for reservation in worker.reserved.values():
                for budget_id in reservation.budget_ids:
                    reserved[budget_id] = reserved.get(budget_id, D(0)) + reservation.amount
        for budget in self.house.budgets():
            assert budget.limit in self.limits
            assert budget.spent + budget.held <= budget.limit
            assert budget.held == leases.get(budget.pk, D(0))
            assert budget.held >= reserved.get(budget.pk, D(0)) + unshipped.get(budget.pk, D(0))
            assert budget.spent == self.charged.get(budget.pk, D(0)) - unshipped.get(budget.pk, D(0))

    def teardown(self) -> None:
        try:
            for place, worker in enumerate(self.workers):
                for reservation in worker.reserved.values():
                    reservation.release()
                self.runner.run(worker.book.close())
                self.ship(place)
            for budget in self.house.budgets():
                assert (budget.spent, budget.held) == (self.charged.get(budget.pk, D(0)), D(0))
        finally:
            self.runner.run(self.pool.close())
            self.runner.close()


@pytest.mark.parametrize("machine", [Spending, Overcharging, Layered])
def test_leases_and_counters_agree_whatever_happens_in_whatever_order(
    machine: type[RuleBasedStateMachine],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
