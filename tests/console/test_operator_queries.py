"""How many queries each page of the operator area makes: as committed here, however many rows there are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django_scopes import scopes_disabled

from billing.models import DeadLetter, ReconcileReport, TaskRun
from billing.services.prices import set_price
from billing.services.wallet import top_up
from gateway.models import UsageCheck
from gateway.operators import urls
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider
from tenants.models import Organization, User
from tenants.permissions import Role
from tests.billing.made_usage import make_member, make_tenant, rollup

pytestmark = pytest.mark.django_db

# Two of each are the session and the person. What workers read (gateway.explanation.picture) goes past
# Django and is not counted: its seven queries ask for whole tables.
QUERIES = {
    "tenants": 7,
    "tenants_csv": 6,
    "tenant": 14,
    "health": 3,
    "margin": 4,
    "margin_csv": 4,
    "accounting": 4,
    "accounting_csv": 4,
    "providers": 4,
    "providers_csv": 4,
    "provider": 5,
    "deployments": 5,
    "deployments_csv": 5,
    "deployment": 7,
    "deployment_prices": 4,
    "model_groups": 5,
    "model_groups_csv": 5,
    "model_group": 6,
    "price_sync": 4,
    "work": 4,
    "reconcile": 4,
    "reconcile_report": 3,
    "reconcile_csv": 3,
    "dead_letters": 3,
    "dead_letters_csv": 3,
    "dead_letter": 4,
}
# Addresses that only take a POST.
SENT = {"tenant_standing", "tenant_visit", "tenant_sign_in", "tenant_domain"}


@pytest.fixture(autouse=True)
def everywhere() -> Iterator[None]:
    with scopes_disabled():
        yield


def more(number: int) -> None:
    """One more of everything a page lists, and one more part of the first of each."""
    tenant = make_tenant(f"t{number:02}")
    top_up(acting_user=None, organization=tenant.organization, amount=Decimal(5), reference=f"r{number}")
    provider = create_provider(
        acting_user=None,
        name=f"p{number:02}",
        kind="openai",
        base_url="http://127.0.0.1:9/v1",
        credentials=["sk-provider-0123456789abcdef"],
    )
    # Known to the catalogue, so that a price is proposed.
    deployment = create_deployment(
        acting_user=None, name=f"d{number:02}", provider=provider, model="gpt-4o-mini"
    )
    set_price(acting_user=None, deployment=deployment, input=Decimal(1), output=Decimal(2))
    create_model_group(acting_user=None, name=f"g{number:02}", places=[Place(deployment)])
    hour = datetime.now(UTC).strftime("%Y-%m-%dT%H:00")
    rollup(tenant.batch, hour, "2", deployment=deployment.name)
    TaskRun.objects.create(name=f"task{number}", started_at=datetime.now(UTC))
    UsageCheck.objects.create(
        deployment=deployment.name,
        day=datetime.now(UTC).date(),
        requests=1,
        reported_input=10,
        reported_output=5,
        counted_input=10,
        counted_output=5,
        worst_ratio=1,
    )
    DeadLetter.objects.create(record="{}", reason="refused once")
    ReconcileReport.objects.create(balanced=True)
    if number:
        make_member(Organization.objects.get(slug="t00"), f"m{number}@t00.example", Role.OWNER)
        first = Provider.objects.get(name="p00")
        GroupDeployment.objects.create(group=ModelGroup.objects.get(name="g00"), deployment=deployment)
        create_deployment(acting_user=None, name=f"e{number:02}", provider=first, model="gpt-4o")
        place = Place(Deployment.objects.get(name="d00"))
        create_model_group(acting_user=None, name=f"h{number:02}", places=[place])


def addresses() -> dict[str, str]:
    letter, report = DeadLetter.objects.earliest("pk"), ReconcileReport.objects.earliest("pk")
    of: dict[str, list[object]] = {
        "tenant": ["t00"],
        "provider": ["p00"],
        "deployment": ["d00"],
        "deployment_prices": ["d00"],
        "model_group": ["g00"],
        "reconcile_report": [report.pk],
        "reconcile_csv": [report.pk],
        "dead_letter": [letter.pk],
    }
    return {name: reverse(f"operator:{name}", args=of.get(name, [])) for name in QUERIES}


def counted(client: Client) -> dict[str, int]:
    found = {}
    for name, address in addresses().items():
        with CaptureQueriesContext(connection) as queries:
            assert client.get(address).status_code == 200, name
        found[name] = len(queries)
    return found


def test_every_page_has_a_row() -> None:
    assert {getattr(pattern, "name", "") for pattern in urls.urlpatterns} == QUERIES.keys() | SENT


def test_each_page_makes_the_committed_queries_however_many_rows_there_are() -> None:
    client = Client()
    client.force_login(User.objects.create_user("olga@platform.example", is_staff=True))
    more(0)
    assert counted(client) == QUERIES
    for number in range(1, 9):
        more(number)
    assert counted(client) == QUERIES
