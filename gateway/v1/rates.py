"""The prices in force, as a worker holds them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row
from psycopg.types.json import JsonbLoader

from billing.price_terms import rates_of
from billing.pricing import Rates

_PRICES = "SELECT * FROM billing_price ORDER BY effective_from, id"

Of = TypeVar("Of", int, tuple[int, int])


@dataclass(frozen=True, slots=True)
class History:
    """The prices of one thing, oldest first."""

    since: tuple[datetime, ...]
    rates: tuple[Rates, ...]

    def listed(self, moment: datetime) -> Rates | None:
        """The price as it stands at ``moment``, with its peak hours; None as for ``at``."""
        index = bisect_right(self.since, moment)
        rates = self.rates[index - 1] if index else None
        return rates if rates is not None and (rates.input is not None or rates.priced) else None

    def at(self, moment: datetime) -> Rates | None:
        """The price in force at ``moment``; None before the first, and from one that ended it on."""
        index = bisect_right(self.since, moment)
        if not index:
            return None
        rates = self.rates[index - 1]
        if rates.peaks:
            rates = rates.during(moment)
        return rates if rates.input is not None or rates.priced else None


_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class InForce:
    """What providers ask from one change of a price, ``since``, to the next, ``until``.

    Routing looks at every deployment of a group for every request, so this is worked out once.
    """

    __slots__ = ("_priced", "rates", "since", "until")

    def __init__(self, costs: Mapping[int, History], moment: datetime) -> None:
        changes = [change for history in costs.values() for change in history.since]
        self.since = max((change for change in changes if change <= moment), default=_EARLIEST)
        self.until = min((change for change in changes if change > moment), default=_LATEST)
        # By deployment id, with their peak hours.
        self.rates = {of: rates for of, history in costs.items() if (rates := history.listed(moment))}
        self._priced: dict[tuple[str, Collection[str]], frozenset[int]] = {}

    def priced(self, endpoint: str, classes: frozenset[str]) -> frozenset[int]:
        """The ids of the deployments that are priced for all that a request uses."""
        key = endpoint, classes
        if key not in self._priced:
            self._priced[key] = frozenset(
                of for of, rates in self.rates.items() if rates.priced_for(endpoint, classes)
            )
        return self._priced[key]


@dataclass(frozen=True, slots=True)
class RateBook:
    """Price histories by deployment id (what providers ask), by group id (what tenants pay), and by
    organization and group id (what one tenant pays instead)."""

    costs: Mapping[int, History]
    prices: Mapping[int, History]
    own: Mapping[tuple[int, int], History]
    # What was in force when last asked.
    _newest: list[InForce] = field(default_factory=list, init=False, repr=False, compare=False)

    def in_force(self, at: datetime) -> InForce:
        """What providers ask at a moment."""
        if self._newest and self._newest[0].since <= at < self._newest[0].until:
            return self._newest[0]
        self._newest[:] = [InForce(self.costs, at)]
        return self._newest[0]

    def cost(self, deployment_id: int, at: datetime) -> Rates | None:
        """What the deployment's provider asks; None: unpriced."""
        history = self.costs.get(deployment_id)
        return history.at(at) if history else None

    def price(self, group_id: int, organization_id: int, at: datetime) -> Rates | None:
        """What the organization pays for the group; None: the cost and its markup."""
        if self.own:
            history = self.own.get((organization_id, group_id))
            rates = history.at(at) if history else None
            if rates is not None:
                return rates
        history = self.prices.get(group_id)
        return history.at(at) if history else None


EMPTY = RateBook({}, {}, {})


async def load_rates(connection: AsyncConnection[Any]) -> RateBook:
    """Read every price from PostgreSQL, past ones included: a few rows for each deployment and group."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        return _rate_book(await (await cursor.execute(_PRICES)).fetchall())


def read_rates(connection: Connection[Any]) -> RateBook:
    """Every price as ``connection``, such as Django's, sees it at this moment."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.adapters.register_loader("jsonb", JsonbLoader)
        return _rate_book(cursor.execute(_PRICES).fetchall())


def _rate_book(rows: list[dict[str, Any]]) -> RateBook:
    costs: dict[int, list[tuple[datetime, Rates]]] = {}
    prices: dict[int, list[tuple[datetime, Rates]]] = {}
    own: dict[tuple[int, int], list[tuple[datetime, Rates]]] = {}
    for row in rows:
        entry = row["effective_from"], rates_of(row["id"], row)
        if row["model_group_id"] is None:
            costs.setdefault(row["deployment_id"], []).append(entry)
        elif row["organization_id"] is None:
            prices.setdefault(row["model_group_id"], []).append(entry)
        else:
            own.setdefault((row["organization_id"], row["model_group_id"]), []).append(entry)
    return RateBook(_histories(costs), _histories(prices), _histories(own))


def _histories(entries: Mapping[Of, list[tuple[datetime, Rates]]]) -> dict[Of, History]:
    return {
        of: History(tuple(since for since, _ in each), tuple(rates for _, rates in each))
        for of, each in entries.items()
    }
