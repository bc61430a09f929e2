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

# With the version of the row, which PostgreSQL counts: what was read of it once need not be read again.
_VERSIONS = """
SELECT id, xmin::text AS version, deployment_id, model_group_id, organization_id, effective_from
FROM billing_price ORDER BY effective_from, id
"""
_TERMS = "SELECT *, xmin::text AS version FROM billing_price WHERE id = ANY(%s)"
_PRICES = "SELECT *, xmin::text AS version FROM billing_price ORDER BY effective_from, id"

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
    # By row and version.
    known: Mapping[tuple[int, str], Rates] = field(default_factory=dict, repr=False, compare=False)
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


async def load_rates(connection: AsyncConnection[Any], book: RateBook = EMPTY) -> RateBook:
    """Read every price from PostgreSQL, past ones included: a few rows for each deployment and group.

    Of what ``book`` knows already only the list is read, since thousands of prices would hold up the event
    loop for tenths of a second.
    """
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        listed = await (await cursor.execute(_VERSIONS)).fetchall()
        unknown = [row["id"] for row in listed if (row["id"], row["version"]) not in book.known]
        terms = await (await cursor.execute(_TERMS, [unknown])).fetchall() if unknown else []
    return _rate_book(listed, terms, book.known)


def read_rates(connection: Connection[Any]) -> RateBook:
    """Every price as ``connection``, such as Django's, sees it at this moment."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.adapters.register_loader("jsonb", JsonbLoader)
        rows = cursor.execute(_PRICES).fetchall()
        return _rate_book(rows, rows, {})


def _rate_book(
    listed: list[dict[str, Any]], terms: list[dict[str, Any]], known: Mapping[tuple[int, str], Rates]
) -> RateBook:
    """A book of the prices ``listed``, whose rates are in ``terms`` or ``known``."""
    fresh = {(row["id"], row["version"]): rates_of(row["id"], row) for row in terms}
    kept: dict[tuple[int, str], Rates] = {}
    costs: dict[int, list[tuple[datetime, Rates]]] = {}
    prices: dict[int, list[tuple[datetime, Rates]]] = {}
    own: dict[tuple[int, int], list[tuple[datetime, Rates]]] = {}
    for row in listed:
        version = row["id"], row["version"]
        rates = kept[version] = fresh.get(version) or known[version]
        entry = row["effective_from"], rates
        if row["model_group_id"] is None:
            costs.setdefault(row["deployment_id"], []).append(entry)
        elif row["organization_id"] is None:
            prices.setdefault(row["model_group_id"], []).append(entry)
        else:
            own.setdefault((row["organization_id"], row["model_group_id"]), []).append(entry)
    return RateBook(_histories(costs), _histories(prices), _histories(own), kept)


def _histories(entries: Mapping[Of, list[tuple[datetime, Rates]]]) -> dict[Of, History]:
    return {
        of: History(tuple(since for since, _ in each), tuple(rates for _, rates in each))
        for of, each in entries.items()
    }
