"""An organization's sign-in provider: setting it, removing it, and making it the only way in."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.db import transaction
from django_scopes import scopes_disabled

from gateway.models import EmailDomain, SignInIdentity, SignInProvider
from routing.credentials import encrypt
from tenants.models import Organization, User
from tenants.services import audit, rows
from tenants.services.organizations import update_organization


class ProviderError(ValueError):
    """A provider that cannot be set, removed or demanded so; the message is for people."""


def normal_issuer(issuer: str) -> str:
    """``issuer`` as tokens write it: without a query or fragment. Raises ``ProviderError``.

    https://openid.net/specs/openid-connect-core-1_0.html#IssuerIdentifier. Whether the address may be
    asked is decided where it is asked (``issuers.discover``).
    """
    written = issuer.strip()
    try:
        parts = urlsplit(written)
        named = bool(parts.hostname)
    except ValueError:
        named = False
    if (
        not named
        or parts.scheme not in {"https", "http"}
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ProviderError("An issuer is an address such as https://login.example.com, without ? or #.")
    if written.endswith("/.well-known/openid-configuration"):
        raise ProviderError("Leave /.well-known/openid-configuration away: it is added to the issuer.")
    return written


@transaction.atomic
def save_provider(
    *, acting_user: User | None, organization: Organization, issuer: str, client_id: str, secret: str
) -> SignInProvider:
    """Set the organization's provider. An empty ``secret`` keeps the one it has.

    With another issuer or client, everybody's identity at the former is forgotten, and sessions that
    came through it count no longer. Raises ``ProviderError``, ``InvalidRow``.
    """
    issuer, client_id, secret = normal_issuer(issuer), client_id.strip(), secret.strip()
    locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    with scopes_disabled():
        found = SignInProvider.objects.filter(organization=locked).first()
        if found is None:
            if not secret:
                raise ProviderError("Enter the client secret that your provider gave.")
            provider = SignInProvider(
                organization=locked, issuer=issuer, client_id=client_id, ciphertext=encrypt(secret)
            )
            rows.check(provider)
            provider.save(force_insert=True)
            audit.record(
                acting_user=acting_user,
                verb="created",
                target=provider,
                organization=locked,
                detail={"issuer": issuer, "client_id": client_id},
            )
            return provider
        changes = rows.changed(found, {"issuer": issuer, "client_id": client_id})
        if changes and locked.oidc_only:
            raise ProviderError("Switch “OIDC only” off before you change the issuer or the client.")
        if "issuer" in changes and not secret:
            raise ProviderError("Another issuer has another client secret. Enter it too.")
        detail = rows.assign(found, changes) if changes else {}
        if changes:
            SignInIdentity.objects.filter(provider=found).delete()
        if secret:
            found.ciphertext = encrypt(secret)
            found.save(update_fields=["ciphertext"])
            detail["secret"] = {"replaced": True}
        if detail:
            audit.record(
                acting_user=acting_user, verb="changed", target=found, organization=locked, detail=detail
            )
    return found


@transaction.atomic
def remove_provider(*, acting_user: User | None, provider: SignInProvider) -> None:
    """Remove the provider; members and accounts stay. Raises ``ProviderError`` while it is the only way in."""
    organization = Organization.objects.select_for_update(no_key=True).get(pk=provider.organization_id)
    if organization.oidc_only:
        raise ProviderError("Switch “OIDC only” off first: nobody could sign in without the provider.")
    with scopes_disabled():
        audit.record(acting_user=acting_user, verb="removed", target=provider, organization=organization)
        provider.delete()


@transaction.atomic
def set_oidc_only(*, acting_user: User | None, organization: Organization, on: bool) -> Organization:
    """Whether the provider is the only way into the organization. Raises ``ProviderError``.

    The caller makes sure that whoever switches it on came through the provider themselves.
    """
    locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    with scopes_disabled():
        if on and not SignInProvider.objects.filter(organization=locked).exists():
            raise ProviderError("Set the provider first.")
        if on and not EmailDomain.objects.filter(organization=locked, confirmed_at__isnull=False).exists():
            raise ProviderError("Claim a domain first, and have it confirmed: nobody could sign in.")
        return update_organization(acting_user=acting_user, organization=organization, oidc_only=on)
