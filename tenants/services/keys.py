"""API keys: making, rotating, changing and revoking them. A secret is returned once and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from django.db import transaction
from django.utils import timezone
from django_scopes import scope, scopes_disabled

from tenants import keys
from tenants.keys import InvalidKey
from tenants.models import ApiKey, Membership, Team, User
from tenants.services import audit, rows


class ApiKeyError(ValueError):
    """A key that cannot be made or changed so."""


class KeyNameTaken(ApiKeyError):
    """The team has a working key of that name."""


class KeyInUse(ApiKeyError):
    """The secret already belongs to a key."""


class KeyRevoked(ApiKeyError):
    """The key is revoked or already rotated, so it does not change any more."""


class BadNetwork(ApiKeyError):
    """An address range that is not in CIDR form."""


class WrongOwner(ApiKeyError):
    """The owner is of another organization than the team."""


class UnchangeableField(ApiKeyError):
    """A field that ``update_key`` does not change."""


CHANGEABLE = frozenset({"name", "owner", "expires_at", "allowed_ips", "model_groups"})


def networks(allowed_ips: Sequence[str] | None) -> list[str] | None:
    """The ranges in their standard form ("203.0.113.7" becomes "203.0.113.7/32"). Raises ``BadNetwork``."""
    if allowed_ips is None:
        return None
    found = []
    for text in allowed_ips:
        try:
            found.append(str(ip_network(text.strip())))
        except ValueError as error:
            raise BadNetwork(f"{text!r} is not an address range in CIDR form: {error}.") from None
    return found


def _check_owner(team: Team, owner: Membership | None) -> None:
    if owner is not None and owner.organization_id != team.organization_id:
        raise WrongOwner("A key's owner is a member of its organization.")


def _check_name(team: Team, name: str) -> None:
    if ApiKey.objects.filter(team=team, name=name, revoked_at__isnull=True, successor__isnull=True).exists():
        raise KeyNameTaken(f"The team {team.slug} has a key {name!r} already.")


def _check_unused(secret: str) -> None:
    """A secret belongs to one key of all organizations, working or revoked."""
    with scopes_disabled():
        if ApiKey.objects.filter(digest=keys.digest(secret)).exists():
            raise KeyInUse("This secret belongs to a key already, or to one that was revoked.")


def _new(team: Team, name: str, secret: str, acting_user: User | None, **fields: Any) -> ApiKey:
    return ApiKey(
        organization=team.organization,
        team=team,
        name=name,
        prefix=keys.prefix(secret),
        last_four=secret[-4:],
        digest=keys.digest(secret),
        created_by=acting_user,
        **fields,
    )


@transaction.atomic
def create_key(
    *,
    acting_user: User | None,
    team: Team,
    name: str,
    owner: Membership | None = None,
    secret: str | None = None,
    expires_at: datetime | None = None,
    allowed_ips: Sequence[str] | None = None,
    model_groups: Sequence[str] | None = None,
) -> tuple[ApiKey, str]:
    """A new key of ``team``, and its secret, which nobody can read again.

    ``secret`` brings an existing key of at least 32 characters after its prefix; None makes one. None
    for ``allowed_ips`` means anywhere, for ``model_groups`` all of the team's. Raises ``KeyNameTaken``,
    ``KeyInUse``, ``InvalidKey``, ``BadNetwork``, ``WrongOwner``, ``InvalidRow``.
    """
    _check_owner(team, owner)
    given = secret is not None
    secret = keys.generate() if secret is None else keys.check(secret)
    if given:
        _check_unused(secret)
    with scope(organization=team.organization):
        Team.objects.select_for_update(no_key=True).get(pk=team.pk)
        _check_name(team, name)
        key = _new(
            team,
            name,
            secret,
            acting_user,
            owner=owner,
            expires_at=expires_at,
            allowed_ips=networks(allowed_ips),
            model_groups=None if model_groups is None else list(model_groups),
        )
        rows.check(key)
        key.save(force_insert=True)
        audit.record(
            acting_user=acting_user,
            verb="created",
            target=key,
            organization=team.organization,
            detail={"team": team.slug, "owner": owner, "expires_at": expires_at},
        )
    return key, secret


def _locked(key: ApiKey) -> ApiKey:
    locked = ApiKey.objects.select_for_update(no_key=True).get(pk=key.pk)
    if locked.revoked_at is not None or locked.successor_id is not None:
        raise KeyRevoked(
            f"The key {locked.name!r} is revoked, or the old secret of a rotated one, and does not change."
        )
    return locked


@transaction.atomic
def rotate_key(*, acting_user: User | None, key: ApiKey, overlap: timedelta) -> tuple[ApiKey, str]:
    """Give ``key`` a new secret and return both; the old secret still works for ``overlap``.

    The key's row stays, so its quotas, its spending and its place in reports do too. The old secret
    moves to a row of its own, whose ``successor`` is the key. Raises ``KeyRevoked``.
    """
    secret = keys.generate()
    with scope(organization=key.organization):
        locked = _locked(key)
        ends = timezone.now() + max(overlap, timedelta(0))
        retiring = ApiKey(
            organization=locked.organization,
            team=locked.team,
            owner=locked.owner,
            name=locked.name,
            prefix=locked.prefix,
            last_four=locked.last_four,
            digest=locked.digest,
            model_groups=locked.model_groups,
            allowed_ips=locked.allowed_ips,
            expires_at=ends if locked.expires_at is None else min(ends, locked.expires_at),
            paused_at=locked.paused_at,
            paused_by=locked.paused_by,
            successor=locked,
            created_by=locked.created_by,
            last_used_at=locked.last_used_at,
        )
        locked.digest = keys.digest(secret)
        locked.prefix = keys.prefix(secret)
        locked.last_four = secret[-4:]
        # The digest must be free before the other row takes it.
        locked.save(update_fields=["digest", "prefix", "last_four"])
        retiring.save(force_insert=True)
        audit.record(
            acting_user=acting_user,
            verb="rotated",
            target=locked,
            organization=locked.organization,
            detail={"old_secret": f"…{retiring.last_four}", "old_secret_works_until": retiring.expires_at},
        )
    return locked, secret


@transaction.atomic
def replace_secret(*, acting_user: User | None, key: ApiKey, secret: str) -> ApiKey:
    """Give ``key`` the secret of an existing key; the old one stops at once. Nothing if it has it already.

    Raises ``InvalidKey``, ``KeyInUse``, ``KeyRevoked``.
    """
    keys.check(secret)
    wanted = {"digest": keys.digest(secret), "prefix": keys.prefix(secret), "last_four": secret[-4:]}
    with scope(organization=key.organization):
        locked = _locked(key)
        if locked.digest == wanted["digest"]:
            return locked
        _check_unused(secret)
        before = str(locked)
        for name, value in wanted.items():
            setattr(locked, name, value)
        locked.save(update_fields=list(wanted))
        audit.record(
            acting_user=acting_user,
            verb="replaced secret",
            target=locked,
            organization=locked.organization,
            detail={"before": before},
        )
    return locked


@transaction.atomic
def update_key(*, acting_user: User | None, key: ApiKey, **changes: Any) -> ApiKey:
    """Change a key's ``name``, ``owner``, ``expires_at``, ``allowed_ips`` or ``model_groups``.

    Raises ``UnchangeableField``, ``KeyRevoked``, ``KeyNameTaken``, ``BadNetwork``, ``WrongOwner``, ``InvalidRow``.
    """
    if unknown := set(changes) - CHANGEABLE:
        raise UnchangeableField(f"Not changed here: {', '.join(sorted(unknown))}.")
    if "allowed_ips" in changes:
        changes["allowed_ips"] = networks(changes["allowed_ips"])
    with scope(organization=key.organization):
        locked = _locked(key)
        _check_owner(locked.team, changes.get("owner"))
        changes = rows.changed(locked, changes)
        if "name" in changes:
            _check_name(locked.team, changes["name"])
        if changes:
            detail = rows.assign(locked, changes)
            # What narrows the key narrows a secret of it that is about to end.
            shared = {
                name: changes[name] for name in ("owner", "allowed_ips", "model_groups") if name in changes
            }
            if shared:
                ApiKey.objects.filter(successor=locked, revoked_at__isnull=True).update(**shared)
            audit.record(
                acting_user=acting_user,
                verb="changed",
                target=locked,
                organization=locked.organization,
                detail=detail,
            )
    return locked


def _set_pause(key: ApiKey, acting_user: User | None, *, paused: bool) -> ApiKey:
    with scope(organization=key.organization):
        locked = _locked(key)
        if (locked.paused_at is not None) is paused:
            return locked
        pause = {
            "paused_at": timezone.now() if paused else None,
            "paused_by": acting_user if paused else None,
        }
        rows.assign(locked, pause)
        # A secret of it that is about to end too.
        ApiKey.objects.filter(successor=locked, revoked_at__isnull=True).update(**pause)
        audit.record(
            acting_user=acting_user,
            verb="paused" if paused else "resumed",
            target=locked,
            organization=locked.organization,
        )
    return locked


@transaction.atomic
def pause_key(*, acting_user: User | None, key: ApiKey) -> ApiKey:
    """Refuse a key, with old secrets that a rotation left working, until ``resume_key``; nothing if it is paused.

    Workers learn of it within a second. Raises ``KeyRevoked``.
    """
    return _set_pause(key, acting_user, paused=True)


@transaction.atomic
def resume_key(*, acting_user: User | None, key: ApiKey) -> ApiKey:
    """Undo ``pause_key``; nothing if it is not paused. Raises ``KeyRevoked``."""
    return _set_pause(key, acting_user, paused=False)


@transaction.atomic
def revoke_key(*, acting_user: User | None, key: ApiKey) -> ApiKey:
    """Stop a key for good, with old secrets that a rotation left working; nothing if it is revoked.

    Workers learn of it within a second.
    """
    with scope(organization=key.organization):
        locked = ApiKey.objects.select_for_update(no_key=True).get(pk=key.pk)
        if locked.revoked_at is None:
            rows.assign(locked, {"revoked_at": timezone.now()})
            ApiKey.objects.filter(successor=locked, revoked_at__isnull=True).update(
                revoked_at=locked.revoked_at
            )
            audit.record(
                acting_user=acting_user, verb="revoked", target=locked, organization=locked.organization
            )
    return locked


__all__ = [
    "CHANGEABLE",
    "ApiKeyError",
    "BadNetwork",
    "InvalidKey",
    "KeyInUse",
    "KeyNameTaken",
    "KeyRevoked",
    "UnchangeableField",
    "WrongOwner",
    "create_key",
    "networks",
    "pause_key",
    "replace_secret",
    "resume_key",
    "revoke_key",
    "rotate_key",
    "update_key",
]
