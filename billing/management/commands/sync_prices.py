"""``manage.py sync_prices``: cost prices from the packaged catalogue."""

from __future__ import annotations

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.services.price_sync import Proposal, apply_proposals, proposals
from routing.models import Deployment

HEADINGS = ("Deployment", "Term", "Present", "Proposed")


def table(found: list[Proposal]) -> str:
    """What would change, as columns of text."""
    rows = [HEADINGS]
    for proposal in found:
        rows += [
            (proposal.deployment.name, each.term, each.before or "none", each.after)
            for each in proposal.differences
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


class Command(BaseCommand):
    help = (
        "Show what the packaged catalogue of prices would change of what providers charge, and set it with"
        " --apply. Deployments that the catalogue does not know are left alone."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--apply", action="store_true", help="set the proposed prices from this moment on"
        )
        parser.add_argument(
            "--max-rise",
            default="25",
            metavar="PERCENT",
            help="the rise of a rate that needs no confirmation",
        )
        parser.add_argument("--confirm-rise", action="store_true", help="set prices that rise by more, too")
        parser.add_argument(
            "--deployment", action="append", metavar="NAME", help="only this one; may be repeated"
        )

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002  # Django's signature
        try:
            bound = Decimal(options["max_rise"])
        except InvalidOperation:
            bound = Decimal("NaN")
        if not bound >= 0:
            raise CommandError("--max-rise must be a percentage of 0 or more, such as 25.")
        deployments = Deployment.objects.select_related("provider").order_by("name")
        if options["deployment"]:
            deployments = deployments.filter(name__in=options["deployment"])
            if missing := set(options["deployment"]) - {each.name for each in deployments}:
                raise CommandError(f"There is no deployment {min(missing)}.")
        found, unknown = proposals(deployments)
        if unknown:
            names = ", ".join(each.name for each in unknown)
            self.stdout.write(f"Not in the catalogue, left alone: {names}.")
        if not found:
            self.stdout.write("Nothing to change.")
            return
        self.stdout.write(table(found))
        for proposal in found:
            if proposal.left_out:
                left_out = ", ".join(proposal.left_out)
                self.stdout.write(
                    f"{proposal.deployment.name}: the catalogue also has {left_out}; not taken over."
                )
        beyond = [proposal for proposal in found if proposal.exceeds(bound / 100)]
        if beyond and not options["confirm_rise"]:
            names = ", ".join(proposal.deployment.name for proposal in beyond)
            message = (
                f"Rates rise by more than {bound}%: {names}. Confirm with --confirm-rise; nothing was set."
            )
            if options["apply"]:
                raise CommandError(message)
            self.stdout.write(message)
        if options["apply"]:
            apply_proposals(acting_user=None, found=found)
            self.stdout.write(f"{len(found)} prices set.")
        else:
            self.stdout.write("Set them with --apply.")
