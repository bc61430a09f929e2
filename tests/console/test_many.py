"""Pages of an organization with more members, keys and limits than a page has room for."""

from __future__ import annotations

from decimal import Decimal

from billing.models import Quota
from tenants.models import ApiKey, Membership, Team, User
from tests.cast import Cast
from tests.console.conftest import SignIn


def members(cast: Cast, count: int) -> list[Membership]:
    users = User.objects.bulk_create(
        User(email=f"person-{number:03}@acme.example") for number in range(count)
    )
    return Membership.objects.bulk_create(
        Membership(organization=cast.organization, user=user, role="member") for user in users
    )


def keys(team: Team, count: int) -> list[ApiKey]:
    return ApiKey.objects.bulk_create(
        ApiKey(
            organization=team.organization,
            team=team,
            name=f"key-{number:03}",
            prefix="sk-weir-abcd",
            last_four="wxyz",
            digest=f"{team.slug}-{number}",
        )
        for number in range(count)
    )


def test_members_are_shown_a_hundred_at_a_time_and_none_is_lost_between_pages(
    acme: Cast, sign_in: SignIn
) -> None:
    members(acme, 96)
    client = sign_in(acme.ann)
    first = client.get("/o/acme/members/")
    # Ann, Adam, Fay, Bob, Cleo and Vera are there too.
    assert len(first.context["members"]) == 100
    rest = client.get(f"/o/acme/members/{first.context['members_next']}")
    assert [member.user.email for member, _, _ in rest.context["members"]] == [
        "person-095@acme.example",
        "vera@acme.example",
    ]
    assert rest.context["members_next"] == ""


def test_a_member_is_found_by_a_part_of_the_address(acme: Cast, sign_in: SignIn) -> None:
    members(acme, 101)
    page = sign_in(acme.ann).get("/o/acme/members/?q=SON-100").content.decode()
    assert "person-100@acme.example" in page
    assert "person-099@acme.example" not in page


def test_nobody_found_is_said(acme: Cast, sign_in: SignIn) -> None:
    page = sign_in(acme.ann).get("/o/acme/members/?q=nobody").content.decode()
    assert "Nobody here is called “nobody”." in page


def test_keys_too_many_for_a_list_are_offered_by_team(acme: Cast, sign_in: SignIn) -> None:
    keys(acme.search, 250)
    client = sign_in(acme.ann)
    for page in ("costs", "requests"):
        whole = client.get(f"/o/acme/{page}/").content.decode()
        assert "Choose a team to see its keys" in whole
        assert "search / key-000" not in whole
        of_team = client.get(f"/o/acme/{page}/?team=support").content.decode()
        assert "support / support-bot" in of_team
        assert "Choose a team to see its keys" not in of_team


def test_a_key_that_is_asked_for_stays_chosen_among_too_many(acme: Cast, sign_in: SignIn) -> None:
    keys(acme.search, 250)
    page = sign_in(acme.ann).get(f"/o/acme/costs/?key={acme.support_key.pk}").content.decode()
    assert page.count("support / support-bot</option>") == 1
    assert "key-000" not in page


def test_limits_of_more_keys_than_the_page_has_are_found_by_name_and_by_address(
    acme: Cast, sign_in: SignIn
) -> None:
    made = keys(acme.search, 51)
    Quota.objects.bulk_create(
        Quota(
            organization=acme.organization,
            scope="key",
            key=key,
            metric="requests_per_minute",
            limit=Decimal(7),
        )
        for key in made
    )
    client, last = sign_in(acme.ann), made[50]
    assert f'id="key-{last.pk}"' not in client.get("/o/acme/quotas/").content.decode()
    searched = client.get("/o/acme/quotas/?q=KEY-050").content.decode()
    assert f'id="key-{last.pk}"' in searched
    assert f'id="key-{made[0].pk}"' not in searched
    assert f'id="key-{last.pk}"' in client.get(f"/o/acme/quotas/?edit=key-{last.pk}").content.decode()
