"""Who pays in a drill: a provider with one model, and organizations with the limits to be tried."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

from billing.services.prices import set_price
from billing.services.quotas import set_quota
from billing.services.wallet import top_up
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider
from tenants.models import Organization, Team
from tenants.permissions import Role
from tenants.services.keys import create_key
from tenants.services.members import add_member
from tenants.services.organizations import create_organization
from tenants.services.teams import create_team

MODEL = "sim-small"
LIMIT = Decimal("1.00")
# US dollars per million tokens. Input is cheap, so that a request costs nearly what is reserved for it:
# the bound on the input is its bytes, while the simulator counts words.
COST: dict[str, Any] = {"input": Decimal("0.10"), "output": Decimal(10)}
PRICE: dict[str, Any] = {"input": Decimal("0.20"), "output": Decimal(20)}


@dataclass(frozen=True, slots=True)
class Payer:
    """An organization and the secrets of its keys. ``end_user`` is named in each request, if not empty."""

    organization: Organization
    secrets: list[str]
    end_user: str = ""


def make_provider(url: str) -> None:
    """The simulator at ``url``, with ``MODEL`` priced and offered to everyone."""
    provider = create_provider(
        acting_user=None, name="simulator", kind="simulator", base_url=url, first_token_timeout=20
    )
    deployment = create_deployment(acting_user=None, name=MODEL, provider=provider, model=MODEL)
    set_price(acting_user=None, deployment=deployment, **COST)
    group = create_model_group(acting_user=None, name=MODEL, places=[Place(deployment)])
    set_price(acting_user=None, model_group=group, **PRICE)


def _organization(name: str, **terms: Any) -> tuple[Organization, Team]:
    slug = f"{name}-{uuid4().hex[:6]}"
    organization = create_organization(acting_user=None, slug=slug, name=slug, **terms)
    return organization, create_team(acting_user=None, organization=organization, slug="team", name="Team")


def _secrets(team: Team, count: int) -> list[str]:
    return [create_key(acting_user=None, team=team, name=f"key-{number}")[1] for number in range(count)]


def key_budget() -> Payer:
    """One key with a hard budget of ``LIMIT``."""
    organization, team = _organization("key")
    key, secret = create_key(acting_user=None, team=team, name="key")
    set_quota(acting_user=None, scope="key", target=key, metric="budget", limit=LIMIT, period="month")
    return Payer(organization, [secret])


def team_budget() -> Payer:
    """Fifty keys of a team that has a budget of ``LIMIT`` altogether."""
    organization, team = _organization("team")
    set_quota(acting_user=None, scope="team", target=team, metric="budget", limit=LIMIT, period="month")
    return Payer(organization, _secrets(team, 50))


def end_user_budget() -> Payer:
    """An end user nobody knows yet, who gets the default budget of ``LIMIT``."""
    organization, team = _organization("enduser")
    set_quota(
        acting_user=None, scope="end_user", target=organization, metric="budget", limit=LIMIT, period="month"
    )
    return Payer(organization, _secrets(team, 4), end_user=f"user-{uuid4().hex[:8]}")


def prepaid_wallet() -> Payer:
    """An organization that has paid ``LIMIT`` in advance."""
    organization, team = _organization("wallet", billing="prepaid")
    top_up(acting_user=None, organization=organization, amount=LIMIT, reference=organization.slug)
    return Payer(organization, _secrets(team, 4))


def everything() -> Payer:
    """Every kind of limit at once, all of them wide: for drills that are about losing, not refusing."""
    wide = Decimal(1000)
    organization, team = _organization("wide", billing="prepaid")
    owner = add_member(
        acting_user=None, organization=organization, email=f"o@{organization.slug}.example", role=Role.OWNER
    )
    top_up(acting_user=None, organization=organization, amount=wide, reference=organization.slug)
    key, secret = create_key(acting_user=None, team=team, name="key", owner=owner)
    for scope, target in (("team", team), ("key", key), ("member", owner), ("end_user", organization)):
        set_quota(acting_user=None, scope=scope, target=target, metric="budget", limit=wide, period="day")
    set_quota(acting_user=None, scope="key", target=key, metric="concurrency", limit=5000)
    set_quota(acting_user=None, scope="team", target=team, metric="requests_per_minute", limit=1_000_000)
    return Payer(organization, [secret], end_user="somebody")


def nothing() -> Payer:
    """No limit and no wallet: nothing has to be leased for its requests."""
    organization, team = _organization("free", billing="postpaid")
    return Payer(organization, _secrets(team, 1))
