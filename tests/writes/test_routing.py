"""What the write functions of routing, and its reads for tenants, keep true."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django_scopes import scopes_disabled
from pytest_django import Settings

from billing.services.prices import end_price, set_price
from routing import access, services
from routing.credentials import UndecipherableCredential, decrypt, encrypt, rotate
from routing.links import find_cycle, unreachable
from routing.models import Credential, Deployment, ModelGroup, Provider
from routing.services.deployments import DeploymentInUse
from routing.services.groups import (
    BadLinks,
    FallbackCycle,
    MissingModelGroup,
    ModelGroupInUse,
    Place,
    UnpricedGroup,
)
from routing.services.providers import MissingAddress, MissingCredential, ProviderInUse
from tenants.models import AuditEntry
from tenants.services.organizations import create_organization, create_plan
from tenants.services.rows import InvalidRow

SECRET = "sk-provider-0123456789abcdef"


def openai(*credentials: str) -> Provider:
    return services.create_provider(
        acting_user=None, name="openai", kind="openai", credentials=credentials or (SECRET,)
    )


def deployment(provider: Provider, name: str = "small") -> Deployment:
    return services.create_deployment(acting_user=None, name=name, provider=provider, model="gpt")


def priced(name: str = "own") -> Deployment:
    """A deployment with a price, at a provider of this test."""
    provider = Provider.objects.filter(name="openai").first() or openai()
    made = deployment(provider, name)
    set_price(acting_user=None, deployment=made, input=Decimal(1))
    return made


def group(name: str, *on_error: str, places: Sequence[Place] = ()) -> ModelGroup:
    if not places and not on_error:
        places = [Place(priced(f"{name}-own"))]
    return services.create_model_group(
        acting_user=None, name=name, places=places, fallbacks={"on_error": list(on_error)} if on_error else {}
    )


def test_a_credential_is_read_with_any_key_and_written_with_the_first(settings: Settings) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.CREDENTIAL_KEYS = [old]
    stored = encrypt(SECRET)
    settings.CREDENTIAL_KEYS = [new, old]
    again = rotate(stored)
    assert decrypt(stored) == SECRET
    settings.CREDENTIAL_KEYS = [new]
    assert decrypt(again) == SECRET
    with pytest.raises(UndecipherableCredential):
        decrypt(stored)


@pytest.mark.django_db
def test_a_provider_has_its_kinds_address_unless_another_is_given() -> None:
    assert openai().base_url == "https://api.openai.com/v1"
    with pytest.raises(MissingAddress):
        services.create_provider(acting_user=None, name="own", kind="vllm")


@pytest.mark.django_db
def test_a_kind_that_needs_a_credential_gets_no_provider_without_one() -> None:
    with pytest.raises(MissingCredential):
        services.create_provider(acting_user=None, name="openai", kind="openai")
    assert not Provider.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("changes", [{"kind": "smoke"}, {"idle_timeout": 0}, {"base_url": "no address"}])
def test_a_provider_refuses_what_is_no_value_of_the_field(changes: dict[str, object]) -> None:
    provider = openai()
    with pytest.raises(InvalidRow, match=next(iter(changes))):
        services.update_provider(acting_user=None, provider=provider, **changes)
    assert Provider.objects.get().idle_timeout == 30


@pytest.mark.django_db
def test_the_same_credentials_are_not_written_again_and_none_is_in_the_audit_log() -> None:
    provider = openai()
    before = Credential.objects.get().pk
    services.set_credentials(acting_user=None, provider=provider, secrets=[SECRET])
    assert Credential.objects.get().pk == before
    services.set_credentials(acting_user=None, provider=provider, secrets=["short", SECRET])
    rows = Credential.objects.order_by("pk")
    assert [decrypt(row.ciphertext) for row in rows] == ["short", SECRET]
    # Four characters of a short one would be most of it.
    assert [row.last_four for row in rows] == ["", "cdef"]
    with scopes_disabled():
        assert SECRET not in repr(list(AuditEntry.objects.values()))


@pytest.mark.django_db
def test_what_something_stands_on_is_not_removed() -> None:
    provider = openai()
    small = priced()
    backup = group("backup", places=[Place(small)])
    group("fast", "backup")
    with pytest.raises(ProviderInUse):
        services.remove_provider(acting_user=None, provider=provider)
    with pytest.raises(DeploymentInUse, match="backup"):
        services.remove_deployment(acting_user=None, deployment=small)
    with pytest.raises(ModelGroupInUse, match="fast"):
        services.remove_model_group(acting_user=None, group=backup)


@pytest.mark.django_db
def test_a_group_leads_only_to_groups_there_are_and_never_in_a_circle() -> None:
    with pytest.raises(MissingModelGroup, match="nowhere"):
        group("lost", "nowhere")
    first = group("first")
    group("second", "first")
    with pytest.raises(FallbackCycle, match="first -> second -> first"):
        services.update_model_group(acting_user=None, group=first, fallbacks={"on_error": ["second"]})
    assert ModelGroup.objects.get(name="first").fallbacks == {}


@pytest.mark.django_db
def test_a_group_without_a_priced_deployment_is_refused_and_stays_one_with_a_price() -> None:
    small = deployment(openai())
    with pytest.raises(UnpricedGroup, match="No deployment of fast has a price"):
        group("fast", places=[Place(small)])
    fast = group("fast", places=[Place(small), Place(priced())])
    with pytest.raises(UnpricedGroup):
        services.set_members(acting_user=None, group=fast, places=[Place(small)])
    with pytest.raises(UnpricedGroup):
        end_price(acting_user=None, deployment=Deployment.objects.get(name="own"))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fallbacks": {"on_eror": []}}, r"fallbacks\.on_eror: is not a known field"),
        ({"rules": [{"when": {"moon": "full"}, "use": "fast"}]}, r"rules\[0\]\.when\.moon: is not a known"),
        (
            {"rules": [{"when": {"needs": ["smell"]}, "use": "fast"}]},
            r"rules\[0\]\.when\.needs\[0\]: must be",
        ),
        ({"rules": [{"when": {"plan": "x"}}]}, r"must give either use"),
        ({"rules": [{"when": {"plan": "x"}, "deployments": ["elsewhere"]}]}, "elsewhere is no deployment of"),
        ({"rules": [{"when": {"plan": "x"}, "deployments": ["fast-own"]}]}, "there is no plan 'x'"),
        ({"rules": [{"when": {"team": "x"}, "deployments": ["fast-own"]}]}, "there is no team 'x'"),
        ({"rules": [{"when": {"plan": "x"}, "use": "nowhere"}]}, "is not a model group"),
        ({"rules": [{"when": {"needs": ["tools"]}, "use": "fast"}]}, "goes in a circle: fast -> fast"),
        ({"rules": [{"when": {"region": ["EU"]}, "use": "fast"}]}, r"rules\[0\].when.region\[0\]"),
        (
            {
                "rules": [
                    {"when": {"input_tokens_over": 100}, "deployments": ["fast-own"]},
                    {"when": {"input_tokens_over": 200}, "deployments": ["fast-own"]},
                ]
            },
            r"rules\[1\]: is never reached, because rules\[0\]",
        ),
    ],
)
def test_links_that_could_not_work_are_refused_with_the_field(changes: dict[str, Any], said: str) -> None:
    fast = group("fast")
    with pytest.raises((BadLinks, MissingModelGroup, FallbackCycle), match=said):
        services.update_model_group(acting_user=None, group=fast, **changes)
    assert ModelGroup.objects.get(name="fast").rules == []


def test_a_rule_is_unreachable_where_an_earlier_one_asks_no_more() -> None:
    plan, long, tools = {"plan": "a"}, {"input_tokens_over": 9}, {"needs": ["tools"]}
    assert unreachable([{"when": plan}, {"when": {**plan, **long}}]) == [(1, 0)]
    assert unreachable([{"when": {**plan, **long}}, {"when": plan}]) == []
    assert unreachable([{"when": tools}, {"when": {"needs": ["vision", "tools"]}}]) == [(1, 0)]
    assert unreachable([{"when": long}, {"when": {"input_tokens_over": 8}}]) == []
    assert unreachable([{"when": plan}, {"when": {"plan": "b"}}]) == []
    eu, both = {"region": ["eu"]}, {"region": ["eu", "us"]}
    assert unreachable([{"when": both}, {"when": eu}]) == [(1, 0)]
    assert unreachable([{"when": eu}, {"when": both}]) == []


def test_a_cycle_is_found_wherever_it_is() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) is None
    assert find_cycle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) is None
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"a"}}) == ["a", "a"]


@pytest.mark.django_db
def test_layers_only_ever_narrow_what_an_organization_may_use() -> None:
    for name in ("a", "b", "c", "d"):
        group(name)
    plan = create_plan(acting_user=None, name="basic", model_groups=["a", "b"])
    acme = create_organization(
        acting_user=None, slug="acme", name="A", plan=plan, model_groups=["b", "a", "c"]
    )
    free = create_organization(acting_user=None, slug="free", name="F")

    def names(*narrower: Sequence[str] | None) -> list[str]:
        return [each.name for each in access.model_groups_of(acme, *narrower)]

    assert names() == ["a", "b"]
    assert names(None, ["b", "d"]) == ["b"]
    assert names([]) == []
    assert [each.name for each in access.model_groups_of(free)] == ["a", "b", "c", "d"]
    assert access.missing_model_groups(["a", "z", "y"]) == ["y", "z"]
