"""Domains of e-mail addresses: how they are written, who claims them, and whose they are.

A claim is proved by a TXT record that only the domain's administrator can publish. It is looked up when an
owner asks, or an operator has seen it and confirms; until then the claim means nothing, and several
organizations may make it.
"""

from __future__ import annotations

import re
import secrets

from django.db import IntegrityError, transaction
from django.utils import timezone
from django_scopes import scopes_disabled

from gateway.models import EmailDomain
from gateway.single_sign_on.records import LookUpError, txt_records
from tenants.models import Organization, User
from tenants.services import audit

RECORD = "weir-domain-verification="
MOST_CLAIMS = 50
# Labels of letters, digits and hyphens (RFC 1123, section 2.1), at least two of them.
_DOMAIN = re.compile(r"(?=.{4,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])\Z")


class DomainError(ValueError):
    """A domain that cannot be claimed, confirmed or given up so; the message is for people."""


def normal(domain: str) -> str:
    """``domain`` as it is kept. Raises ``DomainError``."""
    try:
        written = domain.strip().lower().encode("idna").decode()
    except UnicodeError:
        raise DomainError("This is not a domain, such as example.com.") from None
    if not _DOMAIN.match(written):
        raise DomainError("This is not a domain, such as example.com.")
    return written


def domain_of(email: str) -> str:
    """The domain of an address, as domains are kept; empty if it is no address."""
    local, at, domain = email.rpartition("@")
    try:
        return normal(domain) if local and at else ""
    except DomainError:
        return ""


def record_of(claim: EmailDomain) -> str:
    """What the TXT record says."""
    return f"{RECORD}{claim.token}"


def holder(email: str) -> Organization | None:
    """The organization whose confirmed domain ``email`` is in; None if there is none or it is suspended."""
    domain = domain_of(email)
    if not domain:
        return None
    with scopes_disabled():
        found = (
            EmailDomain.objects.select_related("organization")
            .filter(domain=domain, confirmed_at__isnull=False, organization__suspended_at__isnull=True)
            .first()
        )
    return found.organization if found is not None else None


@transaction.atomic
def claim_domain(*, acting_user: User | None, organization: Organization, domain: str) -> EmailDomain:
    """Claim ``domain``. Raises ``DomainError``."""
    written = normal(domain)
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    with scopes_disabled():
        claims = EmailDomain.objects.filter(organization=organization)
        if claims.filter(domain=written).exists():
            raise DomainError(f"{written} is claimed already.")
        if claims.count() >= MOST_CLAIMS:
            raise DomainError(f"An organization claims up to {MOST_CLAIMS} domains.")
        claim = EmailDomain(organization=organization, domain=written, token=secrets.token_hex(16))
        claim.save(force_insert=True)
        audit.record(acting_user=acting_user, verb="claimed", target=claim, organization=organization)
    return claim


@transaction.atomic
def drop_domain(*, acting_user: User | None, claim: EmailDomain) -> None:
    """Give up or refuse a claim: the provider then signs nobody of this domain in.

    Raises ``DomainError`` for the last confirmed domain of an organization that is OIDC only.
    """
    organization = Organization.objects.select_for_update(no_key=True).get(pk=claim.organization_id)
    with scopes_disabled():
        others = EmailDomain.objects.filter(organization=organization, confirmed_at__isnull=False).exclude(
            pk=claim.pk
        )
        if organization.oidc_only and claim.confirmed_at is not None and not others.exists():
            raise DomainError("Switch “OIDC only” off first: nobody could sign in without this domain.")
        audit.record(
            acting_user=acting_user,
            verb="removed",
            target=claim,
            organization=organization,
            detail={"confirmed": claim.confirmed_at is not None},
        )
        claim.delete()


def check_domain(*, acting_user: User | None, claim: EmailDomain) -> EmailDomain:
    """Make ``claim`` the organization's own if its TXT record is published. Raises ``DomainError``."""
    try:
        found = txt_records(claim.domain)
    except LookUpError as error:
        raise DomainError(f"{error} Nothing was changed.") from None
    if record_of(claim) not in found:
        others = [text for text in found if text.startswith(RECORD)]
        seen = "another claim's record" if others else f"{len(found) or 'no'} other TXT records"
        raise DomainError(
            f"{claim.domain} does not have the record yet: {seen} found. "
            "It can take an hour until name servers tell a new one."
        )
    return confirm_domain(acting_user=acting_user, claim=claim, by="TXT record")


@transaction.atomic
def confirm_domain(*, acting_user: User | None, claim: EmailDomain, by: str = "an operator") -> EmailDomain:
    """Make ``claim`` the organization's own: an operator has seen its TXT record, or it was looked up.

    ``by`` says which in the audit log. Raises ``DomainError`` if it is another organization's.
    """
    with scopes_disabled():
        locked = EmailDomain.objects.select_for_update(no_key=True, of=("self",)).get(pk=claim.pk)
        if locked.confirmed_at is not None:
            return locked
        locked.confirmed_at, locked.confirmed_by = timezone.now(), acting_user
        try:
            with transaction.atomic():
                locked.save(update_fields=["confirmed_at", "confirmed_by"])
        except IntegrityError:
            raise DomainError(f"{locked.domain} belongs to another organization.") from None
        audit.record(
            acting_user=acting_user,
            verb="confirmed",
            target=locked,
            organization=locked.organization,
            detail={"by": by},
        )
    return locked
