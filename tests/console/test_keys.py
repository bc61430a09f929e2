"""Keys in the console: made, shown once, rotated, revoked; by whom, and whose."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from billing.models import UsageRollup
from routing.models import ModelGroup
from tenants.keys import digest
from tenants.models import ApiKey, AuditEntry, Plan
from tenants.permissions import Role
from tenants.services.keys import create_key
from tenants.services.teams import set_team_member
from tests.cast import Cast
from tests.console.conftest import SignIn

SECRET = re.compile(r"sk-weir-[0-9A-Za-z]{43}")


def make(client: Client, cast: Cast, **values: Any) -> Any:
    """Post the form for a new key in the team search."""
    filled = {
        "name": "fresh",
        "team": cast.search.pk,
        "owner": "",
        "expires_on": "",
        "allowed_ips": "",
        **values,
    }
    return client.post(reverse("console:key_new", args=["acme"]), filled)


def test_the_secret_is_in_the_answer_and_only_its_digest_is_stored(acme: Cast, sign_in: SignIn) -> None:
    response = make(sign_in(acme.ann), acme)
    secrets = set(SECRET.findall(response.content.decode()))
    assert len(secrets) == 1
    secret = secrets.pop()
    key = ApiKey.objects.get(name="fresh")
    assert key.digest == digest(secret)
    stored = {str(getattr(key, field.attname)) for field in ApiKey._meta.concrete_fields}
    assert not any(secret[8:] in value for value in stored)


def test_the_secret_is_shown_only_once(acme: Cast, sign_in: SignIn, caplog: pytest.LogCaptureFixture) -> None:
    client = sign_in(acme.ann)
    with caplog.at_level(logging.DEBUG):
        response = make(client, acme)
    secret = SECRET.findall(response.content.decode())[0]
    assert response["Cache-Control"] == "no-store"
    assert response.status_code == 200
    key = ApiKey.objects.get(name="fresh")
    for url in (
        reverse("console:keys", args=["acme"]),
        reverse("console:key", args=["acme", key.pk]),
        "/o/acme/audit/",
    ):
        assert secret not in client.get(url).content.decode()
    assert not any(secret in str(session.get_decoded()) for session in Session.objects.all())
    assert not any(secret in str(entry.detail) + entry.target_label for entry in AuditEntry.objects.all())
    assert secret not in caplog.text


def test_the_snippets_are_ready_to_run(acme: Cast, sign_in: SignIn, settings: Any) -> None:
    settings.PUBLIC_URL = "https://weir.example"
    html = make(sign_in(acme.ann), acme, model_groups=["quality"]).content.decode()
    secret = SECRET.findall(html)[0]
    assert (
        f"curl https://weir.example/v1/chat/completions \\\n  -H &quot;Authorization: Bearer {secret}" in html
        or (
            f'curl https://weir.example/v1/chat/completions \\\n  -H "Authorization: Bearer {secret}"' in html
        )
    )
    assert f'OpenAI(base_url="https://weir.example/v1", api_key="{secret}")' in html
    assert f'baseURL: "https://weir.example/v1", apiKey: "{secret}"' in html
    assert 'model="quality"' in html


def test_the_models_on_offer_are_those_that_organization_and_plan_both_allow(
    acme: Cast, sign_in: SignIn
) -> None:
    for name in ("one", "two", "three"):
        ModelGroup.objects.create(name=name)
    organization = acme.organization
    organization.plan = Plan.objects.create(name="small", model_groups=["one", "two"])
    organization.model_groups = ["two", "three"]
    organization.save(update_fields=["plan", "model_groups"])
    html = sign_in(acme.ann).get(reverse("console:key_new", args=["acme"])).content.decode()
    assert re.findall(r'name="model_groups" value="(\w+)"', html) == ["two"]


def test_a_key_is_made_as_the_form_says(acme: Cast, sign_in: SignIn) -> None:
    make(
        sign_in(acme.ann),
        acme,
        owner=acme.bob.pk,
        expires_on="2031-03-30",
        model_groups=["fast"],
        allowed_ips="203.0.113.7\n198.51.100.0/24",
    )
    key = ApiKey.objects.get(name="fresh")
    assert key.owner == acme.bob
    assert key.created_by == acme.ann.user
    assert key.model_groups == ["fast"]
    assert key.allowed_ips == ["203.0.113.7/32", "198.51.100.0/24"]
    # The end of 30 March 2031 in Berlin, where summer time began that morning.
    assert key.expires_at == datetime(2031, 3, 30, 22, 0, tzinfo=UTC)


def test_a_form_with_an_error_keeps_what_was_typed(acme: Cast, sign_in: SignIn) -> None:
    response = make(sign_in(acme.ann), acme, name="kept name", allowed_ips="not a network")
    assert response.status_code == 422
    html = response.content.decode()
    assert 'value="kept name"' in html
    assert "not a network" in html
    assert "is not an IP address or network" in html
    assert not ApiKey.objects.filter(name="kept name").exists()


def test_a_name_is_used_once_in_a_team(acme: Cast, sign_in: SignIn) -> None:
    response = make(sign_in(acme.ann), acme, name="search-backend")
    assert response.status_code == 422
    assert b"Search already has a key of this name" in response.content
    assert ApiKey.objects.filter(name="search-backend").count() == 1


def test_a_team_admin_makes_keys_for_anybody_in_that_team_only(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.bob)
    assert make(client, acme, owner=acme.cleo.pk).status_code == 200
    response = make(client, acme, name="elsewhere", team=acme.support.pk)
    assert response.status_code == 422
    assert not ApiKey.objects.filter(name="elsewhere").exists()


def test_a_member_makes_keys_only_for_themselves(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.cleo)
    assert make(client, acme, team=acme.support.pk, owner=acme.bob.pk).status_code == 422
    assert make(client, acme, team=acme.search.pk, owner=acme.cleo.pk).status_code == 422
    assert not ApiKey.objects.filter(name="fresh").exists()
    assert make(client, acme, team=acme.support.pk, owner=acme.cleo.pk).status_code == 200
    assert ApiKey.objects.get(name="fresh").owner == acme.cleo


def test_a_team_admin_gives_nobody_a_key_in_a_team_where_they_are_a_member(
    acme: Cast, sign_in: SignIn
) -> None:
    set_team_member(acting_user=None, team=acme.support, membership=acme.bob, role=Role.MEMBER)
    client = sign_in(acme.bob)
    response = make(client, acme, team=acme.support.pk, owner=acme.cleo.pk)
    assert response.status_code == 422
    assert b"only for yourself" in response.content
    assert make(client, acme, team=acme.support.pk, owner=acme.bob.pk).status_code == 200


def test_another_tenants_team_is_no_choice(acme: Cast, other: Cast, sign_in: SignIn) -> None:
    assert make(sign_in(acme.ann), acme, team=other.search.pk).status_code == 422
    assert not ApiKey.objects.filter(name="fresh").exists()


@pytest.mark.parametrize("page", ["key", "key_edit", "key_rotate", "key_revoke"])
def test_another_tenants_key_does_not_exist_and_stays_as_it_is(
    acme: Cast, other: Cast, sign_in: SignIn, page: str
) -> None:
    client = sign_in(acme.ann)
    url = reverse(f"console:{page}", args=["acme", other.search_key.pk])
    assert client.get(url).status_code == 404
    assert client.post(url, {"overlap": "0", "name": "stolen"}).status_code == 404
    unchanged = ApiKey._base_manager.get(pk=other.search_key.pk)
    assert (unchanged.name, unchanged.revoked_at, unchanged.successor_id) == ("search-backend", None, None)


def test_revoking_says_what_happens_and_then_does_it(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.adam)
    url = reverse("console:key_revoke", args=["acme", acme.search_key.pk])
    html = client.get(url).content.decode()
    assert "Within one second every request" in html
    acme.search_key.refresh_from_db()
    assert acme.search_key.revoked_at is None
    assert client.post(url)["Location"] == "/o/acme/keys/"
    acme.search_key.refresh_from_db()
    assert acme.search_key.revoked_at is not None


def test_a_member_revokes_their_own_key_but_no_other(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.cleo)
    make(client, acme, team=acme.support.pk, owner=acme.cleo.pk)
    own = ApiKey.objects.get(name="fresh")
    assert client.post(reverse("console:key_revoke", args=["acme", own.pk])).status_code == 302
    assert client.post(reverse("console:key_revoke", args=["acme", acme.support_key.pk])).status_code == 404
    acme.support_key.refresh_from_db()
    assert acme.support_key.revoked_at is None


@pytest.mark.parametrize(
    ("choice", "seconds"), [("0", 0), ("3600", 3600), ("86400", 86400), ("604800", 604800)]
)
def test_a_rotated_key_works_on_for_the_overlap_chosen(
    acme: Cast, sign_in: SignIn, choice: str, seconds: int
) -> None:
    url = reverse("console:key_rotate", args=["acme", acme.search_key.pk])
    before = datetime.now(UTC)
    html = sign_in(acme.bob).post(url, {"overlap": choice}).content.decode()
    after = datetime.now(UTC)
    secret = SECRET.findall(html)[0]
    acme.search_key.refresh_from_db()
    assert acme.search_key.digest == digest(secret)
    old = ApiKey.objects.get(successor=acme.search_key)
    assert old.digest == digest(acme.search_secret)
    assert old.expires_at is not None
    overlap = timedelta(seconds=seconds)
    assert before + overlap <= old.expires_at <= after + overlap


def test_after_a_rotation_the_keys_page_tells_of_the_old_secret(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.bob)
    client.post(reverse("console:key_rotate", args=["acme", acme.search_key.pk]), {"overlap": "3600"})
    html = client.get(reverse("console:key", args=["acme", acme.search_key.pk])).content.decode()
    assert f"…{acme.search_secret[-4:]}</a> works until" in html


def test_editing_changes_only_what_was_changed(acme: Cast, sign_in: SignIn) -> None:
    exact = datetime(2032, 5, 5, 11, 22, 33, tzinfo=UTC)
    ApiKey.objects.filter(pk=acme.search_key.pk).update(expires_at=exact)
    url = reverse("console:key_edit", args=["acme", acme.search_key.pk])
    response = sign_in(acme.bob).post(url, {"name": "renamed", "expires_on": "2032-05-05", "allowed_ips": ""})
    assert response.status_code == 302
    acme.search_key.refresh_from_db()
    assert (acme.search_key.name, acme.search_key.expires_at) == ("renamed", exact)


def names(html: str) -> set[str]:
    """The keys that a list shows."""
    return set(re.findall(r'<a class="cell-main"[^>]*>([^<]+)</a>', html))


def test_the_list_is_searched_and_filtered_by_its_address(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.ann)
    assert names(client.get("/o/acme/keys/").content.decode()) == {"search-backend", "support-bot"}
    assert names(client.get("/o/acme/keys/?team=support").content.decode()) == {"support-bot"}
    assert names(client.get("/o/acme/keys/?q=BACKEND").content.decode()) == {"search-backend"}
    assert names(client.get("/o/acme/keys/?q=bob@acme").content.decode()) == {"search-backend"}
    nothing = client.get("/o/acme/keys/?q=nothing").content.decode()
    assert names(nothing) == set()
    assert "No key matches" in nothing


def test_the_list_shows_a_team_admin_their_teams_keys_and_a_member_their_own(
    acme: Cast, sign_in: SignIn
) -> None:
    assert names(sign_in(acme.bob).get("/o/acme/keys/").content.decode()) == {"search-backend"}
    assert names(sign_in(acme.cleo).get("/o/acme/keys/").content.decode()) == set()


def test_the_list_says_what_each_key_spent_this_month(acme: Cast, sign_in: SignIn) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    UsageRollup.objects.create(
        hour=hour,
        organization=acme.organization,
        team_id=acme.search.pk,
        key_id=acme.search_key.pk,
        requests=3,
        errors=0,
        input_tokens=10,
        cached_input_tokens=0,
        cache_write_tokens=0,
        output_tokens=10,
        reasoning_tokens=0,
        cost=Decimal("1.00"),
        charge=Decimal("1.234567"),
    )
    html = sign_in(acme.ann).get("/o/acme/keys/").content.decode()
    assert 'title="$1.234567">$1.23</span>' in html


def test_a_paused_key_says_by_whom_and_is_resumed_by_who_manages_it(acme: Cast, sign_in: SignIn) -> None:
    client = sign_in(acme.ann)
    page = reverse("console:key", args=["acme", acme.search_key.pk])
    shown = client.post(f"{page}pause/", {"do": "pause"}, follow=True)
    acme.search_key.refresh_from_db()
    assert acme.search_key.paused_by == acme.ann.user
    assert f"by {acme.ann.user.email}" in shown.content.decode()
    client.post(f"{page}pause/", {"do": "resume"})
    resumed = ApiKey.objects.get(pk=acme.search_key.pk)
    assert (resumed.paused_at, resumed.paused_by) == (None, None)
    verbs = AuditEntry.objects.filter(target_id=str(acme.search_key.pk)).order_by("-pk")
    assert [entry.verb for entry in verbs[:2]] == ["resumed", "paused"]


def test_an_owner_resumes_a_pause_of_their_own_and_nobody_elses(acme: Cast, sign_in: SignIn) -> None:
    key, _ = create_key(acting_user=None, team=acme.support, name="cleos-own", owner=acme.cleo)
    pause = reverse("console:key_pause", args=["acme", key.pk])
    assert sign_in(acme.cleo).post(pause, {"do": "pause"}).status_code == 302
    assert sign_in(acme.cleo).post(pause, {"do": "resume"}).status_code == 302
    key.refresh_from_db()
    assert key.paused_at is None
    assert sign_in(acme.ann).post(pause, {"do": "pause"}).status_code == 302
    assert sign_in(acme.cleo).post(pause, {"do": "resume"}).status_code == 403
    key.refresh_from_db()
    assert key.paused_at is not None
