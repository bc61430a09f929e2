"""The prices in force, as a worker holds them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from billing.pricing import Rates

_PRICES = """
SELECT id, deployment_id, model_group_id, effective_from, input, cached_input, cache_write, output
FROM billing_price ORDER BY effective_from, id
"""


@dataclass(frozen=True, slots=True)
class History:
    """The prices of one thing, oldest first."""

    since: tuple[datetime, ...]
    rates: tuple[Rates, ...]

    def at(self, moment: datetime) -> Rates | None:
        """The price in force at ``moment``; None before the first, and from a row without ``input`` on."""
        index = bisect_right(self.since, moment)
        rates = self.rates[index - 1] if index else None
        return rates if rates is not None and rates.input is not None else None


@dataclass(frozen=True, slots=True)
class RateBook:
    """Price histories by deployment id (what providers ask) and by group id (what tenants pay)."""

    costs: Mapping[int, History]
    prices: Mapping[int, History]

    def cost(self, deployment_id: int, at: datetime) -> Rates | None:
        """What the deployment's provider asks; None: unpriced."""
        history = self.costs.get(deployment_id)
        return history.at(at) if history else None

    def price(self, group_id: int, at: datetime) -> Rates | None:
        """What tenants pay for the group; None: the cost and the organization's markup."""
        history = self.prices.get(group_id)
        return history.at(at) if history else None


EMPTY = RateBook({}, {})


async def load_rates(connection: AsyncConnection[Any]) -> RateBook:
    """Read every price from PostgreSQL, past ones included: a few rows for each deployment and group."""
    costs: dict[int, list[tuple[datetime, Rates]]] = {}
    prices: dict[int, list[tuple[datetime, Rates]]] = {}
    async with connection.cursor(row_factory=dict_row) as cursor:
        for row in await (await cursor.execute(_PRICES)).fetchall():
            rates = Rates(row["id"], row["input"], row["cached_input"], row["cache_write"], row["output"])
            of_group = row["deployment_id"] is None
            side = prices if of_group else costs
            side.setdefault(row["model_group_id" if of_group else "deployment_id"], []).append(
                (row["effective_from"], rates)
            )
    return RateBook(
        *(
            {
                name: History(tuple(t for t, _ in rows), tuple(r for _, r in rows))
                for name, rows in side.items()
            }
            for side in (costs, prices)
        )
    )
