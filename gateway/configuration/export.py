"""Writing the database as a configuration file, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import yaml
from django_scopes import scope

from billing.calendars import midnight, zone
from billing.models import ExchangeRate, Price
from billing.money import plain
from billing.services.prices import price_in_force
from billing.services.quotas import Target
from gateway.configuration.quota_blocks import Limit, limit_of, stored_quotas
from gateway.configuration.tenant_sections import opening_balance
from routing.kinds import KINDS
from routing.models import Deployment, ModelGroup, Provider
from tenants.models import ApiKey, Membership, Organization, Plan, Team, TeamMembership

HEADER = """\
# Written by `manage.py export`. Secrets are not in it: set the variables it names before applying it.
"""


class Quoted(str):
    """A string that is written in quotes."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: ARG002 - the base's signature
        """Lists are indented below their field."""
        return super().increase_indent(flow, False)


_Dumper.add_representer(
    Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)
_Dumper.add_representer(str, lambda dumper, text: dumper.represent_str(text.replace("${", "$${")))


def variable(provider: str, number: int, taken: set[str]) -> str:
    """A name for the environment variable of a provider's credential, unlike those ``taken``."""
    words = re.sub(r"[^A-Z0-9]+", "_", provider.upper()).strip("_")
    base = f"{words}_API_KEY" if words[:1].isalpha() else f"PROVIDER_{words}_API_KEY"
    name, count = (base, 1) if number == 0 else (f"{base}_{number + 1}", number + 1)
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name


def _money(amount: Decimal) -> Quoted:
    return Quoted(plain(amount))


def _share(value: Decimal) -> Quoted:
    return Quoted(f"{value.normalize():f}")


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that say something: not None, and no empty list or mapping."""
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {})}


def _provider(provider: Provider, taken: set[str]) -> dict[str, Any]:
    stored = {
        "connect": (provider.connect_timeout, 5),
        "first_token": (provider.first_token_timeout, 60),
        "idle": (provider.idle_timeout, 30),
        "total": (provider.total_timeout, 600),
    }
    count = provider.credentials.count()
    return _given(
        name=provider.name,
        kind=provider.kind,
        base_url=provider.base_url if provider.base_url != KINDS[provider.kind].base_url else None,
        credentials=[Quoted("${" + variable(provider.name, number, taken) + "}") for number in range(count)],
        timeouts={name: value for name, (value, default) in stored.items() if value != default},
    )


def _price(price: Price | None) -> dict[str, Any] | None:
    if price is None:
        return None
    found = {name: value for name, value in price.terms().items() if value is not None and value != []}
    return {
        name: [_quoted(each) for each in value] if isinstance(value, list) else _money(value)
        for name, value in found.items()
    }


def _quoted(members: dict[str, Any]) -> dict[str, Any]:
    """A tier or peak hours; its strings are amounts and times, which YAML must not take for numbers."""
    return {name: Quoted(value) if isinstance(value, str) else value for name, value in members.items()}


def _own_prices(organization: Organization) -> dict[str, Any]:
    groups = ModelGroup.objects.filter(prices__organization=organization).distinct().order_by("name")
    found = {
        group.name: _price(price_in_force(model_group=group, organization=organization)) for group in groups
    }
    return {name: price for name, price in found.items() if price is not None}


def _deployment(deployment: Deployment, cost: Price) -> dict[str, Any]:
    found = _given(
        name=deployment.name,
        provider=deployment.provider.name,
        model=deployment.model,
        context_window=deployment.context_window,
        max_output_tokens=deployment.max_output_tokens,
        region=deployment.region or None,
    )
    # An empty list is not the same as none.
    if deployment.capabilities is not None:
        found["capabilities"] = list(deployment.capabilities)
    return {**found, "cost": _price(cost)}


def _group(group: ModelGroup) -> dict[str, Any]:
    return _given(
        name=group.name,
        strategy=group.strategy,
        deployments=[
            {"name": row.deployment.name, "priority": row.priority, "weight": row.weight}
            for row in group.members.select_related("deployment").order_by("pk")
        ],
        fallbacks={reason: names for reason, names in group.fallbacks.items() if names},
        rules=group.rules,
        max_cost=_money(group.max_cost) if group.max_cost is not None else None,
        regions=group.regions,
        pin=None if group.pin else False,
        affinity=None if group.affinity else False,
        hedge=group.hedge or None,
        resume=group.resume or None,
        structured_output=None if group.structured_output == "repair" else group.structured_output,
        validate_tools=group.validate_tools or None,
        unsupported_params=None if group.unsupported_params == "map" else group.unsupported_params,
        price=_price(price_in_force(model_group=group)),
    )


def _quotas(scope_name: str, target: Target) -> dict[str, Any]:
    by_group: dict[str, dict[tuple[str, str], Limit]] = {}
    for (group, metric, period), row in stored_quotas(scope_name, target).items():
        by_group.setdefault(group, {})[metric, period] = limit_of(row)
    found = _limits(by_group.pop("", {}))
    if by_group:
        found["model_groups"] = {group: _limits(limits) for group, limits in by_group.items()}
    return found


def _limits(limits: dict[tuple[str, str], Limit]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    budgets = []
    for (metric, period), limit in limits.items():
        if metric != "budget":
            found[metric] = int(limit.amount)
            continue
        budget: dict[str, Any] = {"amount": _money(limit.amount), "period": period}
        if not limit.hard:
            budget["hard"] = False
        if limit.alert_at:
            budget["alert_at"] = [_share(share) for share in limit.alert_at]
        budgets.append(budget)
    if budgets:
        found["budget"] = budgets[0] if len(budgets) == 1 else budgets
    return found


def _with_groups(found: dict[str, Any], names: Iterable[str] | None) -> dict[str, Any]:
    """An empty list of model groups allows none, so it is written; None allows all and is not."""
    if names is not None:
        found["model_groups"] = list(names)
    return found


def _expiry(at: datetime | None, time_zone: str) -> date | str | None:
    """The date whose end ``at`` is in ``time_zone``; the moment itself where it is no day's end."""
    if at is None:
        return None
    day = at.astimezone(zone(time_zone)).date()
    if midnight(day, time_zone) == at:
        return day - timedelta(days=1)
    return at.astimezone(UTC).isoformat()


def _key(key: ApiKey, organization: Organization) -> dict[str, Any]:
    found = _given(
        name=key.name,
        owner=key.owner.user.email if key.owner is not None else None,
        expires_at=_expiry(key.expires_at, organization.time_zone),
    )
    if key.allowed_ips is not None:
        found["allowed_ips"] = list(key.allowed_ips)
    return {**_with_groups(found, key.model_groups), **_given(quotas=_quotas("key", key))}


def _team(team: Team, organization: Organization) -> dict[str, Any]:
    members = TeamMembership.objects.filter(team=team).select_related("membership__user")
    keys = ApiKey.objects.filter(team=team, revoked_at__isnull=True, successor__isnull=True)
    found = _with_groups({"slug": team.slug, "name": team.name}, team.model_groups)
    return {
        **found,
        **_given(
            quotas=_quotas("team", team),
            members=[
                {"email": row.membership.user.email, "role": row.role}
                for row in members.order_by("membership__user__email")
            ],
            keys=[_key(key, organization) for key in keys.select_related("owner__user").order_by("name")],
        ),
    }


def _organization(organization: Organization) -> dict[str, Any]:
    with scope(organization=organization):
        balance = opening_balance(organization)
        limit = organization.credit_limit
        found = _given(
            slug=organization.slug,
            name=organization.name,
            plan=organization.plan.name if organization.plan is not None else None,
            time_zone=organization.time_zone,
            billing=organization.billing,
            credit_limit=_money(limit) if limit is not None else None,
            balance=_money(balance) if balance is not None else None,
            markup=_share(organization.markup) if organization.markup else None,
            lower_max_tokens=organization.lower_max_tokens or None,
            store_responses=organization.store_responses or None,
            keep_details_days=organization.keep_details_days,
            log_content=organization.log_content or None,
            content_days=organization.content_days if organization.content_days != 30 else None,
            regions=organization.regions,
            hidden_headers=organization.hidden_headers,
            cors_origins=organization.cors_origins,
            currency=organization.currency if organization.currency != "USD" else None,
            prices=_own_prices(organization),
        )
        members = Membership.objects.select_related("user").order_by("user__email")
        return {
            **_with_groups(found, organization.model_groups),
            **_given(
                quotas=_quotas("organization", organization),
                end_user_quotas=_quotas("end_user", organization),
                users=[
                    _given(email=row.user.email, role=row.role, quotas=_quotas("member", row))
                    for row in members
                ],
                teams=[_team(team, organization) for team in Team.objects.order_by("slug")],
            ),
        }


def _exchange_rate(row: ExchangeRate) -> dict[str, Any]:
    begins = row.effective_from.astimezone(UTC)
    whole_day = midnight(begins.date(), "UTC") == begins
    return {
        "currency": row.currency,
        "rate": _share(row.rate),
        "effective_from": begins.date() if whole_day else begins.isoformat(),
    }


def export() -> str:
    """The database as the text of a configuration file.

    Left out, with a comment: deployments without a price (the file wants one) and suspended
    organizations (the file would make them anew somewhere else).
    """
    taken: set[str] = set()
    remarks: list[str] = []
    deployments = []
    for deployment in Deployment.objects.select_related("provider").order_by("name"):
        cost = price_in_force(deployment=deployment)
        if cost is None:
            remarks.append(f"# The deployment {deployment.name} has no price and is left out.\n")
        else:
            deployments.append(_deployment(deployment, cost))
    organizations = []
    for organization in Organization.objects.select_related("plan").order_by("slug"):
        if organization.suspended_at is not None:
            remarks.append(f"# The organization {organization.slug} is suspended and is left out.\n")
        else:
            organizations.append(_organization(organization))
    document = {
        "exchange_rates": [
            _exchange_rate(row) for row in ExchangeRate.objects.order_by("currency", "effective_from")
        ],
        "providers": [_provider(row, taken) for row in Provider.objects.order_by("name")],
        "deployments": deployments,
        "model_groups": [_group(row) for row in ModelGroup.objects.order_by("name")],
        "plans": [
            {**_with_groups({"name": row.name}, row.model_groups), **_given(quotas=_quotas("plan", row))}
            for row in Plan.objects.order_by("name")
        ],
        "organizations": organizations,
    }
    text = yaml.dump(
        {name: blocks for name, blocks in document.items() if blocks},
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=110,
    )
    return HEADER + "".join(remarks) + ("\n" + text if any(document.values()) else "")
