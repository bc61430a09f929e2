"""Payment providers behind one small interface (``base``): Stripe, and a dummy for development."""

from __future__ import annotations

from django.conf import settings

from billing.payments.base import PaymentProvider
from billing.payments.dummy import DummyProvider
from billing.payments.stripe import StripeProvider


def provider_called(name: str) -> PaymentProvider | None:
    """The provider ``name`` if it is the one in use (``PAYMENTS``); None otherwise."""
    if not name or name != settings.PAYMENTS:
        return None
    if name == "stripe":
        return StripeProvider(
            settings.STRIPE_SECRET_KEY, settings.STRIPE_WEBHOOK_SECRET, settings.STRIPE_API_BASE
        )
    return DummyProvider(settings.SECRET_KEY)


def provider_in_use() -> PaymentProvider | None:
    """The provider that customers pay through; None if there is none."""
    return provider_called(settings.PAYMENTS)
