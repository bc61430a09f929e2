"""Django's admin as operators use it: it writes through the services, and shows no secret."""

from __future__ import annotations

import html
from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django_scopes import scopes_disabled

from billing.models import Budget
from billing.services.prices import set_price
from routing.credentials import decrypt
from routing.models import Deployment, ModelGroup, Provider
from tenants.models import AuditEntry, Membership, Organization, User
from tests.cast import Cast
from tests.console.conftest import SignIn
from tests.signed_in import signed_in

SECRET = "provider-secret-of-forty-characters-12345"
PROVIDER = {
    "kind": "generic",
    "base_url": "http://127.0.0.1:9/v1",
    "connect_timeout": "5",
    "first_token_timeout": "60",
    "idle_timeout": "30",
    "total_timeout": "600",
}


@pytest.fixture
def operator(db: None) -> Client:
    """A client signed in as an operator of the platform."""
    user = User.objects.create_superuser("olga@platform.example", "a long enough password")
    return signed_in(user)


def add_provider(operator: Client, **values: str) -> Any:
    return operator.post(
        "/admin/routing/provider/add/", {**PROVIDER, "name": "backup", "credentials": SECRET, **values}
    )


def test_every_page_of_the_admin_opens(operator: Client, acme: Cast) -> None:
    for model in admin.site._registry:
        page = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        assert operator.get(page).status_code == 200, page


def test_a_member_who_is_no_operator_is_sent_away(acme: Cast, sign_in: SignIn) -> None:
    assert sign_in(acme.ann).get("/admin/routing/provider/").status_code == 302


def test_a_credential_is_stored_encrypted_and_never_shown(operator: Client) -> None:
    assert add_provider(operator).status_code == 302
    provider = Provider.objects.get(name="backup")
    stored = provider.credentials.get()
    assert decrypt(stored.ciphertext) == SECRET
    assert SECRET.encode() not in bytes(stored.ciphertext)
    for url in (f"/admin/routing/provider/{provider.pk}/change/", "/admin/routing/provider/"):
        html = operator.get(url).content.decode()
        assert SECRET not in html
        assert "…2345" in html


def test_an_empty_credential_field_keeps_what_is_stored(operator: Client) -> None:
    add_provider(operator)
    provider = Provider.objects.get(name="backup")
    operator.post(
        f"/admin/routing/provider/{provider.pk}/change/",
        {**PROVIDER, "idle_timeout": "45", "credentials": ""},
    )
    provider.refresh_from_db()
    assert provider.idle_timeout == 45
    assert decrypt(provider.credentials.get().ciphertext) == SECRET


def test_a_change_has_its_audit_entry(operator: Client) -> None:
    add_provider(operator)
    with scopes_disabled():
        entry = AuditEntry.objects.get(target_type="provider", verb="created")
    assert entry.actor is not None
    assert entry.actor.email == "olga@platform.example"


def test_what_a_service_refuses_is_said_and_not_saved(operator: Client) -> None:
    add_provider(operator)
    provider = Provider.objects.get(name="backup")
    Deployment.objects.create(name="small", provider=provider, model="m")
    response = operator.post(f"/admin/routing/provider/{provider.pk}/delete/", {"post": "yes"}, follow=True)
    assert response.status_code == 200
    assert Provider.objects.filter(name="backup").exists()


def test_a_model_group_gets_its_deployments_in_order(operator: Client) -> None:
    add_provider(operator)
    provider = Provider.objects.get(name="backup")
    small, large = (
        Deployment.objects.create(name=name, provider=provider, model=name) for name in ("small", "large")
    )
    set_price(acting_user=None, deployment=small, input=Decimal(1))
    response = operator.post(
        "/admin/routing/modelgroup/add/",
        {
            "name": "fast",
            "strategy": "priority",
            "fallbacks": "{}",
            "rules": "[]",
            "structured_output": "repair",
            "unsupported_params": "map",
            "members-TOTAL_FORMS": "2",
            "members-INITIAL_FORMS": "0",
            "members-0-deployment": str(small.pk),
            "members-0-priority": "2",
            "members-0-weight": "1",
            "members-1-deployment": str(large.pk),
            "members-1-priority": "1",
            "members-1-weight": "3",
        },
    )
    assert response.status_code == 302
    group = ModelGroup.objects.get(name="fast")
    placed = list(group.members.values_list("deployment__name", "priority", "weight"))
    assert placed == [("large", 1, 3), ("small", 2, 1)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fallbacks": '{"on_eror": []}'}, "allbacks.on_eror: is not a known field"),
        ({"fallbacks": '{"on_error": ["nowhere"]}'}, "which is not a model group"),
        ({"fallbacks": '{"on_error": ["fast"]}'}, "goes in a circle"),
        ({"rules": '[{"when": {"plan": "none"}, "deployments": ["small"]}]'}, "there is no plan"),
        (
            {
                "rules": '[{"when": {"needs": ["tools"]}, "deployments": ["small"]}, '
                '{"when": {"needs": ["tools"]}, "deployments": ["small"]}]'
            },
            "is never reached",
        ),
        ({"members-0-deployment": "large"}, "has a price"),
    ],
)
def test_a_model_group_that_could_not_work_is_refused_with_the_reason(
    operator: Client, fields: dict[str, str], said: str
) -> None:
    add_provider(operator)
    provider = Provider.objects.get(name="backup")
    made = {
        name: Deployment.objects.create(name=name, provider=provider, model=name)
        for name in ("small", "large")
    }
    set_price(acting_user=None, deployment=made["small"], input=Decimal(1))
    sent = {
        "name": "fast",
        "strategy": "priority",
        "fallbacks": "{}",
        "rules": "[]",
        "structured_output": "repair",
        "unsupported_params": "map",
        "members-TOTAL_FORMS": "1",
        "members-INITIAL_FORMS": "0",
        "members-0-deployment": "small",
        "members-0-priority": "1",
        "members-0-weight": "1",
        **fields,
    }
    sent["members-0-deployment"] = str(made[sent["members-0-deployment"]].pk)
    response = operator.post("/admin/routing/modelgroup/add/", sent, follow=True)
    page = html.unescape(response.content.decode())
    assert said in page
    assert not ModelGroup.objects.exists()


def test_a_new_organization_has_its_owner_and_its_money(operator: Client) -> None:
    response = operator.post(
        "/admin/tenants/organization/add/",
        {
            "slug": "newco",
            "name": "Newco",
            "time_zone": "UTC",
            "billing": "prepaid",
            "markup": "0",
            "first_owner": "nina@newco.example",
            "top_up": "25.50",
            "reference": "wire-1",
        },
    )
    assert response.status_code == 302
    with scopes_disabled():
        organization = Organization.objects.get(slug="newco")
        assert Membership.objects.get(organization=organization).role == "owner"
        assert Budget.objects.get(organization=organization, quota=None).limit == Decimal("25.50")


def test_an_organization_is_suspended_and_resumed(operator: Client, acme: Cast, sign_in: SignIn) -> None:
    chosen = {"_selected_action": str(acme.organization.pk)}
    operator.post("/admin/tenants/organization/", {**chosen, "action": "suspend"})
    assert sign_in(acme.ann).get("/o/acme/").status_code == 404
    operator.post("/admin/tenants/organization/", {**chosen, "action": "resume"})
    assert sign_in(acme.ann).get("/o/acme/").status_code == 200
