"""Codes worth money: an operator makes them, an organization redeems each once."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from billing.models import LedgerTransaction, RedeemableCode
from billing.services.wallet import WalletError, check_amount, locked, post_money
from tenants import keys
from tenants.models import Organization, User
from tenants.services import audit

# Crockford's alphabet: nothing in it is read as something else. 20 characters have 100 bits.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS = str.maketrans("OIL", "011")
GROUPS, GROUP = 5, 4


class CodeError(WalletError):
    """A code that cannot be redeemed; the message is for people."""


def plain_code(typed: str) -> str:
    """A code as it is stored, however it was typed: capitals, no spaces or hyphens."""
    return re.sub(r"[\s-]", "", typed.upper()).translate(_READ_AS)


def digest(code: str) -> str:
    """The keyed digest under which a code is found; never equal to that of an API key."""
    return keys.digest(f"code:{plain_code(code)}")


@transaction.atomic
def make_code(
    *, acting_user: User | None, amount: Decimal, expires_at: datetime | None = None, memo: str = ""
) -> tuple[RedeemableCode, str]:
    """A new code worth ``amount`` US dollars, and its text, which is shown this once.

    Raises ``BadAmount``, and ``CodeError`` for an end in the past.
    """
    check_amount(amount)
    if expires_at is not None and expires_at <= timezone.now():
        raise CodeError("expires_at: the end of a code is in the future.")
    text = "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS))
    code = RedeemableCode.objects.create(
        digest=digest(text),
        last_four=text[-GROUP:],
        amount=amount,
        memo=memo,
        expires_at=expires_at,
        made_by=acting_user,
    )
    audit.record(
        acting_user=acting_user, verb="made", target=code, detail={"amount": amount, "expires_at": expires_at}
    )
    return code, text


@transaction.atomic
def redeem(*, acting_user: User, organization: Organization, code: str) -> LedgerTransaction:
    """Put the worth of ``code`` into the wallet; of two who redeem it at once, one does.

    Raises ``CodeError`` if it is unknown, used or over.
    """
    owner = locked(organization)
    found = RedeemableCode.objects.select_for_update().filter(digest=digest(code)).first()
    if found is None:
        raise CodeError("There is no such code. Check it for a typing error.")
    if found.posting_id is not None:
        raise CodeError("This code was redeemed before.")
    if found.expires_at is not None and found.expires_at <= timezone.now():
        raise CodeError("This code can no longer be redeemed.")
    posting = post_money(
        acting_user=acting_user,
        organization=owner,
        kind="code",
        reference=f"code:{found.pk}",
        memo=f"Code ending in {found.last_four}",
        amount=found.amount,
        against="codes",
        verb="redeemed",
    )
    found.posting = posting
    found.save(update_fields=["posting"])
    return posting
