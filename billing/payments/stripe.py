"""Stripe Checkout, through Stripe's own library.

https://docs.stripe.com/checkout/fulfillment: a session is paid when ``checkout.session.completed`` says
``payment_status: paid``, or later by ``checkout.session.async_payment_succeeded``. Either may come more
than once and in any order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from decimal import Decimal

import stripe

from billing.payments.base import BadSignature, Opened, Order, Paid, PaymentError

logger = logging.getLogger(__name__)

SECONDS = 10
CURRENCY = "usd"
_PAID = {"checkout.session.completed", "checkout.session.async_payment_succeeded"}


class StripeProvider:
    """``secret_key`` calls Stripe's API at ``api_base``, ``webhook_secret`` checks what Stripe sends."""

    name = "stripe"
    label = "Stripe"

    def __init__(self, secret_key: str, webhook_secret: str, api_base: str) -> None:
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_base},
            http_client=stripe.RequestsClient(timeout=SECONDS),
            max_network_retries=1,
        )
        self._webhook_secret = webhook_secret

    def open(self, order: Order) -> Opened:
        """A hosted checkout for one payment."""
        try:
            session = self._client.v1.checkout.sessions.create(
                params={
                    "mode": "payment",
                    "client_reference_id": order.reference,
                    "customer_email": order.email,
                    "success_url": order.return_url,
                    "cancel_url": order.return_url,
                    "line_items": [
                        {
                            "quantity": 1,
                            "price_data": {
                                "currency": CURRENCY,
                                "unit_amount": int(order.amount * 100),
                                "product_data": {"name": order.description},
                            },
                        }
                    ],
                },
                options={"idempotency_key": order.reference},
            )
        except stripe.StripeError as error:
            # Its text may quote what was sent.
            logger.warning(
                "Stripe opened no checkout: %s, status %s.", type(error).__name__, error.http_status
            )
            raise PaymentError(
                "The payment provider does not answer as it should. Try again later."
            ) from None
        if not session.url:
            raise PaymentError("The payment provider gave no page to pay on.")
        return Opened(session.id, session.url)

    def confirmed(self, body: bytes, headers: Mapping[str, str]) -> Paid | None:
        """A paid session that is ours: with a reference, in US dollars."""
        try:
            event = self._client.construct_event(
                body, headers.get("Stripe-Signature", ""), self._webhook_secret
            )
        except (ValueError, stripe.SignatureVerificationError):
            raise BadSignature from None
        if event.type not in _PAID:
            return None
        session = event.data.object.to_dict()
        if session.get("payment_status") != "paid" or session.get("currency") != CURRENCY:
            return None
        reference, cents = session.get("client_reference_id"), session.get("amount_total")
        if not reference or not isinstance(cents, int):
            return None
        return Paid(reference, session["id"], Decimal(cents) / 100)
