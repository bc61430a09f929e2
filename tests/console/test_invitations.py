"""Invitations: who may offer what, what is kept of a link, and who can accept it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from tenants.models import AuditEntry, Invitation, Membership, TeamMembership, User
from tenants.permissions import Role
from tenants.services import invitations as services
from tests.cast import Cast
from tests.console.conftest import SignIn

NEW = "/o/acme/members/invitations/new/"
PASSWORD = "a kettle of blue herons"
CHOSEN = {"new_password1": PASSWORD, "new_password2": PASSWORD}


def invited(acme: Cast, email: str = "eve@acme.example", **changes: Any) -> tuple[Invitation, str]:
    wanted: dict[str, Any] = {"role": Role.MEMBER, **changes}
    return services.invite(acting_user=acme.ann.user, organization=acme.organization, email=email, **wanted)


def followed(client: Client, token: str) -> Any:
    """The page behind the link of ``token``."""
    return client.get(f"/invitation/{token}/", follow=True)


def test_an_invitation_is_mailed_with_the_link_that_the_inviter_sees_once(
    acme: Cast, sign_in: SignIn
) -> None:
    client = sign_in(acme.adam)
    answer = client.post(
        NEW,
        {
            "email": "Eve@Acme.example",
            "role": "finance",
            "teams": [acme.search.pk],
            "team_role": "admin",
            "days": "30",
        },
    )
    found = Invitation.objects.get()
    assert (found.email, found.role, found.invited_by) == ("eve@acme.example", "finance", acme.adam.user)
    assert timedelta(days=29, hours=23) < found.expires_at - timezone.now() <= timedelta(days=30)
    (message,) = mail.outbox
    assert message.to == ["eve@acme.example"]
    link = re.search(r"http\S+/invitation/\S+/", str(message.body))
    assert link is not None
    assert link.group() in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    listed = client.get("/o/acme/members/").content.decode()
    assert "eve@acme.example" in listed
    assert link.group() not in listed


def test_seven_days_are_the_default(acme: Cast) -> None:
    found, _ = invited(acme)
    assert timedelta(days=6, hours=23) < found.expires_at - timezone.now() <= timedelta(days=7)


def test_only_a_keyed_digest_of_the_token_is_kept(acme: Cast) -> None:
    found, token = invited(acme)
    row = " ".join(str(value) for value in Invitation.objects.values_list().get(pk=found.pk))
    entries = " ".join(str(entry) for entry in AuditEntry.objects.values_list())
    assert token not in row
    assert token not in entries
    assert re.fullmatch("[0-9a-f]{64}", found.digest)


def test_a_new_person_chooses_a_password_and_is_in_with_role_and_teams(
    acme: Cast, client: Client, settings: Any
) -> None:
    settings.SIGN_UP = "invited"
    found, token = invited(acme, role=Role.VIEWER, teams=[acme.search, acme.support], team_role=Role.ADMIN)
    page = followed(client, token)
    assert token not in page.redirect_chain[-1][0]
    answer = client.post("/invitation/", CHOSEN)
    assert (answer.status_code, answer["Location"]) == (302, "/o/acme/")
    assert client.get("/o/acme/").status_code == 200
    member = Membership.objects.get(user__email="eve@acme.example")
    assert member.role == "viewer"
    assert member.user.check_password(PASSWORD)
    roles = dict(TeamMembership.objects.filter(membership=member).values_list("team__slug", "role"))
    assert roles == {"search": "admin", "support": "admin"}
    found.refresh_from_db()
    assert found.accepted_at is not None


def test_a_weak_password_makes_no_account(acme: Cast, client: Client) -> None:
    _, token = invited(acme)
    followed(client, token)
    answer = client.post("/invitation/", {"new_password1": "short", "new_password2": "short"})
    assert answer.status_code == 422
    assert not User.objects.filter(email="eve@acme.example").exists()


def test_an_account_signed_in_with_that_address_accepts_with_one_click(
    acme: Cast, other: Cast, sign_in: SignIn
) -> None:
    _, token = invited(acme, email="BOB@other.example")
    client = sign_in(other.bob)
    assert "Accept and join" in followed(client, token).content.decode()
    assert client.post("/invitation/")["Location"] == "/o/acme/"
    assert Membership.objects.get(user=other.bob.user, organization=acme.organization).role == "member"


def test_an_existing_account_must_sign_in_and_keeps_its_password(
    acme: Cast, other: Cast, client: Client
) -> None:
    _, token = invited(acme, email="bob@other.example")
    assert "/accounts/login/?next=/invitation/" in followed(client, token).content.decode()
    client.post("/invitation/", CHOSEN)
    other.bob.user.refresh_from_db()
    assert not other.bob.user.check_password(PASSWORD)
    assert not Membership.objects.filter(user=other.bob.user, organization=acme.organization).exists()


def test_another_person_cannot_take_it(acme: Cast, other: Cast, sign_in: SignIn) -> None:
    _, token = invited(acme)
    client = sign_in(other.bob)
    page = followed(client, token)
    assert page.status_code == 403
    assert b"for somebody else" in page.content
    assert client.post("/invitation/").status_code == 403
    assert not Membership.objects.filter(user=other.bob.user, organization=acme.organization).exists()
    with pytest.raises(services.OtherPerson):
        services.accept(token=token, user=other.bob.user)


def test_it_works_once(acme: Cast, other: Cast, client: Client) -> None:
    _, token = invited(acme, email="bob@other.example")
    services.accept(token=token, user=other.bob.user)
    page = followed(client, token)
    assert page.status_code == 410
    assert b"used already" in page.content
    with pytest.raises(services.InvitationUsed):
        services.accept(token=token, user=other.bob.user)


def test_it_ends(acme: Cast, client: Client) -> None:
    _, token = invited(acme, life=timedelta(seconds=-1))
    page = followed(client, token)
    assert page.status_code == 410
    assert b"has expired" in page.content
    assert client.post("/invitation/", CHOSEN).status_code == 410
    assert not User.objects.filter(email="eve@acme.example").exists()


def test_a_wrong_link_says_so(acme: Cast, client: Client) -> None:
    _, token = invited(acme)
    page = followed(client, token[:-1])
    assert page.status_code == 404
    assert b"This link does not work" in page.content


def test_a_suspended_organization_takes_nobody_in(acme: Cast, client: Client) -> None:
    _, token = invited(acme)
    acme.organization.suspended_at = timezone.now()
    acme.organization.save(update_fields=["suspended_at"])
    assert followed(client, token).status_code == 404


def test_revoking_voids_the_link(acme: Cast, sign_in: SignIn, client: Client) -> None:
    found, token = invited(acme)
    sign_in(acme.adam).post(f"/o/acme/members/invitations/{found.pk}/revoke/")
    assert followed(client, token).status_code == 404
    assert not Invitation.objects.exists()


def test_sending_again_replaces_the_link_and_keeps_what_is_offered(
    acme: Cast, sign_in: SignIn, client: Client
) -> None:
    found, token = invited(acme, teams=[acme.support], life=timedelta(days=-1))
    sign_in(acme.adam).post(f"/o/acme/members/invitations/{found.pk}/resend/")
    link = re.search(r"/invitation/(\S+)/", str(mail.outbox[0].body))
    assert link is not None
    assert followed(client, token).status_code == 404
    followed(client, link.group(1))
    client.post("/invitation/", CHOSEN)
    places = TeamMembership.objects.filter(membership__user__email="eve@acme.example")
    assert [(place.team.slug, place.role) for place in places] == [("support", "member")]


def test_an_admin_neither_offers_nor_touches_ownership(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.adam)
    assert client.post(NEW, {"email": "x@acme.example", "role": "owner", "days": "7"}).status_code == 422
    found, _ = invited(acme, role=Role.OWNER)
    assert client.post(f"/o/acme/members/invitations/{found.pk}/resend/").status_code == 403
    assert client.post(f"/o/acme/members/invitations/{found.pk}/revoke/").status_code == 403
    assert mail.outbox == []


def test_another_organizations_team_is_no_choice(acme: Cast, other: Cast, sign_in: SignIn) -> None:
    new = {"email": "x@acme.example", "role": "member", "days": "7", "teams": [other.search.pk]}
    assert sign_in(acme.ann).post(NEW, new).status_code == 422
    assert not Invitation.objects.exists()


def test_nobody_is_invited_twice_or_while_a_member(acme: Cast, sign_in: SignIn) -> None:
    invited(acme)
    client = sign_in(acme.ann)
    again = client.post(NEW, {"email": "EVE@acme.example", "role": "member", "days": "7"})
    assert b"invited already" in again.content
    assert client.post(NEW, {"email": "BOB@acme.example", "role": "member", "days": "7"}).status_code == 422
    assert Invitation.objects.count() == 1


def test_a_member_by_now_keeps_the_role_and_joins_the_teams(acme: Cast) -> None:
    _, token = invited(acme, role=Role.ADMIN, teams=[acme.search])
    user = User.objects.create_user("eve@acme.example")
    Membership.objects.create(organization=acme.organization, user=user, role="viewer")
    assert services.accept(token=token, user=user).role == "viewer"
    assert TeamMembership.objects.filter(team=acme.search, membership__user=user).exists()


def test_a_mail_that_fails_leaves_the_invitation_and_its_link(
    acme: Cast, sign_in: SignIn, settings: Any
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1  # nothing listens there
    answer = sign_in(acme.ann).post(NEW, {"email": "x@acme.example", "role": "member", "days": "7"})
    assert b"could not be sent" in answer.content
    assert b"/invitation/" in answer.content
    assert Invitation.objects.count() == 1


def test_every_step_is_in_the_audit_log(acme: Cast, other: Cast) -> None:
    found, _ = invited(acme, email="bob@other.example")
    _, token = services.renew(acting_user=acme.adam.user, invitation=found)
    services.accept(token=token, user=other.bob.user)
    gone, _ = invited(acme, email="gone@acme.example")
    services.revoke(acting_user=acme.ann.user, invitation=gone)
    entries = AuditEntry.objects.filter(target_type="invitation").order_by("pk")
    assert [(entry.verb, str(entry.actor), entry.target_label) for entry in entries] == [
        ("invited", "ann@acme.example", "bob@other.example"),
        ("renewed", "adam@acme.example", "bob@other.example"),
        ("accepted", "bob@other.example", "bob@other.example"),
        ("invited", "ann@acme.example", "gone@acme.example"),
        ("revoked", "ann@acme.example", "gone@acme.example"),
    ]


def test_where_nobody_makes_accounts_an_invitation_makes_none(
    acme: Cast, client: Client, settings: Any
) -> None:
    settings.SIGN_UP = "closed"
    _, token = invited(acme)
    followed(client, token)
    assert client.post("/invitation/", CHOSEN).status_code == 403
    assert not User.objects.filter(email="eve@acme.example").exists()


def test_a_new_person_who_accepts_proves_the_address_before_coming_in(
    acme: Cast, client: Client, settings: Any
) -> None:
    cache.clear()  # of the pause between two links to one address
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    _, token = invited(acme)
    followed(client, token)
    assert client.post("/invitation/", CHOSEN)["Location"] == "/accounts/confirm-email/"
    assert client.get("/o/acme/")["Location"].startswith("/accounts/login/")
    found = re.search(r"http://\S+(/accounts/confirm-email/\S+/)", str(mail.outbox[0].body))
    assert found is not None
    assert client.post(found[1])["Location"] == "/o/acme/"
    assert client.get("/o/acme/").status_code == 200
