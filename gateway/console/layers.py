"""The layers of limits as people see them: who sets them, what is used, when it begins anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from django.db.models import Q
from django_scopes import scopes_disabled

from billing.calendars import period_bounds
from billing.models import Budget, Quota
from billing.reports import totals_for
from gateway.console import keyring
from gateway.console.gauges import used_now
from tenants.access import TenantAccess
from tenants.models import ApiKey, Membership, Team
from tenants.permissions import Permission

Target = Team | ApiKey | Membership | None


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One budget. Amounts are US dollars; None where this person may not know (or, ``left``, where nothing binds)."""

    quota: Quota
    spent: Decimal | None
    held: Decimal | None
    resets_at: datetime | None
    # What holds at the moment: the quota's limit, or what it is raised to.
    limit: Decimal

    @property
    def left(self) -> Decimal | None:
        """What may still be spent; never below zero."""
        if self.spent is None or self.held is None:
            return None
        left: Decimal = self.limit - self.spent - self.held
        return max(left, Decimal(0))


@dataclass(frozen=True, slots=True)
class RateLine:
    """One limit on requests, tokens or concurrency. ``used`` is None where it is not known or not to be seen."""

    quota: Quota
    used: int | None
    limit: Decimal

    @property
    def left(self) -> int | None:
        """How much fits right now; never below zero."""
        return None if self.used is None else max(int(self.limit) - self.used, 0)


@dataclass(slots=True)
class Layer:
    """The limits set at one place: a plan, the organization, a team, a member, a key, or each end user.

    ``groups`` are the limits there on one model group each, by its name.
    """

    scope: str
    name: str
    target: Target = None
    editable: bool = False
    rates: dict[str, RateLine] = field(default_factory=dict)
    budgets: list[BudgetLine] = field(default_factory=list)
    model_group: str = ""
    groups: dict[str, Layer] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The id of the layer's row: its anchor, and the model group it is about."""
        return f"{self.anchor}-for-{self.model_group}" if self.model_group else self.anchor

    def of_group(self, name: str) -> Layer:
        """The part of this layer about one model group, made if it is not there."""
        if not name:
            return self
        if name not in self.groups:
            self.groups[name] = Layer(
                self.scope, f"{self.name} for {name}", self.target, self.editable, model_group=name
            )
        return self.groups[name]

    @property
    def parts(self) -> list[Layer]:
        """Itself, and its parts about one model group each."""
        return [self, *(self.groups[name] for name in sorted(self.groups))]

    @property
    def anchor(self) -> str:
        """The layer in addresses and as an element's id: ``organization``, ``team-3``, ``key-17``."""
        return f"{self.scope}-{self.target.pk}" if self.target is not None else self.scope

    @property
    def empty(self) -> bool:
        """Whether this layer limits nothing."""
        return not self.rates and not self.budgets and not self.groups


def _usage(quota: Quota) -> Q:
    """Which of the organization's usage counts towards ``quota``."""
    found = Q(model_group=quota.model_group) if quota.model_group else Q()
    if quota.scope == "team":
        return found & Q(team_id=quota.team_id)
    if quota.scope == "member":
        return found & Q(member_id=quota.member_id)
    return found & Q(key_id=quota.key_id) if quota.scope == "key" else found


class Counters:
    """The counters of one organization: of its budgets in their current periods, and of its rate limits."""

    def __init__(self, tenant: TenantAccess, quotas: list[Quota], at: datetime) -> None:
        self.tenant, self.at = tenant, at
        self.used = used_now([*quotas, *plan_quotas(tenant)], tenant.organization.pk)
        self.rows = {
            (row.quota_id, row.period_start): row
            for row in Budget.objects.filter(quota__isnull=False, subject="").filter(
                Q(period_end__isnull=True) | Q(period_end__gt=at)
            )
        }

    def line(self, quota: Quota, *, visible: bool) -> BudgetLine:
        """``quota`` with what its counter says; until it has one, with what the hourly sums say."""
        start, end = period_bounds(quota.period, self.at, self.tenant.organization.time_zone)
        limit = quota.limit_at(self.at)
        if not visible or quota.scope == "end_user":
            return BudgetLine(quota, None, None, end, limit)
        row = self.rows.get((quota.pk, start))
        if row is not None:
            return BudgetLine(quota, row.spent, row.held, end, limit)
        used = totals_for(self.tenant.organization, start, self.at, _usage(quota))
        return BudgetLine(quota, used.charge, Decimal(0), end, limit)

    def fill(self, layer: Layer, quotas: Iterable[Quota], *, visible: bool) -> Layer:
        """Put ``quotas`` into ``layer``, budgets in the order of their periods."""
        for quota in quotas:
            part = layer.of_group(quota.model_group)
            if quota.metric == "budget":
                part.budgets.append(self.line(quota, visible=visible))
            else:
                used = self.used.get(quota.pk) if visible else None
                part.rates[quota.metric] = RateLine(quota, used, quota.limit_at(self.at))
        order = ["day", "week", "month", "total"]
        for part in layer.parts:
            part.budgets.sort(key=lambda line: order.index(line.quota.period))
        return layer


def anchor_of(quota: Quota) -> str:
    """The anchor of the layer that ``quota`` is a limit of."""
    number = quota.team_id or quota.member_id or quota.key_id
    return f"{quota.scope}-{number}" if number else quota.scope


def plan_quotas(tenant: TenantAccess) -> list[Quota]:
    """The limits of the organization's plan, which belong to no organization."""
    if tenant.organization.plan_id is None:
        return []
    with scopes_disabled():
        return list(Quota.objects.filter(scope="plan", plan=tenant.organization.plan_id))


def _of(quotas: Iterable[Quota], scope: str, **place: int | str | None) -> list[Quota]:
    return [
        quota
        for quota in quotas
        if quota.scope == scope and all(getattr(quota, name) == value for name, value in place.items())
    ]


def _shared(tenant: TenantAccess, quotas: list[Quota], counters: Counters) -> list[Layer]:
    """The plan's layer, where there is a plan, and the organization's."""
    sees_all = tenant.may(Permission.VIEW_USAGE)
    found = []
    if tenant.organization.plan is not None:
        plan = Layer("plan", tenant.organization.plan.name)
        own = {(quota.metric, quota.model_group) for quota in _of(quotas, "organization")}
        # The plan's limit is the default where the organization has none of its kind.
        default = [quota for quota in plan_quotas(tenant) if (quota.metric, quota.model_group) not in own]
        found.append(counters.fill(plan, default, visible=sees_all))
    whole = Layer("organization", tenant.organization.name, editable=tenant.may(Permission.MANAGE_QUOTAS))
    found.append(counters.fill(whole, _of(quotas, "organization"), visible=sees_all))
    return found


def _team(tenant: TenantAccess, team: Team, quotas: list[Quota], counters: Counters) -> Layer:
    layer = Layer("team", team.name, team, editable=tenant.may(Permission.MANAGE_QUOTAS, team))
    visible = tenant.may(Permission.VIEW_USAGE, team)
    return counters.fill(layer, _of(quotas, "team", team_id=team.pk), visible=visible)


def _key(tenant: TenantAccess, key: ApiKey, quotas: list[Quota], counters: Counters) -> Layer:
    layer = Layer("key", key.name, key, editable=tenant.may(Permission.MANAGE_QUOTAS, key.team))
    return counters.fill(layer, _of(quotas, "key", key_id=key.pk), visible=True)


def _member(tenant: TenantAccess, member: Membership, quotas: list[Quota], counters: Counters) -> Layer:
    layer = Layer("member", member.user.email, member, editable=tenant.may(Permission.MANAGE_QUOTAS))
    return counters.fill(layer, _of(quotas, "member", member_id=member.pk), visible=True)


def binding(tenant: TenantAccess, key: ApiKey, at: datetime) -> list[Layer]:
    """The layers that bind requests with ``key``, from the widest to the narrowest; empty ones left out."""
    quotas = list(Quota.objects.all())
    counters = Counters(tenant, quotas, at)
    found = _shared(tenant, quotas, counters)
    found.append(_team(tenant, key.team, quotas, counters))
    if key.owner is not None:
        found.append(_member(tenant, key.owner, quotas, counters))
    found.append(_key(tenant, key, quotas, counters))
    return [part for layer in found for part in layer.parts if part.rates or part.budgets]


@dataclass(frozen=True, slots=True)
class Layers:
    """All layers of an organization that one person may see. ``wallet`` is None where they may not see money."""

    shared: list[Layer]
    teams: list[tuple[Layer, list[Layer]]]
    members: list[Layer]
    end_users: Layer
    wallet: Budget | None

    def every(self) -> list[Layer]:
        """All of them in one list, each without its parts about model groups."""
        keys = [layer for team, of_team in self.teams for layer in (team, *of_team)]
        return [*self.shared, self.end_users, *keys, *self.members]


def all_layers(tenant: TenantAccess, at: datetime, *, also: str = "", model_group: str = "") -> Layers:
    """Every layer to be shown, keys under their team. What has no limits is left out, but for ``also``
    and its part about ``model_group``."""
    quotas = list(Quota.objects.all())
    counters = Counters(tenant, quotas, at)
    everywhere = tenant.may(Permission.VIEW_USAGE) or tenant.may(Permission.MANAGE_QUOTAS)
    teams = Team.objects.order_by("name")
    if not everywhere:
        teams = teams.filter(pk__in=tenant.team_roles)
    limited = {quota.key_id for quota in quotas if quota.scope == "key"}
    keys = keyring.visible_keys(tenant).filter(revoked_at__isnull=True, successor__isnull=True)
    by_team: dict[int, list[Layer]] = {}
    for key in keys.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=at)).order_by("name"):
        if key.pk in limited or also == f"key-{key.pk}":
            by_team.setdefault(key.team_id, []).append(_key(tenant, key, quotas, counters))
    shown_members = {quota.member_id for quota in quotas if quota.member_id is not None}
    if not everywhere:
        shown_members &= {tenant.membership.pk}
    scope, _, number = also.partition("-")
    if scope == "member" and number.isdecimal():
        shown_members.add(int(number))
    members = Membership.objects.select_related("user").filter(pk__in=shown_members).order_by("user__email")
    wallet = None
    if tenant.may(Permission.VIEW_MONEY):
        wallet = Budget.objects.filter(quota__isnull=True, subject="").first()
    end_users = counters.fill(
        Layer("end_user", "Each end user", editable=tenant.may(Permission.MANAGE_QUOTAS)),
        _of(quotas, "end_user", end_user=""),
        visible=False,
    )
    found = Layers(
        _shared(tenant, quotas, counters),
        [(_team(tenant, team, quotas, counters), by_team.get(team.pk, [])) for team in teams],
        [_member(tenant, member, quotas, counters) for member in members],
        end_users,
        wallet,
    )
    for layer in found.every():
        if layer.anchor == also:
            layer.of_group(model_group)
    return found


def limitable_members(tenant: TenantAccess) -> list[Membership]:
    """Members without a limit of their own, if this person may give them one."""
    if not tenant.may(Permission.MANAGE_QUOTAS):
        return []
    members = Membership.objects.select_related("user").exclude(quotas__isnull=False)
    return list(members.order_by("user__email"))


def limitable_keys(tenant: TenantAccess, at: datetime) -> list[ApiKey]:
    """Working keys without a limit of their own to which this person may give one."""
    keys = keyring.visible_keys(tenant).filter(revoked_at__isnull=True, successor__isnull=True)
    keys = keys.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=at))
    teams = tenant.teams_with(Permission.MANAGE_QUOTAS)
    if teams is not None:
        keys = keys.filter(team__in=teams)
    return list(keys.exclude(quotas__isnull=False).order_by("team__name", "name"))
