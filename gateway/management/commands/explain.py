"""``manage.py explain``: which deployments would serve a request, in which order, and why not the others."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django_scopes import scopes_disabled
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from billing.money import plain
from billing.pricing import worst_case
from gateway.v1.board import Notice, read_board
from gateway.v1.offers import may_pin
from gateway.v1.principals import Principal, Principals
from gateway.v1.pulse import Pulse
from gateway.v1.rates import RateBook, load_rates
from gateway.v1.worker import database_dsn
from routing.policy import Need, Signals, explain
from routing.table import DeploymentSpec, GroupSpec, RoutingTable, load_table
from tenants.models import ApiKey

RESTING = {
    "failing": "circuit open",
    "rate_limited": "rate limit of the provider",
    "credential": "credential refused",
}


class Command(BaseCommand):
    """Asks the routing policy itself, with the tables a worker would have at this moment.

    What only a running worker knows (requests in flight, latency) counts as zero; open circuits are
    read from Redis, where the workers post them.
    """

    help = "Show how a request with a key for a model would be routed. Sends nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add what a request is told by."""
        parser.add_argument("--key", required=True, help="organization/team/name of an API key")
        parser.add_argument("--model", required=True, help="what the client would send as model")
        parser.add_argument("--tokens", type=int, default=100, help="input tokens (default 100)")
        parser.add_argument("--output", type=int, default=500, help="output tokens (default 500)")
        parser.add_argument("--max-cost", type=Decimal, help="as in the header X-Weir-Max-Cost, US dollars")
        parser.add_argument("--region", action="append", help="as in the header X-Weir-Region")
        for need in ("tools", "vision", "json_schema"):
            flag = f"--{need.replace('_', '-')}"
            parser.add_argument(flag, action="append_const", dest="needs", const=need, help=f"needs {need}")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the candidates. Raises CommandError where the key or model is not to be had."""
        digest = self.digest(options["key"])
        table, rates, principal, notices = asyncio.run(read(digest))
        if principal is None:
            raise CommandError(
                f"The key {options['key']} does not work: it is revoked, or its organization suspended."
            )
        # No group's name has a slash: what follows one is the deployment that is asked for.
        name, _, pin = options["model"].partition("/")
        group = table.groups.get(name)
        if group is None or not principal.may_see(name):
            raise CommandError(f"There is no model group {name} for {principal.organization}.")
        if not principal.may_use(name):
            raise CommandError(f"The key {options['key']} may not use {name}.")
        if pin and not may_pin(group, pin):
            raise CommandError(f"{name} has no deployment {pin} that a client may ask for by name.")
        regions = principal.regions
        if options["region"]:
            told = frozenset(options["region"])
            regions = told if regions is None else regions & told
        need = Need(
            options["tokens"],
            options["output"],
            frozenset(options["needs"] or ()),
            principal.plan,
            principal.team,
            options["max_cost"],
            regions,
        )
        if notices is None:
            self.stderr.write("Redis is away, so open circuits are not shown.")
        self.print(table, rates, principal, group, need, notices or [], pin)

    def digest(self, name: str) -> str:
        """The digest of the key called organization/team/name."""
        organization, _, rest = name.partition("/")
        team, _, key = rest.partition("/")
        with scopes_disabled():
            found = ApiKey.objects.filter(
                organization__slug=organization, team__slug=team, name=key, revoked_at__isnull=True
            ).order_by("-created_at")
            digest = found.values_list("digest", flat=True).first()
        if digest is None:
            raise CommandError(f"There is no key {name}. Write it as organization/team/name.")
        return str(digest)

    def print(
        self,
        table: RoutingTable,
        rates: RateBook,
        principal: Principal,
        group: GroupSpec,
        need: Need,
        notices: Sequence[Notice] = (),
        pin: str = "",
    ) -> None:
        """Write the verdicts, first the order of trying, then what was left out and why.

        With ``pin``, only of the deployment of this name, which is tried alone.
        """
        now = datetime.now(UTC)

        def cost(deployment: DeploymentSpec) -> Decimal | None:
            found = rates.cost(deployment.id, now)
            if found is None or not found.priced_for("chat.completions"):
                return None
            return found.most(need.input_tokens, need.output_tokens)

        # Circuits as the running workers have posted them.
        pulse = Pulse(now.timestamp)
        until: dict[int, float] = {}
        for notice in notices:
            pulse.health.adopt(notice.key, notice.until, notice.why, notice.openings, now.timestamp())
            until[notice.key[0]] = max(notice.until, until.get(notice.key[0], 0.0))

        def resting(deployment: DeploymentSpec) -> str:
            why = pulse.why(deployment)
            if not why or pulse.available(deployment):
                return ""
            moment = datetime.fromtimestamp(until[deployment.id], UTC)
            return f"{RESTING[why]}, resting until {moment:%H:%M:%S} UTC"

        def charge(group: GroupSpec, deployment: DeploymentSpec) -> Decimal | None:
            found = rates.cost(deployment.id, now)
            if found is None or not found.priced_for("chat.completions"):
                return None
            price = rates.price(group.id, principal.organization_id, now)
            return worst_case(need.input_tokens, need.output_tokens, found, price, principal.markup)

        signals = Signals(
            cost, pulse.in_flight, pulse.latency, available=pulse.available, resting=resting, charge=charge
        )
        verdicts = explain(table, group, need, signals, Random(0), principal.may_use)  # noqa: S311  # repeatable
        if pin:
            verdicts = [
                replace(verdict, place=verdict.place and 1)
                for verdict in verdicts
                if verdict.deployment.name == pin
            ][:1]
        self.stdout.write(
            f"{group.name}: {group.strategy}, {need.input_tokens} + {need.output_tokens} tokens"
        )
        for verdict in verdicts:
            amount = cost(verdict.deployment)
            price = f"${plain(amount)}" if amount is not None else "no price"
            place = f"{verdict.place}." if verdict.place else "-"
            where = "" if verdict.group == group.name else f" (by {verdict.group})"
            told = verdict.removed or verdict.resting
            reason = f": {told}" if told else ""
            self.stdout.write(
                f"  {place:>3} {verdict.deployment.name}{where}, "
                f"{verdict.deployment.model} at {verdict.deployment.provider.name}, up to {price}{reason}"
            )


async def read(
    digest: str,
) -> tuple[RoutingTable, RateBook, Principal | None, list[Notice] | None]:
    """The tables, the principal and the open circuits as a worker would read them."""
    dsn = database_dsn()
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        table, rates = await load_table(connection), await load_rates(connection)
    async with AsyncConnectionPool(
        dsn, min_size=1, max_size=1, open=False, kwargs={"autocommit": True}
    ) as pool:
        principal = await Principals(pool).by_digest(digest)
    return table, rates, principal, await read_board(settings.REDIS_URL)
