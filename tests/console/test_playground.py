from __future__ import annotations

from datetime import timedelta

from django.urls import reverse
from django.utils import timezone

from billing.services.quotas import set_quota
from tenants.keys import digest
from tenants.models import ApiKey, AuditEntry
from tenants.services.keys import create_key, revoke_key
from tests.cast import Cast
from tests.console.conftest import SignIn


def lent(sign_in: SignIn, cast: Cast, member: object, team: object) -> dict[str, str]:
    client = sign_in(member)  # type: ignore[arg-type]  # a Membership
    url = reverse("console:playground_key", args=[cast.organization.slug])
    answer: dict[str, str] = client.post(url, {"team": team.pk}).json()  # type: ignore[attr-defined]  # a Team
    return answer


def test_a_lent_key_is_the_persons_own_in_the_team_and_works_for_15_minutes(
    acme: Cast, sign_in: SignIn
) -> None:
    before = timezone.now()
    answer = lent(sign_in, acme, acme.cleo, acme.support)
    key = ApiKey.objects.get(digest=digest(answer["secret"]))
    assert (key.team, key.owner, key.playground) == (acme.support, acme.cleo, True)
    assert key.model_groups is None
    assert key.expires_at is not None
    assert before + timedelta(minutes=15) <= key.expires_at <= timezone.now() + timedelta(minutes=15)


def test_lending_again_changes_the_secret_of_the_same_key(acme: Cast, sign_in: SignIn) -> None:
    first = lent(sign_in, acme, acme.cleo, acme.support)
    key = ApiKey.objects.get(playground=True)
    set_quota(acting_user=None, scope="key", target=key, metric="concurrency", limit=1)
    second = lent(sign_in, acme, acme.cleo, acme.support)
    again = ApiKey.objects.get(playground=True)
    assert again.pk == key.pk
    assert again.digest == digest(second["secret"]) != digest(first["secret"])


def test_each_lending_is_in_the_audit_log_without_the_secret(acme: Cast, sign_in: SignIn) -> None:
    secrets = [lent(sign_in, acme, acme.cleo, acme.support)["secret"] for _ in range(2)]
    entries = AuditEntry.objects.filter(actor=acme.cleo.user, target_type="apikey").order_by("pk")
    assert [entry.verb for entry in entries] == ["created", "lent"]
    assert not any(secret in str(entry.detail) for entry in entries for secret in secrets)


def test_a_revoked_playground_key_stays_revoked_and_another_is_made(acme: Cast, sign_in: SignIn) -> None:
    lent(sign_in, acme, acme.cleo, acme.support)
    old = ApiKey.objects.get(playground=True)
    revoke_key(acting_user=None, key=old)
    answer = lent(sign_in, acme, acme.cleo, acme.support)
    old.refresh_from_db()
    assert old.revoked_at is not None
    assert ApiKey.objects.get(digest=digest(answer["secret"])).pk != old.pk


def test_two_people_in_one_team_are_lent_keys_of_their_own(acme: Cast, sign_in: SignIn) -> None:
    lent(sign_in, acme, acme.ann, acme.support)
    lent(sign_in, acme, acme.cleo, acme.support)
    owners = set(ApiKey.objects.filter(playground=True).values_list("owner", flat=True))
    assert owners == {acme.ann.pk, acme.cleo.pk}


def test_a_key_that_bears_the_name_is_left_alone(acme: Cast, sign_in: SignIn) -> None:
    own, _ = create_key(
        acting_user=None, team=acme.support, name=f"Playground of {acme.cleo.user.email}", owner=acme.cleo
    )
    url = reverse("console:playground_key", args=["acme"])
    answer = sign_in(acme.cleo).post(url, {"team": acme.support.pk})
    assert answer.status_code == 409
    assert "Rename it" in answer.json()["error"]["message"]
    assert ApiKey.objects.get(pk=own.pk).digest == own.digest


def test_the_page_offers_the_models_that_each_team_may_use(acme: Cast, sign_in: SignIn) -> None:
    acme.support.model_groups = ["fast"]
    acme.support.save(update_fields=["model_groups"])
    page = sign_in(acme.ann).get(reverse("console:playground", args=["acme"]))
    assert page.context["models"] == {
        str(acme.search.pk): ["fast", "quality"],
        str(acme.support.pk): ["fast"],
    }


def test_a_playground_key_is_neither_edited_nor_rotated(acme: Cast, sign_in: SignIn) -> None:
    lent(sign_in, acme, acme.cleo, acme.support)
    key = ApiKey.objects.get(playground=True)
    client = sign_in(acme.ann)
    for name in ("key_edit", "key_rotate"):
        assert client.post(reverse(f"console:{name}", args=["acme", key.pk]), {}).status_code == 403
    assert client.get(reverse("console:key_revoke", args=["acme", key.pk])).status_code == 200


def test_usage_that_is_not_ones_own_is_not_known(acme: Cast, sign_in: SignIn) -> None:
    from tests.billing.made_usage import event

    event(acme.search_key, "2026-03-01T10:00", "req-of-bob")
    url = reverse("console:playground_usage", args=["acme"]) + "?request=req-of-bob"
    assert sign_in(acme.cleo).get(url).json() == {"known": False}
    assert sign_in(acme.bob).get(url).json()["known"] is True
