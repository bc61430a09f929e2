"""What a payment provider does for Weir: open a checkout, and say later that it was paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol


class PaymentError(Exception):
    """The provider did not open a checkout; the message is fit to be shown."""


class BadSignature(Exception):
    """A webhook that the provider did not send, or that cannot be read."""


@dataclass(frozen=True, slots=True)
class Order:
    """A payment to be made: ``reference`` is ours, ``amount`` in US dollars and whole cents."""

    reference: str
    amount: Decimal
    description: str
    email: str
    return_url: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkout at the provider: its id there, and the page on which the customer pays."""

    session: str
    url: str


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment the provider confirmed. ``session`` makes it unique: it is confirmed any number of times."""

    reference: str
    session: str
    amount: Decimal


class PaymentProvider(Protocol):
    """A way to pay."""

    @property
    def name(self) -> str:
        """As it stands in settings, addresses and references."""

    @property
    def label(self) -> str:
        """As people know it."""

    def open(self, order: Order) -> Opened:
        """Open a checkout; the same ``reference`` again opens no second one. Raises ``PaymentError``."""

    def confirmed(self, body: bytes, headers: Mapping[str, str]) -> Paid | None:
        """What the webhook ``body`` says was paid; None if it says something else. Raises ``BadSignature``."""
