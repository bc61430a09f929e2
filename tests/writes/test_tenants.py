"""What the write functions of tenants keep true."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import transaction
from django_scopes import scope, scopes_disabled

from tenants.keys import InvalidKey, digest, generate, prefix
from tenants.models import ApiKey, AuditEntry, Membership, Organization, Team, TeamMembership, User
from tenants.permissions import Role
from tenants.services import keys, members, organizations, teams
from tenants.services.rows import InvalidRow
from tests.cast import make_cast

pytestmark = pytest.mark.django_db


def verbs(organization: Organization, kind: str) -> list[str]:
    with scope(organization=organization):
        return list(AuditEntry.objects.filter(target_type=kind).order_by("pk").values_list("verb", flat=True))


def test_making_an_organization_leaves_one_audit_entry_with_the_acting_user() -> None:
    ann = User.objects.create_user("ann@a.example")
    organization = organizations.create_organization(acting_user=ann, slug="acme", name="Acme Ltd")
    with scope(organization=organization):
        entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_type, entry.target_label, entry.actor) == (
        "created",
        "organization",
        "acme",
        ann,
    )


def test_a_taken_slug_is_refused_and_nothing_is_left_of_the_attempt() -> None:
    organizations.create_organization(acting_user=None, slug="acme", name="Acme Ltd")
    with pytest.raises(organizations.OrganizationExists):
        organizations.create_organization(acting_user=None, slug="acme", name="Other")
    with scopes_disabled():
        assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("slug", ["", "Acme", "-acme", "a b", "a" * 64])
def test_a_slug_that_is_no_slug_is_refused(slug: str) -> None:
    with pytest.raises(InvalidRow, match="slug"):
        organizations.create_organization(acting_user=None, slug=slug, name="Acme Ltd")


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(organizations.UnknownTimeZone, match="Mars/Olympus"):
        organizations.create_organization(acting_user=None, slug="acme", name="A", time_zone="Mars/Olympus")


def test_a_change_that_fails_later_in_its_transaction_leaves_neither_row_nor_audit_entry() -> None:
    cast = make_cast("acme")
    before = verbs(cast.organization, "team")

    def attempt() -> None:
        with transaction.atomic():
            teams.create_team(acting_user=None, organization=cast.organization, slug="late", name="Late")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        attempt()
    with scope(organization=cast.organization):
        assert not Team.objects.filter(slug="late").exists()
    assert verbs(cast.organization, "team") == before


def test_changing_to_what_is_so_already_writes_nothing() -> None:
    cast = make_cast("acme")
    before = verbs(cast.organization, "team")
    teams.update_team(acting_user=None, team=cast.search, name="Search")
    assert verbs(cast.organization, "team") == before


def test_a_field_that_has_its_own_verb_is_not_changed_by_update() -> None:
    cast = make_cast("acme")
    with pytest.raises(organizations.UnchangeableField, match="credit_limit"):
        organizations.update_organization(acting_user=None, organization=cast.organization, credit_limit=1)


def test_the_last_owner_can_neither_leave_nor_step_down() -> None:
    cast = make_cast("acme")
    with pytest.raises(members.LastOwner):
        members.remove_member(acting_user=None, membership=cast.ann)
    with pytest.raises(members.LastOwner):
        members.set_role(acting_user=None, membership=cast.ann, role=Role.ADMIN)
    with scope(organization=cast.organization):
        assert Membership.objects.get(role="owner").user.email == "ann@acme.example"


def test_an_owner_can_leave_once_there_is_another() -> None:
    cast = make_cast("acme")
    members.set_role(acting_user=None, membership=cast.adam, role=Role.OWNER)
    members.remove_member(acting_user=None, membership=cast.ann)
    with scope(organization=cast.organization):
        assert [m.user.email for m in Membership.objects.filter(role="owner")] == ["adam@acme.example"]


def test_an_owner_of_another_organization_does_not_count_as_another_owner() -> None:
    cast = make_cast("acme")
    make_cast("other")
    with pytest.raises(members.LastOwner):
        members.remove_member(acting_user=None, membership=cast.ann)


def test_a_person_with_an_account_joins_with_it_and_keeps_the_password() -> None:
    make_cast("acme")
    other = organizations.create_organization(acting_user=None, slug="other", name="Other")
    joined = members.add_member(
        acting_user=None,
        organization=other,
        email="Ann@ACME.example",
        role=Role.VIEWER,
        password="something else",
    )
    assert User.objects.filter(email__iexact="ann@acme.example").count() == 1
    assert joined.user.check_password("correct horse battery")


def test_who_leaves_takes_their_keys_along() -> None:
    cast = make_cast("acme")
    members.remove_member(acting_user=None, membership=cast.bob)
    with scope(organization=cast.organization):
        assert ApiKey.objects.get(pk=cast.search_key.pk).revoked_at is not None
        assert ApiKey.objects.get(pk=cast.support_key.pk).revoked_at is None
        assert not TeamMembership.objects.filter(team=cast.search).exists()


def test_a_member_of_another_organization_cannot_join_a_team() -> None:
    cast, other = make_cast("acme"), make_cast("other")
    with pytest.raises(teams.WrongOrganization):
        teams.set_team_member(acting_user=None, team=cast.search, membership=other.bob, role=Role.MEMBER)


def test_a_team_has_no_owner() -> None:
    cast = make_cast("acme")
    with pytest.raises(teams.NotATeamRole):
        teams.set_team_member(acting_user=None, team=cast.search, membership=cast.bob, role=Role.OWNER)


def test_a_key_is_stored_only_as_its_keyed_digest() -> None:
    cast = make_cast("acme")
    with scope(organization=cast.organization):
        row = ApiKey.objects.filter(pk=cast.search_key.pk).values().get()
        entries = list(AuditEntry.objects.values())
    expected = hmac.new(
        settings.API_KEY_PEPPER.encode(), cast.search_secret.encode(), hashlib.sha256
    ).hexdigest()
    assert row["digest"] == expected
    assert (row["prefix"], row["last_four"]) == ("sk-weir-", cast.search_secret[-4:])
    random_part = cast.search_secret.removeprefix("sk-weir-")
    assert random_part not in repr(row)
    assert random_part not in repr(entries)


def test_a_made_secret_has_the_prefix_and_43_characters_and_is_never_the_same() -> None:
    first, second = generate(), generate()
    assert first.startswith("sk-weir-")
    assert len(first) == 8 + 43
    assert first != second


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ("sk-weir-" + "a" * 43, "sk-weir-"),
        ("sk-proj-" + "a" * 32, "sk-proj-"),
        ("sk-" + "a" * 32, "sk-"),
        ("a" * 40, ""),
        # A UUID's own hyphens are part of the secret.
        ("sk-123e4567-e89b-12d3-a456-426614174000", "sk-"),
        ("one-two-three-four-" + "a" * 32, "one-two-three-"),
    ],
)
def test_the_prefix_of_a_key_is_its_words_and_never_a_part_of_the_secret(secret: str, expected: str) -> None:
    assert prefix(secret) == expected


@pytest.mark.parametrize("secret", ["sk-" + "a" * 28, "short", "", "sk-" + "a" * 40 + " b", "k" * 600])
def test_a_secret_that_is_short_or_no_header_can_carry_is_refused_without_being_quoted(secret: str) -> None:
    cast = make_cast("acme")
    with pytest.raises(InvalidKey) as refusal:
        keys.create_key(acting_user=None, team=cast.search, name="own", secret=secret)
    assert not secret or secret not in str(refusal.value)


def test_a_secret_belongs_to_one_key_of_all_organizations() -> None:
    cast, other = make_cast("acme"), make_cast("other")
    with pytest.raises(keys.KeyInUse):
        keys.create_key(acting_user=None, team=other.search, name="own", secret=cast.search_secret)


def test_a_rotated_key_keeps_its_row_and_the_old_secret_works_until_the_overlap_ends() -> None:
    cast = make_cast("acme")
    before = datetime.now(UTC)
    key, secret = keys.rotate_key(acting_user=None, key=cast.search_key, overlap=timedelta(hours=1))
    with scope(organization=cast.organization):
        old = ApiKey.objects.get(digest=digest(cast.search_secret))
        new = ApiKey.objects.get(digest=digest(secret))
    assert (new.pk, key.pk) == (cast.search_key.pk, cast.search_key.pk)
    assert old.successor_id == new.pk
    assert old.name == new.name == "search-backend"
    assert old.expires_at is not None
    assert before + timedelta(hours=1) <= old.expires_at <= datetime.now(UTC) + timedelta(hours=1)
    assert new.expires_at is None


def test_revoking_a_rotated_key_ends_its_old_secret_too() -> None:
    cast = make_cast("acme")
    key, _ = keys.rotate_key(acting_user=None, key=cast.search_key, overlap=timedelta(hours=1))
    keys.revoke_key(acting_user=None, key=key)
    with scope(organization=cast.organization):
        assert ApiKey.objects.get(digest=digest(cast.search_secret)).revoked_at is not None


def test_narrowing_a_rotated_key_narrows_its_old_secret_too() -> None:
    cast = make_cast("acme")
    key, _ = keys.rotate_key(acting_user=None, key=cast.search_key, overlap=timedelta(hours=1))
    keys.update_key(acting_user=None, key=key, allowed_ips=["203.0.113.7"])
    with scope(organization=cast.organization):
        assert ApiKey.objects.get(digest=digest(cast.search_secret)).allowed_ips == ["203.0.113.7/32"]


def test_a_revoked_key_is_not_changed_or_rotated_and_frees_its_name() -> None:
    cast = make_cast("acme")
    keys.revoke_key(acting_user=None, key=cast.search_key)
    with pytest.raises(keys.KeyRevoked):
        keys.update_key(acting_user=None, key=cast.search_key, name="other")
    with pytest.raises(keys.KeyRevoked):
        keys.rotate_key(acting_user=None, key=cast.search_key, overlap=timedelta(0))
    again, _ = keys.create_key(acting_user=None, team=cast.search, name="search-backend")
    assert again.pk != cast.search_key.pk


def test_a_range_that_is_no_network_is_refused() -> None:
    cast = make_cast("acme")
    with pytest.raises(keys.BadNetwork, match=r"203\.0\.113\.9/24"):
        keys.update_key(acting_user=None, key=cast.search_key, allowed_ips=["203.0.113.9/24"])
