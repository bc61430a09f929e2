"""``manage.py explain``: which deployments would serve a request, in which order, and why not the others."""

from __future__ import annotations

from argparse import ArgumentParser
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django_scopes import scopes_disabled

from billing.money import plain
from gateway.explanation import CHAT, Caller, Picture, caller_of, explain, picture
from gateway.v1.offers import may_pin
from routing.links import CAPABILITIES
from routing.policy import Need
from routing.table import GroupSpec
from tenants.models import ApiKey


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
        parser.add_argument("--endpoint", default=CHAT, help=f"what is asked, such as embeddings ({CHAT})")
        for need in CAPABILITIES:
            flag = f"--{need.replace('_', '-')}"
            parser.add_argument(flag, action="append_const", dest="needs", const=need, help=f"needs {need}")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the candidates. Raises CommandError where the key or model is not to be had."""
        key = self.key(options["key"])
        if key.organization.suspended_at is not None:
            raise CommandError(f"The key {options['key']} does not work: its organization is suspended.")
        with scopes_disabled():
            organization = caller_of(key.organization)
            caller = caller_of(key.organization, key.team, key)
        seen = picture()
        # No group's name has a slash: what follows one is the deployment that is asked for.
        name, _, pin = options["model"].partition("/")
        group = seen.table.groups.get(name)
        if group is None or not organization.may_use(name):
            raise CommandError(f"There is no model group {name} for {key.organization.slug}.")
        if not caller.may_use(name):
            raise CommandError(f"The key {options['key']} may not use {name}.")
        if pin and not may_pin(group, pin):
            raise CommandError(f"{name} has no deployment {pin} that a client may ask for by name.")
        regions = caller.regions
        if options["region"]:
            told = frozenset(options["region"])
            regions = told if regions is None else regions & told
        need = Need(
            options["tokens"],
            options["output"],
            frozenset(options["needs"] or ()),
            caller.plan,
            caller.team,
            options["max_cost"],
            regions,
        )
        if seen.notices is None:
            self.stderr.write("Redis is away, so open circuits are not shown.")
        self.print(seen, caller, group, need, options["endpoint"], pin)

    def key(self, name: str) -> ApiKey:
        """The newest key called organization/team/name that works."""
        organization, _, rest = name.partition("/")
        team, _, key = rest.partition("/")
        with scopes_disabled():
            found = ApiKey.objects.select_related("organization__plan", "team").filter(
                organization__slug=organization, team__slug=team, name=key, revoked_at__isnull=True
            )
            newest = found.order_by("-created_at").first()
        if newest is None:
            raise CommandError(f"There is no key {name}. Write it as organization/team/name.")
        return newest

    def print(
        self, seen: Picture, caller: Caller, group: GroupSpec, need: Need, endpoint: str, pin: str
    ) -> None:
        """Write the verdicts, first the order of trying, then what was left out and why."""
        self.stdout.write(
            f"{group.name}: {group.strategy}{', hedges' if group.hedge else ''}"
            f"{', resumes' if group.resume else ''}, "
            f"{need.input_tokens} + {need.output_tokens} tokens"
        )
        for verdict in explain(seen, caller, group, need, endpoint=endpoint, pin=pin).verdicts:
            amount = seen.cost(verdict.deployment, need, endpoint)
            price = f"${plain(amount)}" if amount is not None else "no price"
            place = f"{verdict.place}." if verdict.place else "-"
            where = "" if verdict.group == group.name else f" (by {verdict.group})"
            told = verdict.removed or verdict.resting
            reason = f": {told}" if told else ""
            self.stdout.write(
                f"  {place:>3} {verdict.deployment.name}{where}, "
                f"{verdict.deployment.model} at {verdict.deployment.provider.name}, up to {price}{reason}"
            )
