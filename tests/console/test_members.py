"""Members and teams in the console: who is added, changed and removed, and by whom."""

from __future__ import annotations

import pytest
from django.urls import reverse

from tenants.models import ApiKey, Membership, Team, TeamMembership, User
from tenants.permissions import ROLE_PERMISSIONS, TEAM_ROLE_PERMISSIONS, Permission
from tests.cast import Cast
from tests.console.conftest import SignIn


def test_a_person_is_added_by_address_with_a_role(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.adam).post(
        "/o/acme/members/add/", {"email": "New@Acme.example", "role": "finance"}
    )
    assert response["Location"] == "/o/acme/members/"
    member = Membership.objects.get(user__email="new@acme.example")
    assert member.role == "finance"
    assert not member.user.has_usable_password()


def test_an_address_that_is_none_comes_back_as_typed(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.adam).post("/o/acme/members/add/", {"email": "no address", "role": "finance"})
    assert response.status_code == 422
    assert b'value="no address"' in response.content
    assert not User.objects.filter(email__contains="no address").exists()


def test_a_member_is_added_once(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.adam).post(
        "/o/acme/members/add/", {"email": "BOB@acme.example", "role": "viewer"}
    )
    assert response.status_code == 422
    assert b"is a member already" in response.content


def test_only_an_owner_makes_owners(acme: Cast, sign_in: SignIn) -> None:
    new = {"email": "boss@acme.example", "role": "owner"}
    assert sign_in(acme.adam).post("/o/acme/members/add/", new).status_code == 422
    sign_in(acme.adam).post(f"/o/acme/members/{acme.bob.pk}/role/", {"role": "owner"})
    acme.bob.refresh_from_db()
    assert acme.bob.role == "member"
    assert sign_in(acme.ann).post("/o/acme/members/add/", new).status_code == 302
    assert Membership.objects.get(user__email="boss@acme.example").role == "owner"


def test_an_admin_neither_changes_nor_removes_an_owner(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.adam)
    assert client.post(f"/o/acme/members/{acme.ann.pk}/role/", {"role": "viewer"}).status_code == 403
    assert client.post(f"/o/acme/members/{acme.ann.pk}/remove/").status_code == 403
    acme.ann.refresh_from_db()
    assert acme.ann.role == "owner"


def test_the_last_owner_stays_one(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.ann)
    response = client.post(f"/o/acme/members/{acme.ann.pk}/role/", {"role": "viewer"}, follow=True)
    assert b"keeps at least one owner" in response.content
    assert b"keeps at least one owner" in client.post(f"/o/acme/members/{acme.ann.pk}/remove/").content
    acme.ann.refresh_from_db()
    assert acme.ann.role == "owner"


def test_removing_names_the_keys_that_stop_and_then_stops_them(acme: Cast, sign_in: SignIn) -> None:
    client, url = sign_in(acme.adam), f"/o/acme/members/{acme.bob.pk}/remove/"
    assert b"search-backend" in client.get(url).content
    assert client.post(url).status_code == 302
    assert not Membership.objects.filter(pk=acme.bob.pk).exists()
    assert ApiKey.objects.get(pk=acme.search_key.pk).revoked_at is not None


# Each change, by the path that makes it and what it sends.
CHANGES = {
    "members/add/": {"email": "x@acme.example", "role": "viewer"},
    "members/{vera}/role/": {"role": "admin"},
    "members/{vera}/remove/": {},
    "members/teams/new/": {"name": "Mine", "slug": "mine"},
    "members/teams/{search}/": {"membership": "{vera}", "role": "admin"},
    "members/teams/{search}/{bob}/leave/": {},
}


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("person", ["fay", "bob", "cleo", "vera"])
def test_whoever_does_not_manage_members_changes_nothing(
    acme: Cast, sign_in: SignIn, path: str, person: str
) -> None:
    numbers = {"vera": acme.vera.pk, "bob": acme.bob.pk, "search": acme.search.pk}
    sent = {name: value.format(**numbers) for name, value in CHANGES[path].items()}
    before = (
        set(Membership.objects.values_list("pk", "role")),
        set(TeamMembership.objects.values_list("pk", "role")),
    )
    response = sign_in(getattr(acme, person)).post(f"/o/acme/{path.format(**numbers)}", sent)
    assert response.status_code == 403
    assert before == (
        set(Membership.objects.values_list("pk", "role")),
        set(TeamMembership.objects.values_list("pk", "role")),
    )
    assert Team.objects.count() == 2


def test_another_tenants_member_and_team_do_not_exist(acme: Cast, other: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.ann)
    assert client.post(f"/o/acme/members/{other.bob.pk}/role/", {"role": "viewer"}).status_code == 404
    assert client.post(f"/o/acme/members/{other.bob.pk}/remove/").status_code == 404
    assert client.get(f"/o/acme/members/teams/{other.search.pk}/").status_code == 404
    assert client.post(f"/o/acme/members/teams/{acme.search.pk}/{other.bob.pk}/leave/").status_code == 404
    response = client.post(
        f"/o/acme/members/teams/{acme.search.pk}/", {"membership": other.bob.pk, "role": "admin"}
    )
    assert response.status_code == 422
    assert Membership._base_manager.get(pk=other.bob.pk).role == "member"


def test_a_team_is_created_and_gets_its_members(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.adam)
    client.post("/o/acme/members/teams/new/", {"name": "Research", "slug": "research"})
    team = Team.objects.get(slug="research")
    url = reverse("console:team", args=["acme", team.pk])
    client.post(url, {"membership": acme.cleo.pk, "role": "admin"})
    assert list(TeamMembership.objects.filter(team=team).values_list("membership", "role")) == [
        (acme.cleo.pk, "admin")
    ]
    client.post(f"{url}{acme.cleo.pk}/leave/")
    assert not TeamMembership.objects.filter(team=team).exists()


def test_a_teams_short_name_is_used_once(acme: Cast, sign_in: SignIn) -> None:
    response = sign_in(acme.adam).post(
        "/o/acme/members/teams/new/", {"name": "Other search", "slug": "search"}
    )
    assert response.status_code == 422
    assert b'value="Other search"' in response.content


def test_the_roles_page_is_the_table_that_is_enforced(acme: Cast, sign_in: SignIn) -> None:
    html = sign_in(acme.vera).get(reverse("console:roles", args=["acme"])).content.decode()
    granted = sum(map(len, ROLE_PERMISSIONS.values())) + sum(map(len, TEAM_ROLE_PERMISSIONS.values()))
    assert html.count(">yes</span>") == granted
    assert html.count('<th scope="row">') == len(Permission)
