"""``manage.py codes``: makes codes worth money and prints them, once."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from billing.services import codes


class Command(BaseCommand):
    help = "Make codes that organizations redeem for money in their wallet. Only digests of them are stored."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("amount", help="US dollars each is worth")
        parser.add_argument("--count", type=int, default=1)
        parser.add_argument("--expires", help="first day (UTC) on which they are void, such as 2027-01-01")
        parser.add_argument("--memo", default="", help="for the operators' list")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002  # Django's signature
        try:
            amount = Decimal(options["amount"])
            ends = options["expires"] and datetime.strptime(options["expires"], "%Y-%m-%d").replace(
                tzinfo=UTC
            )
        except (InvalidOperation, ValueError):
            raise CommandError("Write the amount as 50 or 12.50, --expires as 2027-01-01.") from None
        for _ in range(options["count"]):
            try:
                _, text = codes.make_code(
                    acting_user=None, amount=amount, expires_at=ends or None, memo=options["memo"]
                )
            except ValueError as error:
                raise CommandError(str(error)) from None
            self.stdout.write(text)
