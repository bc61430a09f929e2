"""Applying a file makes the database match it, all or nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django_scopes import scope, scopes_disabled

from billing.models import Budget, LedgerEntry, Quota
from billing.services.prices import price_in_force
from gateway.configuration.problems import ConfigurationError
from gateway.models import AppliedObject
from routing.credentials import decrypt
from routing.models import Credential, Deployment, ModelGroup, Provider
from tenants.keys import digest
from tenants.models import ApiKey, AuditEntry, Membership, Organization, Plan, Team, TeamMembership, User
from tenants.services.keys import revoke_key
from tenants.services.organizations import create_organization
from tests.configuration.filed import ENVIRONMENT, apply, changed, line_of, shown

pytestmark = pytest.mark.django_db


def everything() -> dict[str, list[dict[str, Any]]]:
    """Every row of the project's tables, to compare."""
    with scopes_disabled():
        return {
            model.__name__: list(model._default_manager.order_by("pk").values())
            for label in ("tenants", "routing", "billing", "gateway")
            for model in apps.get_app_config(label).get_models()
        }


def acme() -> Organization:
    return Organization.objects.get(slug="acme")


def limits(**whom: Any) -> dict[tuple[str, str], Decimal]:
    with scopes_disabled():
        rows = Quota.objects.filter(**whom)
        return {(row.metric, row.period): row.limit for row in rows}


def test_the_sample_makes_every_object_it_names() -> None:
    assert shown(apply()) == [
        "+ provider openai",
        "+ provider local",
        "+ deployment gpt-small",
        "+ deployment gpt-vision",
        "+ deployment own",
        "+ model group fast",
        "+ model group quality",
        "+ model group long",
        "+ model group backup",
        "+ plan enterprise",
        "+ organization acme",
        "+ user acme/ann@acme.example",
        "+ team acme/search",
        "+ user acme/bob@acme.example",
        "+ team member acme/search/bob@acme.example",
        "+ key acme/search/search-backend",
        "+ key acme/search/search-batch",
    ]


def test_routing_is_as_the_file_says() -> None:
    apply()
    openai = Provider.objects.get(name="openai")
    assert (openai.kind, openai.base_url, openai.idle_timeout) == ("openai", "https://api.openai.com/v1", 30)
    small = Deployment.objects.get(name="gpt-small")
    assert (small.model, small.context_window, small.max_output_tokens) == ("gpt-5.4-mini", 400_000, 128_000)
    assert small.capabilities == ["json_schema", "tools", "vision"]
    assert Deployment.objects.get(name="own").capabilities is None
    cost = price_in_force(deployment=small)
    assert cost is not None
    assert (cost.input, cost.cached_input, cost.cache_write, cost.output) == (
        Decimal("0.25"),
        Decimal("0.025"),
        Decimal(0),
        Decimal(2),
    )
    fast = ModelGroup.objects.get(name="fast")
    assert fast.fallbacks == {"on_error": ["backup"], "on_context_window": ["long"]}
    assert fast.rules == [
        {"when": {"plan": "enterprise"}, "use": "quality"},
        {"when": {"input_tokens_over": 32000}, "use": "long"},
        {"when": {"needs": ["vision"]}, "deployments": ["gpt-vision"]},
    ]
    assert [(m.deployment.name, m.priority, m.weight) for m in fast.members.all()] == [
        ("gpt-small", 1, 1),
        ("gpt-vision", 2, 1),
    ]
    price = price_in_force(model_group=fast)
    assert price is not None
    assert price.output == Decimal("2.40")
    assert price_in_force(model_group=ModelGroup.objects.get(name="long")) is None


def test_a_credential_is_stored_encrypted() -> None:
    apply()
    row = Credential.objects.get(provider__name="openai")
    assert decrypt(row.ciphertext) == ENVIRONMENT["OPENAI_API_KEY"]
    assert ENVIRONMENT["OPENAI_API_KEY"].encode() not in bytes(row.ciphertext)
    assert row.last_four == "cdef"


def test_the_tenant_is_as_the_file_says() -> None:
    apply()
    organization = acme()
    assert (organization.billing, organization.markup, organization.model_groups) == (
        "prepaid",
        Decimal("0.2"),
        ["fast"],
    )
    assert organization.plan == Plan.objects.get(name="enterprise")
    with scope(organization=organization):
        roles = {m.user.email: m.role for m in Membership.objects.all()}
        assert roles == {"ann@acme.example": "owner", "bob@acme.example": "member"}
        assert [(m.membership.user.email, m.role) for m in TeamMembership.objects.all()] == [
            ("bob@acme.example", "admin")
        ]
        key = ApiKey.objects.get(name="search-backend")
        assert key.owner is not None
        assert key.owner.user.email == "bob@acme.example"
    assert key.digest == digest(ENVIRONMENT["SEARCH_KEY"])
    assert (key.allowed_ips, key.model_groups, key.prefix) == (["203.0.113.0/24"], ["fast"], "sk-search-")
    # 2027-12-31 ends in Berlin at midnight, an hour before it does in UTC.
    assert key.expires_at == datetime(2027, 12, 31, 23, tzinfo=UTC)
    assert User.objects.get(email="ann@acme.example").check_password(ENVIRONMENT["ANN_PASSWORD"])


def test_quotas_are_as_the_file_says() -> None:
    apply()
    assert limits(scope="plan") == {("requests_per_minute", ""): 6000, ("concurrency", ""): 500}
    assert limits(scope="organization") == {
        ("budget", "month"): 50,
        ("requests_per_minute", ""): 600,
        ("tokens_per_minute", ""): 200_000,
        ("concurrency", ""): 50,
    }
    assert limits(scope="end_user") == {("budget", "day"): 1}
    assert limits(scope="team") == {("budget", "day"): 5}
    assert limits(scope="key") == {("budget", "total"): 1, ("requests_per_minute", ""): 60}


def test_the_opening_balance_is_posted_once() -> None:
    apply()
    outcome = apply(changed(('balance: "100.00"', 'balance: "150.00"')))
    assert outcome.changes == []
    assert outcome.notes == [
        "organization acme: the opening balance was posted as 100.00 and stays so; later money is a top-up."
    ]
    with scope(organization=acme()):
        assert Budget.objects.get(quota=None).limit == 100
        assert {e.account: e.amount for e in LedgerEntry.objects.all()} == {"cash": 100, "wallet": -100}


def test_only_a_made_key_is_told_and_only_once() -> None:
    (made,) = apply().made
    assert made.name == "acme/search/search-batch"
    with scope(organization=acme()):
        assert ApiKey.objects.get(name="search-batch").digest == digest(made.secret)
    assert apply().made == []


def test_applying_twice_writes_nothing_the_second_time() -> None:
    apply()
    before = everything()
    assert apply().changes == []
    assert everything() == before


def test_a_plan_shows_the_same_changes_and_makes_none() -> None:
    before = everything()
    planned = apply(plan=True)
    assert everything() == before
    assert planned.made == []
    assert shown(planned) == shown(apply())


def test_a_changed_field_is_shown_with_both_values_and_written() -> None:
    apply()
    text = changed(
        ("idle: 30", "idle: 45"),
        ('cost: {input: "2.50", output: "15.00"}', 'cost: {input: "2.00", output: "15.00"}'),
        ("name: Acme Ltd", "name: Acme Limited"),
        ('budget: {amount: "5.00", period: day}', 'budget: {amount: "6.00", period: day, alert_at: ["0.8"]}'),
        ('"203.0.113.0/24"', '"198.51.100.7"'),
    )
    assert shown(apply(text)) == [
        "~ provider openai: idle_timeout 30 -> 45",
        "~ deployment gpt-vision: cost {input: 2.50, output: 15.00} -> {input: 2.00, output: 15.00}",
        "~ organization acme: name Acme Ltd -> Acme Limited",
        "~ team acme/search: quotas.budget a day 5 -> 6 alert at 0.8",
        "~ key acme/search/search-backend: allowed_ips [203.0.113.0/24] -> [198.51.100.7/32]",
    ]
    assert Provider.objects.get(name="openai").idle_timeout == 45
    assert acme().name == "Acme Limited"
    assert limits(scope="team") == {("budget", "day"): 6}
    assert apply(text).changes == []


def test_a_field_left_out_goes_back_to_its_default_and_a_quota_left_out_is_lifted() -> None:
    apply()
    text = changed(
        ('    price: {input: "0.30", cached_input: "0.03", output: "2.40"}\n', ""),
        ("    time_zone: Europe/Berlin\n", ""),
        (", requests_per_minute: 60}", "}"),
        ('    end_user_quotas: {budget: {amount: "1.00", period: day}}\n', ""),
    )
    assert shown(apply(text)) == [
        "~ model group fast: price {input: 0.30, cached_input: 0.03, output: 2.40} -> none",
        "~ organization acme: time_zone Europe/Berlin -> UTC, end_user_quotas.budget a day 1 -> none",
        (
            "~ key acme/search/search-backend: expires_at 2027-12-31T23:00+00:00 -> 2028-01-01T00:00+00:00, "
            "quotas.requests_per_minute 60 -> none"
        ),
    ]
    assert limits(scope="end_user") == {}
    assert price_in_force(model_group=ModelGroup.objects.get(name="fast")) is None
    assert apply(text).changes == []


def test_a_new_credential_or_secret_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    apply()
    monkeypatch.setitem(ENVIRONMENT, "OPENAI_API_KEY", "sk-provider-another-0123456789")
    monkeypatch.setitem(ENVIRONMENT, "SEARCH_KEY", "sk-search-zyxwvutsrqponmlkjihgfedcba9876543210")
    assert shown(apply()) == ["~ provider openai: credentials", "~ key acme/search/search-backend: secret"]
    assert decrypt(Credential.objects.get().ciphertext) == "sk-provider-another-0123456789"
    with scope(organization=acme()):
        assert ApiKey.objects.get(name="search-backend").digest == digest(ENVIRONMENT["SEARCH_KEY"])


def test_what_the_file_does_not_name_is_left_alone() -> None:
    other = create_organization(acting_user=None, slug="other", name="Other")
    apply()
    text = changed(("          - name: search-batch\n", ""))
    outcome = apply(text)
    assert outcome.changes == []
    assert outcome.notes == [
        (
            "1 object of an earlier apply is no longer named; --prune removes what is not named, "
            "--plan --prune shows it first."
        )
    ]
    with scope(organization=acme()):
        assert ApiKey.objects.get(name="search-batch").revoked_at is None
    assert Organization.objects.filter(pk=other.pk).exists()


def test_the_owner_can_be_handed_over_in_one_file() -> None:
    apply()
    text = changed(
        (
            '- {email: ann@acme.example, role: owner, password: "${ANN_PASSWORD}"}',
            "- {email: ann@acme.example, role: viewer}\n      - {email: bob@acme.example, role: owner}",
        )
    )
    assert shown(apply(text)) == [
        "~ user acme/bob@acme.example: role member -> owner",
        "~ user acme/ann@acme.example: role owner -> viewer",
    ]


def test_a_password_counts_for_a_new_account_only(monkeypatch: pytest.MonkeyPatch) -> None:
    apply()
    monkeypatch.setitem(ENVIRONMENT, "ANN_PASSWORD", "another horse battery")
    assert apply().changes == []
    assert User.objects.get(email="ann@acme.example").check_password("correct horse battery")


def test_what_the_database_refuses_is_told_with_its_line_and_nothing_is_applied() -> None:
    apply()
    with scope(organization=acme()):
        revoke_key(acting_user=None, key=ApiKey.objects.get(name="search-backend"))
    before = everything()
    with pytest.raises(ConfigurationError) as refusal:
        apply(changed(("name: Acme Ltd", "name: Acme Limited")))
    (problem,) = refusal.value.problems
    assert problem.field == "organizations[0].teams[0].keys[0]"
    assert problem.line == line_of("name: search-backend")
    assert "belongs to a key already, or to one that was revoked" in problem.message
    assert everything() == before


def test_every_change_is_in_the_audit_log_and_no_secret_is() -> None:
    apply()
    with scopes_disabled():
        entries = list(AuditEntry.objects.values_list("verb", "target_type", "target_label"))
        text = repr(list(AuditEntry.objects.values()))
    assert ("created", "team", "search") in entries
    assert ("set credentials", "provider", "openai") in entries
    assert ("topped up", "ledgertransaction", "opening:acme") in entries
    for secret in ENVIRONMENT.values():
        assert secret not in text


def test_a_team_remembers_that_apply_made_it_and_one_that_was_there_is_not_claimed() -> None:
    create_organization(acting_user=None, slug="acme", name="Acme Ltd")
    apply()
    names = set(AppliedObject.objects.values_list("kind", "name"))
    assert ("teams", "acme/search") in names
    assert ("organizations", "acme") not in names
    with scope(organization=acme()):
        assert Team.objects.get().slug == "search"


def test_a_quota_on_a_model_group_is_set_changed_and_lifted() -> None:
    apply()
    old = '        quotas: {budget: {amount: "5.00", period: day}}\n'
    new = old.replace("}}", "}, model_groups: {fast: {concurrency: 3}}}")
    assert shown(apply(changed((old, new)))) == [
        "~ team acme/search: quotas.model_groups.fast.concurrency none -> 3"
    ]
    with scope(organization=acme()):
        assert Quota.objects.get(model_group="fast").limit == 3
    assert shown(apply()) == ["~ team acme/search: quotas.model_groups.fast.concurrency 3 -> none"]
