"""Invitations: offers to join an organization, sent as a link that works once."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core import mail
from django.db import transaction
from django.utils import timezone
from django_scopes import scope, scopes_disabled

from tenants import keys
from tenants.models import Invitation, Membership, Organization, Team, User
from tenants.permissions import TEAM_ROLES, Role
from tenants.services import audit, rows
from tenants.services.members import AlreadyMember, add_member
from tenants.services.teams import NotATeamRole, WrongOrganization, set_team_member

LIFE = timedelta(days=7)
MAIL_TIMEOUT = 10  # seconds

log = logging.getLogger(__name__)


class InvitationError(ValueError):
    """An invitation that cannot be made or accepted so; the message is for people."""


class AlreadyInvited(InvitationError):
    """The organization has an open invitation for this address."""


class UnknownInvitation(InvitationError):
    """The link belongs to no invitation: mistyped, revoked, or replaced by a later one."""


class InvitationUsed(InvitationError):
    """The invitation was accepted before."""


class InvitationExpired(InvitationError):
    """The invitation's time is over."""


class OtherPerson(InvitationError):
    """The invitation is for another e-mail address, or its account may not sign in."""


class AccountExists(InvitationError):
    """The invited person has an account and must sign in with it."""


def digest(token: str) -> str:
    """The keyed digest under which an invitation is stored; never equal to that of an API key."""
    return keys.digest(f"invitation:{token}")


@transaction.atomic
def invite(
    *,
    acting_user: User | None,
    organization: Organization,
    email: str,
    role: Role,
    teams: Sequence[Team] = (),
    team_role: Role = Role.MEMBER,
    life: timedelta = LIFE,
) -> tuple[Invitation, str]:
    """Invite ``email`` to be ``role`` in the organization and ``team_role`` in each of ``teams``.

    Returns the invitation and the token of its link, which is not kept. Raises ``AlreadyMember``,
    ``AlreadyInvited``, ``WrongOrganization``, ``NotATeamRole``, ``InvalidRow``.
    """
    if any(team.organization_id != organization.pk for team in teams):
        raise WrongOrganization("A person is invited to teams of the organization.")
    if team_role not in TEAM_ROLES:
        raise NotATeamRole(f"{team_role.label} is no role in a team; use one of admin, member, viewer.")
    token = secrets.token_urlsafe(32)
    invitation = Invitation(
        organization=organization,
        email=email.strip().lower(),
        role=role.value,
        team_role=team_role.value,
        digest=digest(token),
        invited_by=acting_user,
        expires_at=timezone.now() + life,
    )
    rows.check(invitation)
    # One invitation an address, also when two people invite at once.
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    with scope(organization=organization):
        if Membership.objects.filter(user__email__iexact=invitation.email).exists():
            raise AlreadyMember(f"{invitation.email} is a member of {organization.slug} already.")
        if Invitation.objects.filter(email=invitation.email, accepted_at__isnull=True).exists():
            raise AlreadyInvited(f"{invitation.email} is invited already. Send that invitation again.")
        invitation.save(force_insert=True)
        invitation.teams.set(teams)
        audit.record(
            acting_user=acting_user,
            verb="invited",
            target=invitation,
            organization=organization,
            detail={
                "role": role,
                "teams": [team.slug for team in teams],
                "team_role": team_role,
                "expires_at": invitation.expires_at,
            },
        )
    return invitation, token


def _open(invitation: Invitation) -> Invitation:
    """The row, locked. Raises ``UnknownInvitation``, ``InvitationUsed``."""
    found = Invitation.objects.select_for_update(no_key=True).filter(pk=invitation.pk).first()
    if found is None:
        raise UnknownInvitation("This invitation was revoked.")
    if found.accepted_at is not None:
        raise InvitationUsed(f"{found.email} has accepted this invitation.")
    return found


@transaction.atomic
def renew(
    *, acting_user: User | None, invitation: Invitation, life: timedelta = LIFE
) -> tuple[Invitation, str]:
    """Give an invitation a new token and a new end; its former link stops working.

    Raises ``UnknownInvitation``, ``InvitationUsed``.
    """
    token = secrets.token_urlsafe(32)
    with scope(organization=invitation.organization):
        found = _open(invitation)
        before, found.expires_at = found.expires_at, timezone.now() + life
        found.digest = digest(token)
        found.save(update_fields=["digest", "expires_at"])
        audit.record(
            acting_user=acting_user,
            verb="renewed",
            target=found,
            organization=invitation.organization,
            detail={"expires_at": {"from": before, "to": found.expires_at}},
        )
    return found, token


@transaction.atomic
def revoke(*, acting_user: User | None, invitation: Invitation) -> None:
    """Take an invitation back: its link stops working. Raises ``UnknownInvitation``, ``InvitationUsed``."""
    with scope(organization=invitation.organization):
        found = _open(invitation)
        audit.record(
            acting_user=acting_user,
            verb="revoked",
            target=found,
            organization=invitation.organization,
            detail={"role": found.role},
        )
        found.delete()


def find(token: str, *, lock: bool = False) -> Invitation:
    """The open invitation of a link, with its organization and inviter.

    ``lock`` needs a transaction. Raises ``UnknownInvitation`` (also for a suspended organization),
    ``InvitationUsed``, ``InvitationExpired``.
    """
    with scopes_disabled():
        wanted = Invitation.objects.select_related("organization", "invited_by")
        if lock:
            wanted = wanted.select_for_update(no_key=True, of=("self",))
        found = wanted.filter(digest=digest(token), organization__suspended_at__isnull=True).first()
    if found is None:
        raise UnknownInvitation("This link belongs to no invitation.")
    if found.accepted_at is not None:
        raise InvitationUsed("This invitation was accepted before.")
    if found.expires_at <= timezone.now():
        raise InvitationExpired("This invitation has expired.")
    return found


@transaction.atomic
def accept(*, token: str, user: User) -> Membership:
    """Make ``user`` the member that the invitation of ``token`` offers.

    Who is a member by now keeps their role and joins the teams. Raises what ``find`` does, and
    ``OtherPerson``.
    """
    invitation = find(token, lock=True)
    if user.email.lower() != invitation.email or not user.is_active:
        raise OtherPerson("This invitation is for another e-mail address.")
    return _join(invitation, user)


@transaction.atomic
def accept_as_new(*, token: str, password: str) -> Membership:
    """Make an account with ``password`` for the invited address, and the member that is offered.

    ``password`` was checked by the caller. Raises what ``find`` does, and ``AccountExists``.
    """
    invitation = find(token, lock=True)
    if User.objects.filter(email__iexact=invitation.email).exists():
        raise AccountExists(f"{invitation.email} has an account. Sign in with it.")
    return _join(invitation, User.objects.create_user(invitation.email, password))


@transaction.atomic
def accept_found(*, invitation: Invitation, user: User) -> Membership:
    """Make ``user`` the member that an open ``invitation``, locked by the caller, offers.

    For people who proved the address by other means than the link. Raises ``OtherPerson``.
    """
    if user.email.lower() != invitation.email or not user.is_active:
        raise OtherPerson("This invitation is for another e-mail address.")
    return _join(invitation, user)


def _join(invitation: Invitation, user: User) -> Membership:
    organization = invitation.organization
    with scope(organization=organization):
        membership = Membership.objects.filter(user=user).first()
        if membership is None:
            membership = add_member(
                acting_user=user, organization=organization, email=user.email, role=Role(invitation.role)
            )
        # A team removed since is no longer among them.
        teams = list(invitation.teams.all())
        for team in teams:
            set_team_member(
                acting_user=user, team=team, membership=membership, role=Role(invitation.team_role)
            )
        invitation.accepted_at = timezone.now()
        invitation.save(update_fields=["accepted_at"])
        detail: dict[str, Any] = {"role": membership.role, "teams": [team.slug for team in teams]}
        audit.record(
            acting_user=user, verb="accepted", target=invitation, organization=organization, detail=detail
        )
    return membership


def send(invitation: Invitation, link: str) -> bool:
    """Mail ``link`` to the invited person; whether the mail was handed over. Call it after the commit."""
    name = " ".join(invitation.organization.name.split())
    inviter = f"{invitation.invited_by.email} invites you" if invitation.invited_by else "You are invited"
    text = (
        f"{inviter} to join {name} on Weir.\n\n"
        f"Accept here, until {invitation.expires_at:%-d %B %Y, %H:%M} UTC:\n{link}\n\n"
        "The link is for you alone and works once. If you expected no invitation, ignore this message.\n"
    )
    try:
        with mail.get_connection(timeout=MAIL_TIMEOUT) as connection:
            sent = mail.EmailMessage(
                f"Join {name} on Weir", text, to=[invitation.email], connection=connection
            ).send()
    except OSError as error:  # refused, unreachable, or an answer smtplib does not take
        log.warning("The mail of invitation %s was not sent: %s", invitation.pk, type(error).__name__)
        return False
    return sent == 1
