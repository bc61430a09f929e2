"""Providers and their credentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from routing.credentials import UndecipherableCredential, decrypt, encrypt
from routing.kinds import KINDS
from routing.models import Credential, Provider
from tenants.models import User
from tenants.services import audit, rows


class ProviderError(ValueError):
    """A provider that cannot be made or changed so."""


class ProviderExists(ProviderError):
    """The name is taken."""


class ProviderInUse(ProviderError):
    """Deployments are still at the provider."""


class MissingAddress(ProviderError):
    """The kind has no address of its own, and none was given."""


class MissingCredential(ProviderError):
    """The kind needs a credential, and none was given."""


TIMEOUTS = ("connect_timeout", "first_token_timeout", "idle_timeout", "total_timeout")
CHANGEABLE = frozenset({"kind", "base_url", *TIMEOUTS})


def address(kind: str, base_url: str | None) -> str:
    """``base_url``, or where the kind answers. Raises ``MissingAddress``."""
    found = (base_url or (KINDS[kind].base_url if kind in KINDS else "")).rstrip("/")
    if not found:
        raise MissingAddress(f"A provider of kind {kind} needs a base_url.")
    return found


@transaction.atomic
def create_provider(
    *,
    acting_user: User | None,
    name: str,
    kind: str,
    base_url: str | None = None,
    credentials: Sequence[str] = (),
    connect_timeout: float = 5,
    first_token_timeout: float = 60,
    idle_timeout: float = 30,
    total_timeout: float = 600,
) -> Provider:
    """A new provider. Timeouts are in seconds; ``credentials`` are stored encrypted.

    Raises ``ProviderExists``, ``MissingAddress``, ``MissingCredential``, ``InvalidRow``.
    """
    provider = Provider(
        name=name,
        kind=kind,
        base_url=address(kind, base_url),
        connect_timeout=connect_timeout,
        first_token_timeout=first_token_timeout,
        idle_timeout=idle_timeout,
        total_timeout=total_timeout,
    )
    _check(provider)
    if Provider.objects.filter(name=name).exists():
        raise ProviderExists(f"There is a provider {name!r} already.")
    provider.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="created",
        target=provider,
        detail={"kind": kind, "base_url": provider.base_url},
    )
    if credentials or KINDS[kind].needs_credential:
        set_credentials(acting_user=acting_user, provider=provider, secrets=credentials)
    return provider


def _check(provider: Provider) -> None:
    rows.check(provider)
    for name in TIMEOUTS:
        if not getattr(provider, name) > 0:
            raise rows.InvalidRow(f"{name}: A timeout is more than 0 seconds.")


@transaction.atomic
def update_provider(*, acting_user: User | None, provider: Provider, **changes: Any) -> Provider:
    """Change ``kind``, ``base_url`` or a timeout; nothing if all are so already.

    Raises ``ProviderError`` for another field, ``MissingAddress``, ``InvalidRow``.
    """
    if unknown := set(changes) - CHANGEABLE:
        raise ProviderError(f"Not changed here: {', '.join(sorted(unknown))}.")
    locked = Provider.objects.select_for_update(no_key=True).get(pk=provider.pk)
    if "base_url" in changes:
        changes["base_url"] = address(changes.get("kind", locked.kind), changes["base_url"])
    if changes := rows.changed(locked, changes):
        detail = rows.assign(locked, changes)
        _check(locked)
        audit.record(acting_user=acting_user, verb="changed", target=locked, detail=detail)
    return locked


def stored_secrets(provider: Provider) -> list[str | None]:
    """The provider's secrets in order; None for one that CREDENTIAL_KEYS no longer decrypts.

    For comparison only: what this returns goes into no page, log or file.
    """
    found: list[str | None] = []
    for row in provider.credentials.order_by("pk"):
        try:
            found.append(decrypt(row.ciphertext))
        except UndecipherableCredential:
            found.append(None)
    return found


@transaction.atomic
def set_credentials(*, acting_user: User | None, provider: Provider, secrets: Sequence[str]) -> None:
    """Make the provider's credentials exactly ``secrets``, in order; nothing if they are so already.

    Raises ``MissingCredential`` where the kind needs one, ``ProviderError`` for an empty one.
    """
    if any(not secret.strip() for secret in secrets):
        raise ProviderError("A credential is not empty.")
    locked = Provider.objects.select_for_update(no_key=True).get(pk=provider.pk)
    if not secrets and KINDS[locked.kind].needs_credential:
        raise MissingCredential(f"A provider of kind {locked.kind} needs a credential.")
    if stored_secrets(locked) == list(secrets):
        return
    locked.credentials.all().delete()
    for secret in secrets:
        Credential.objects.create(
            provider=locked,
            ciphertext=encrypt(secret),
            # Four characters of a short secret would give too much of it away.
            last_four=secret[-4:] if len(secret) >= 20 else "",
        )
    audit.record(
        acting_user=acting_user, verb="set credentials", target=locked, detail={"credentials": len(secrets)}
    )


@transaction.atomic
def remove_provider(*, acting_user: User | None, provider: Provider) -> None:
    """Delete a provider and its credentials. Raises ``ProviderInUse`` while a deployment is there."""
    locked = Provider.objects.select_for_update(no_key=True).get(pk=provider.pk)
    if locked.deployments.exists():
        raise ProviderInUse(f"The provider {locked.name!r} has deployments.")
    audit.record(acting_user=acting_user, verb="removed", target=locked)
    locked.delete()
