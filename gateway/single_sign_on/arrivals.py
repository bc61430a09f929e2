"""Who somebody is that comes from an organization's provider: an account, and a member of that organization.

The provider is the organization's own and may say anything. It is believed only about verified addresses in
domains that this organization has claimed and an operator has confirmed, and never about operators.
"""

from __future__ import annotations

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone
from django_scopes import scope

from gateway.models import EmailDomain, SignInIdentity, SignInProvider
from gateway.single_sign_on.domains import domain_of
from gateway.single_sign_on.issuers import Claims
from tenants.models import Invitation, Membership, Organization, User
from tenants.permissions import Role
from tenants.services import audit
from tenants.services.invitations import accept_found
from tenants.services.members import add_member


class Refused(ValueError):
    """The person does not come in; the message is for them."""


@transaction.atomic
def arrive(*, provider: SignInProvider, claims: Claims) -> User:
    """The account of whom ``claims`` (already verified) speak; made, and made a member, at first.

    Raises ``Refused``.
    """
    organization = Organization.objects.select_for_update(no_key=True).get(pk=provider.organization_id)
    if organization.suspended_at is not None:
        raise Refused("This organization is suspended.")
    with scope(organization=organization):
        email = _believed(organization, claims)
        identity = (
            SignInIdentity.objects.select_related("membership__user")
            .filter(provider=provider, subject=claims.subject)
            .first()
        )
        if identity is not None:
            return _checked(organization, identity.membership.user)
        user = next(
            (each for each in User.objects.filter(email__iexact=email) if each.email.lower() == email), None
        )
        user = _new(email, claims) if user is None else _proven(_checked(organization, user), organization)
        membership = _joined(organization, user)
        if SignInIdentity.objects.filter(provider=provider, membership=membership).exists():
            raise Refused(
                "Another person of your provider has this address here. If they left, an owner removes "
                "the member first."
            )
        identity = SignInIdentity(provider=provider, membership=membership, subject=claims.subject)
        identity.save(force_insert=True)
        audit.record(
            acting_user=user,
            verb="first signed in",
            target=membership,
            organization=organization,
            detail={"through": provider.issuer, "role": membership.role},
        )
    return user


def _believed(organization: Organization, claims: Claims) -> str:
    """The address of ``claims`` in lower case, if the organization's provider is believed about it."""
    email = claims.email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise Refused("Your provider told no e-mail address.") from None
    if not claims.email_verified:
        raise Refused("Your provider did not say that it has verified your e-mail address.")
    _claimed(organization, email)
    return email


def _claimed(organization: Organization, email: str) -> None:
    confirmed = EmailDomain.objects.filter(
        organization=organization, domain=domain_of(email), confirmed_at__isnull=False
    )
    if not confirmed.exists():
        raise Refused(f"{organization.name} signs nobody in with an address of {email.rpartition('@')[2]}.")


def _checked(organization: Organization, user: User) -> User:
    """``user``, if this organization's provider may sign them in."""
    if not user.is_active:
        raise Refused("This account was switched off.")
    if user.is_staff or user.is_superuser:
        raise Refused("Operators of this gateway sign in with their password.")
    # The account may have another address by now.
    _claimed(organization, user.email)
    return user


def _new(email: str, claims: Claims) -> User:
    if settings.SIGN_UP == "closed":
        raise Refused("Accounts are made by operators here. Ask for one first.")
    first, _, last = claims.name.partition(" ")
    user = User.objects.create_user(email, first_name=first[:150], last_name=last[:150])
    _note_verified(user)
    return user


def _proven(user: User, organization: Organization) -> User:
    """``user``, known until now only by an account with this address.

    Whoever made the account without proving the address (somebody else, in advance, who waits for its
    owner) keeps no way into it: password, second factor, further addresses and sessions end.
    """
    if not EmailAddress.objects.filter(user=user, email__iexact=user.email, verified=True).exists():
        EmailAddress.objects.filter(user=user).delete()
        Authenticator.objects.filter(user=user).delete()
        if user.has_usable_password():
            # Sessions hold a digest of the password, and end with it.
            user.set_unusable_password()
            user.save(update_fields=["password"])
            audit.record(
                acting_user=user,
                verb="password dropped",
                target=user,
                organization=organization,
                detail={"because": "it was set before the address was proved"},
            )
        _note_verified(user)
    return user


def _note_verified(user: User) -> None:
    # An address that another account has proved stays with that account.
    if not EmailAddress.objects.filter(email__iexact=user.email, verified=True).exists():
        EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)


def _joined(organization: Organization, user: User) -> Membership:
    """The membership of ``user``: theirs, the one they are invited to, or a new one as member."""
    membership = Membership.objects.filter(user=user).first()
    if membership is not None:
        return membership
    invitation = (
        Invitation.objects.select_for_update(no_key=True, of=("self",))
        .select_related("organization")
        .filter(email=user.email, accepted_at__isnull=True, expires_at__gt=timezone.now())
        .first()
    )
    if invitation is not None:
        return accept_found(invitation=invitation, user=user)
    return add_member(acting_user=user, organization=organization, email=user.email, role=Role.MEMBER)
