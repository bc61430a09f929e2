"""Top-ups through a payment provider: a checkout is opened, the provider's webhook makes the posting."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from decimal import Decimal

from django.db import transaction
from django_scopes import scope, scopes_disabled

from billing.models import Checkout, LedgerTransaction
from billing.payments.base import Order, PaymentProvider
from billing.services.wallet import BadAmount, top_up
from tenants.models import Organization, User
from tenants.services import audit

logger = logging.getLogger(__name__)

LEAST, MOST = Decimal(5), Decimal(50_000)


def start(
    *,
    acting_user: User,
    organization: Organization,
    provider: PaymentProvider,
    amount: Decimal,
    return_url: str,
) -> Checkout:
    """Open a checkout for ``amount`` US dollars. ``return_url`` has ``{reference}`` where its reference goes.

    Raises ``BadAmount`` unless it is 5 to 50,000 in whole cents, ``PaymentError`` if the provider refuses.
    """
    if not amount.is_finite() or not LEAST <= amount <= MOST or amount.quantize(Decimal("0.01")) != amount:
        raise BadAmount(f"An amount is {LEAST} to {MOST:,} US dollars, in whole cents.")
    with transaction.atomic(), scope(organization=organization):
        checkout = Checkout.objects.create(
            organization=organization,
            reference=secrets.token_hex(12),
            provider=provider.name,
            amount=amount,
            started_by=acting_user,
        )
        audit.record(
            acting_user=acting_user,
            verb="started",
            target=checkout,
            organization=organization,
            detail={"amount": amount},
        )
    # Outside the transaction: the provider may take its time.
    opened = provider.open(
        Order(
            reference=checkout.reference,
            amount=amount,
            description=f"Credit for {organization.name}",
            email=acting_user.email,
            return_url=return_url.format(reference=checkout.reference),
        )
    )
    with scope(organization=organization):
        checkout.session, checkout.url = opened.session, opened.url
        checkout.save(update_fields=["session", "url"])
    return checkout


def receive(provider: PaymentProvider, body: bytes, headers: Mapping[str, str]) -> LedgerTransaction | None:
    """Post what a provider's webhook confirms; None if it confirms no payment of ours.

    However often and late it comes, there is one top-up. Raises ``BadSignature``.
    """
    paid = provider.confirmed(body, headers)
    if paid is None:
        return None
    with scopes_disabled(), transaction.atomic():
        checkout = (
            Checkout.objects.select_related("organization", "started_by")
            .filter(reference=paid.reference, provider=provider.name)
            .first()
        )
        if checkout is None or checkout.session not in {"", paid.session}:
            logger.error("%s confirmed a payment that nobody began: %s.", provider.name, paid.session)
            return None
        if checkout.amount != paid.amount:
            # What was paid is what counts; an operator looks why.
            logger.error("%s: %s was paid with another amount.", provider.name, paid.session)
        posting = top_up(
            acting_user=checkout.started_by,
            organization=checkout.organization,
            amount=paid.amount,
            reference=f"{provider.name}:{paid.session}",
            memo=f"Paid with {provider.label}",
        )
        Checkout.objects.filter(pk=checkout.pk).update(posting=posting)
    return posting
