"""A provider that takes no money: for development and tests, never for customers."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from decimal import Decimal

from billing.payments.base import BadSignature, Opened, Order, Paid

HEADER = "X-Dummy-Signature"


class DummyProvider:
    """Signs with the platform's own secret. Its checkout is the page that customers come back to, which
    has a button in place of a card form."""

    name = "dummy"
    label = "Test payments (no money moves)"

    def __init__(self, secret: str) -> None:
        self._key = f"dummy payments:{secret}".encode()

    def open(self, order: Order) -> Opened:
        """The page to come back to."""
        return Opened(f"dummy_{order.reference}", order.return_url)

    def webhook(self, reference: str, amount: Decimal) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the webhook that confirms a payment."""
        body = json.dumps({"reference": reference, "amount": str(amount)}).encode()
        return body, {HEADER: self._signature(body)}

    def confirmed(self, body: bytes, headers: Mapping[str, str]) -> Paid | None:
        """What ``webhook`` wrote."""
        if not hmac.compare_digest(self._signature(body).encode(), headers.get(HEADER, "").encode()):
            raise BadSignature
        said = json.loads(body)
        return Paid(said["reference"], f"dummy_{said['reference']}", Decimal(said["amount"]))

    def _signature(self, body: bytes) -> str:
        return hmac.new(self._key, body, hashlib.sha256).hexdigest()
