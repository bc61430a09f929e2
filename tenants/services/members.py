"""Members of organizations, and their accounts."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone
from django_scopes import scope

from tenants.models import ApiKey, Membership, Organization, User
from tenants.permissions import Role
from tenants.services import audit, rows


class MemberError(ValueError):
    """A member who cannot be added, changed or removed so."""


class AlreadyMember(MemberError):
    """The person is a member of the organization."""


class LastOwner(MemberError):
    """An organization keeps at least one owner."""


@transaction.atomic
def add_member(
    *,
    acting_user: User | None,
    organization: Organization,
    email: str,
    role: Role,
    password: str | None = None,
) -> Membership:
    """Make the person with ``email`` a member, with an account if they have none.

    ``password`` counts only for a new account; without one it must be set by a link first. Raises
    ``AlreadyMember``, ``InvalidRow``.
    """
    rows.check(User(email=email, password="-"))  # noqa: S106 - only the address is checked
    user = User.objects.filter(email__iexact=email).first()
    if user is None:
        user = User.objects.create_user(email, password)
    with scope(organization=organization):
        if Membership.objects.filter(user=user).exists():
            raise AlreadyMember(f"{user.email} is a member of {organization.slug} already.")
        membership = Membership(organization=organization, user=user, role=role.value)
        membership.save(force_insert=True)
        audit.record(
            acting_user=acting_user,
            verb="added",
            target=membership,
            organization=organization,
            detail={"role": role},
        )
    return membership


def _locked(membership: Membership) -> Membership:
    """The row, behind a lock on its organization, so that two owners cannot leave at once."""
    Organization.objects.select_for_update(no_key=True).get(pk=membership.organization_id)
    return Membership.objects.select_for_update(no_key=True).get(pk=membership.pk)


def _check_not_last_owner(membership: Membership) -> None:
    others = Membership.objects.filter(role=Role.OWNER.value).exclude(pk=membership.pk)
    if membership.role == Role.OWNER.value and not others.exists():
        raise LastOwner("An organization keeps at least one owner. Make somebody else owner first.")


@transaction.atomic
def set_role(*, acting_user: User | None, membership: Membership, role: Role) -> Membership:
    """Change a member's role in the organization. Raises ``LastOwner``."""
    organization = membership.organization
    with scope(organization=organization):
        locked = _locked(membership)
        if locked.role == role.value:
            return locked
        _check_not_last_owner(locked)
        detail = rows.assign(locked, {"role": role.value})
        audit.record(
            acting_user=acting_user, verb="changed", target=locked, organization=organization, detail=detail
        )
    return locked


@transaction.atomic
def remove_member(*, acting_user: User | None, membership: Membership) -> None:
    """Take a person out of the organization and its teams, and revoke the keys they own.

    Their account stays, and so does what they used. Raises ``LastOwner``.
    """
    organization = membership.organization
    with scope(organization=organization):
        locked = _locked(membership)
        _check_not_last_owner(locked)
        keys = ApiKey.objects.select_for_update(no_key=True).filter(owner=locked, revoked_at__isnull=True)
        revoked = [str(key) for key in keys]
        keys.update(revoked_at=timezone.now())
        audit.record(
            acting_user=acting_user,
            verb="removed",
            target=locked,
            organization=organization,
            detail={"role": locked.role, "revoked_keys": revoked},
        )
        locked.delete()
