"""Who calls in the measurement: a tenant with every check on, none of which ever refuses.

Run as ``python -m gateway.bench.tenant PROVIDER_URL`` on a migrated scratch database; prints the API
keys as JSON.
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gateway.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from tenants.models import ApiKey, Organization, Team

REQUESTS_PER_MINUTE = 10_000_000
BUDGET = Decimal(10_000_000)
# US dollars per million tokens.
COST: dict[str, Any] = {"input": Decimal("1.00"), "cached_input": Decimal("0.10"), "output": Decimal("4.00")}
PRICE: dict[str, Any] = {"input": Decimal("2.00"), "cached_input": Decimal("0.20"), "output": Decimal("8.00")}


def make(provider_url: str) -> dict[str, str]:
    """Make provider, model groups and tenants; returns an API key of each tenant.

    ``limited`` has a quota of requests, a team's budget and a prepaid wallet; ``unlimited`` has none.
    """
    from billing.services.prices import set_price
    from billing.services.quotas import set_quota
    from billing.services.wallet import top_up
    from routing.services.deployments import create_deployment
    from routing.services.groups import Place, create_model_group
    from routing.services.providers import create_provider
    from tenants.permissions import Role
    from tenants.services.keys import create_key
    from tenants.services.members import add_member
    from tenants.services.organizations import create_organization
    from tenants.services.teams import create_team

    provider = create_provider(acting_user=None, name="simulator", kind="simulator", base_url=provider_url)
    for model in {workload.model for workload in WORKLOADS}:
        deployment = create_deployment(acting_user=None, name=model, provider=provider, model=model)
        set_price(acting_user=None, deployment=deployment, **COST)
        # The client's bytes are the same whoever answers, so the group has the model's own name.
        group = create_model_group(acting_user=None, name=model, places=[Place(deployment)])
        set_price(acting_user=None, model_group=group, **PRICE)

    def key_of(slug: str, **terms: Any) -> tuple[Organization, Team, ApiKey, str]:
        organization = create_organization(acting_user=None, slug=slug, name=slug, **terms)
        owner = add_member(
            acting_user=None, organization=organization, email=f"owner@{slug}.example", role=Role.OWNER
        )
        team = create_team(acting_user=None, organization=organization, slug="team", name="Team")
        return organization, team, *create_key(acting_user=None, team=team, name="key", owner=owner)

    organization, team, key, limited = key_of("limited", billing="prepaid")
    top_up(acting_user=None, organization=organization, amount=BUDGET, reference="bench")
    set_quota(acting_user=None, scope="team", target=team, metric="budget", limit=BUDGET, period="month")
    set_quota(
        acting_user=None, scope="key", target=key, metric="requests_per_minute", limit=REQUESTS_PER_MINUTE
    )
    *_, unlimited = key_of("unlimited", billing="postpaid")
    return {"limited": limited, "unlimited": unlimited}


def main() -> None:
    """Make the tenants in the database of the settings."""
    import django

    django.setup()
    json.dump(make(sys.argv[1]), sys.stdout)


if __name__ == "__main__":
    main()
