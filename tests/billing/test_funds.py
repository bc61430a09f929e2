"""Which account pays a charge, and which one money goes to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.funds import Funds, GrantLeft, Line

D = Decimal
TEN = datetime(2026, 3, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def grant(number: int, left: str, *, starts: datetime = TEN, ends: datetime = TEN + HOUR) -> GrantLeft:
    return GrantLeft(number, starts, ends, D(left))


def test_the_grant_that_ends_first_pays_first_then_the_wallet_then_it_is_owed() -> None:
    funds = Funds([grant(1, "2"), grant(2, "3", ends=TEN + 2 * HOUR)], wallet=D(4))
    assert funds.charge(D(10), TEN) == [
        Line("grants", 1, D(2)),
        Line("grants", 2, D(3)),
        Line("receivable", None, D(1)),
        Line("wallet", None, D(4)),
    ]
    assert (funds.wallet, funds.owed) == (D(0), D(1))


def test_a_grant_pays_for_the_hours_from_its_start_until_its_end_alone() -> None:
    def from_grant(hour: datetime) -> bool:
        return Line("grants", 1, D(1)) in Funds([grant(1, "2")]).charge(D(1), hour)

    assert [from_grant(hour) for hour in (TEN - HOUR, TEN, TEN + HOUR)] == [False, True, False]


def test_money_that_comes_in_pays_what_is_owed_first() -> None:
    funds = Funds([], owed=D(3))
    assert funds.move(D(10)) == [Line("receivable", None, D(-3)), Line("wallet", None, D(-7))]
    assert (funds.wallet, funds.owed) == (D(7), D(0))


def test_money_that_goes_out_leaves_grants_alone() -> None:
    funds = Funds([grant(1, "5")], wallet=D(2))
    assert funds.move(D(-3)) == [Line("receivable", None, D(1)), Line("wallet", None, D(2))]
    assert funds.grants[0].left == 5


def test_a_charge_taken_back_is_money_that_comes_in() -> None:
    assert Funds([grant(1, "5")], owed=D(1)).charge(D(-2), TEN) == [
        Line("receivable", None, D(-1)),
        Line("wallet", None, D(-1)),
    ]


amounts = st.decimals("-100", "100", places=12)


@given(
    wallet=st.decimals("0", "50", places=12),
    lefts=st.lists(st.decimals("0", "20", places=12), max_size=3),
    moves=st.lists(st.tuples(st.booleans(), amounts), max_size=8),
)
def test_no_digit_is_lost_and_nobody_has_money_and_debts_at_once(
    wallet: Decimal, lefts: list[Decimal], moves: list[tuple[bool, Decimal]]
) -> None:
    funds = Funds([grant(number, str(left)) for number, left in enumerate(lefts)], wallet=wallet)
    for is_charge, amount in moves:
        before = funds.wallet - funds.owed + sum(each.left for each in funds.grants)
        lines = funds.charge(amount, TEN) if is_charge else funds.move(amount)
        change = -amount if is_charge else amount
        after = funds.wallet - funds.owed + sum(each.left for each in funds.grants)
        assert after - before == change == -sum((line.amount for line in lines), D(0))
        assert min(funds.wallet, funds.owed) == 0
        assert min([D(0), *(each.left for each in funds.grants)]) == 0
