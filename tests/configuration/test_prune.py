"""A prune removes what an earlier apply made and the file no longer names, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django_scopes import scope, scopes_disabled

from billing.models import UsageEvent
from gateway.configuration.problems import ConfigurationError
from gateway.models import AppliedObject
from routing.models import Deployment, ModelGroup, Provider
from tenants.models import ApiKey, Membership, Organization, Plan, Team, User
from tenants.services.organizations import create_organization
from tenants.services.teams import create_team
from tests.configuration.filed import SAMPLE, apply, changed, shown

pytestmark = pytest.mark.django_db
WITHOUT_ORGANIZATIONS = SAMPLE[: SAMPLE.index("organizations:")]


def use(organization: Organization, team_id: int, key_id: int) -> None:
    """One request of the team was charged."""
    now = datetime.now(UTC)
    with scope(organization=organization):
        UsageEvent.objects.create(
            request_id=f"req-{team_id}",
            started_at=now,
            ended_at=now,
            organization=organization,
            team_id=team_id,
            key_id=key_id,
            endpoint="chat.completions",
            streamed=False,
            status=200,
            end_reason="completed",
            usage_source="reported",
            cost=Decimal("0.01"),
            charge=Decimal("0.01"),
            duration_ms=5,
        )


def test_a_key_no_longer_named_is_revoked() -> None:
    apply()
    text = changed(("          - name: search-batch\n", ""))
    assert shown(apply(text, prune=True)) == ["- key acme/search/search-batch (revoked)"]
    with scopes_disabled():
        assert ApiKey.objects.get(name="search-batch").revoked_at is not None
        assert ApiKey.objects.get(name="search-backend").revoked_at is None
    assert apply(text, prune=True).changes == []


def test_a_plan_of_a_prune_removes_nothing() -> None:
    apply()
    text = changed(("          - name: search-batch\n", ""))
    assert shown(apply(text, prune=True, plan=True)) == ["- key acme/search/search-batch (revoked)"]
    with scopes_disabled():
        assert ApiKey.objects.get(name="search-batch").revoked_at is None
    assert AppliedObject.objects.filter(name="acme/search/search-batch").exists()


def test_routing_no_longer_named_goes_in_an_order_that_leaves_nothing_dangling() -> None:
    apply(WITHOUT_ORGANIZATIONS)
    text = "providers:\n  - {name: local, kind: vllm, base_url: http://127.0.0.1:8001/v1}\n"
    assert shown(apply(text, prune=True)) == [
        "- plan enterprise",
        "- model group fast",
        "- model group backup",
        "- model group long",
        "- model group quality",
        "- deployment gpt-small",
        "- deployment gpt-vision",
        "- deployment own",
        "- provider openai",
    ]
    assert [p.name for p in Provider.objects.all()] == ["local"]
    assert not Deployment.objects.exists()
    assert not ModelGroup.objects.exists()
    assert not Plan.objects.exists()


def test_what_a_file_never_made_stays() -> None:
    mine = create_organization(acting_user=None, slug="mine", name="Mine")
    apply()
    with scopes_disabled():
        create_team(
            acting_user=None, organization=Organization.objects.get(slug="acme"), slug="own", name="Own"
        )
    apply(SAMPLE, prune=True)
    assert Organization.objects.filter(pk=mine.pk).exists()
    with scopes_disabled():
        assert Team.objects.filter(slug="own").exists()


def test_a_removal_that_something_stands_on_is_refused_and_nothing_is_removed() -> None:
    apply(WITHOUT_ORGANIZATIONS)
    plan = Plan.objects.get(name="enterprise")
    create_organization(acting_user=None, slug="mine", name="Mine", plan=plan)
    with pytest.raises(ConfigurationError, match="cannot remove plan enterprise"):
        apply("providers: []\n", prune=True)
    assert ModelGroup.objects.count() == 4


def test_an_organization_that_paid_is_suspended_and_goes_on_when_named_again() -> None:
    apply()
    outcome = apply(WITHOUT_ORGANIZATIONS, prune=True)
    assert shown(outcome) == ["- organization acme (suspended: its usage and books stay)"]
    assert Organization.objects.get(slug="acme").suspended_at is not None
    assert apply(WITHOUT_ORGANIZATIONS, prune=True).changes == []
    assert shown(apply()) == ["~ organization acme: suspended yes -> no"]
    assert Organization.objects.get(slug="acme").suspended_at is None
    assert apply().changes == []


def test_an_organization_that_neither_used_nor_paid_is_deleted_and_its_people_keep_their_accounts() -> None:
    apply(changed(('    balance: "100.00"\n', "")))
    assert shown(apply(WITHOUT_ORGANIZATIONS, prune=True)) == ["- organization acme"]
    assert not Organization.objects.exists()
    assert User.objects.count() == 2
    assert not AppliedObject.objects.filter(name__startswith="acme").exists()


def team_removed() -> str:
    return SAMPLE[: SAMPLE.index("    teams:")]


def test_a_team_that_used_nothing_is_deleted() -> None:
    apply()
    assert shown(apply(team_removed(), prune=True)) == [
        "- team acme/search",
        "- user acme/bob@acme.example (and their own keys are revoked)",
    ]
    with scopes_disabled():
        assert not Team.objects.exists()
        assert [m.user.email for m in Membership.objects.all()] == ["ann@acme.example"]


def test_a_team_with_usage_stays_without_working_keys() -> None:
    apply()
    organization = Organization.objects.get(slug="acme")
    with scopes_disabled():
        team = Team.objects.get()
        key = ApiKey.objects.get(name="search-backend")
    use(organization, team.pk, key.pk)
    assert shown(apply(team_removed(), prune=True)) == [
        "- team acme/search (stays, since it has usage; its keys are revoked)",
        "- user acme/bob@acme.example (and their own keys are revoked)",
    ]
    with scopes_disabled():
        assert not ApiKey.objects.filter(revoked_at__isnull=True).exists()
        assert Team.objects.exists()


def test_the_last_owner_is_not_pruned() -> None:
    apply()
    text = changed(
        ('    users:\n      - {email: ann@acme.example, role: owner, password: "${ANN_PASSWORD}"}\n', "")
    )
    with pytest.raises(ConfigurationError, match=r"cannot remove user acme/ann@acme\.example: .* owner"):
        apply(text, prune=True)
