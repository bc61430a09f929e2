"""The layers of limits as people see them: who sets them, what is used, when it begins anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar

from django.db.models import Q, QuerySet
from django_scopes import scopes_disabled

from billing.calendars import period_bounds
from billing.models import Budget, Quota
from billing.sums import HOUR, Sums, grouped, hour_floor
from gateway.console import keyring
from gateway.console.gauges import used_now
from tenants.access import TenantAccess
from tenants.models import ApiKey, Membership, Team
from tenants.permissions import Permission

Target = Team | ApiKey | Membership | None
Row = TypeVar("Row", ApiKey, Membership)


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


# Scopes whose budgets each count the usage of one of many.
ONE_OF_MANY: tuple[Literal["team", "member", "key"], ...] = ("team", "member", "key")


def _summed_with(quota: Quota) -> tuple[str, str, bool]:
    """What one question to the sums answers together: whose, since when, and whether by model group."""
    by = quota.scope if quota.scope in ONE_OF_MANY else ""
    return by, quota.period, bool(quota.model_group)


class Counters:
    """The counters of one organization: of its budgets in their current periods, and of its rate limits.

    What has no counter yet is summed for all ``quotas`` of a scope and period at once, so that the queries
    do not grow with the quotas.
    """

    def __init__(self, tenant: TenantAccess, quotas: list[Quota], at: datetime) -> None:
        self.tenant, self.at = tenant, at
        self.plan = plan_quotas(tenant)
        self._of: dict[tuple[str, int | None], list[Quota]] = {}
        self._alike: dict[tuple[str, str, bool], list[Quota]] = {}
        for quota in quotas:
            number = quota.team_id or quota.member_id or quota.key_id
            self._of.setdefault((quota.scope, number), []).append(quota)
        for quota in (*quotas, *self.plan):
            if quota.metric == "budget":
                self._alike.setdefault(_summed_with(quota), []).append(quota)
        self._bounds: dict[str, tuple[datetime, datetime | None]] = {}
        self._sums: dict[tuple[str, str, bool], dict[tuple[Any, ...], Sums]] = {}
        self.used = used_now([*quotas, *self.plan], tenant.organization.pk)
        self.rows = {
            (row.quota_id, row.period_start): row
            for row in Budget.objects.filter(quota__isnull=False, subject="").filter(
                Q(period_end__isnull=True) | Q(period_end__gt=at)
            )
        }

    def of(self, scope: str, number: int | None = None) -> list[Quota]:
        """The quotas of ``scope``, of the team, member or key with the id ``number``."""
        return self._of.get((scope, number), [])

    def line(self, quota: Quota, *, visible: bool) -> BudgetLine:
        """``quota`` with what its counter says; until it has one, with what the hourly sums say."""
        start, end = self._period(quota.period)
        limit = quota.limit_at(self.at)
        if not visible or quota.scope == "end_user":
            return BudgetLine(quota, None, None, end, limit)
        row = self.rows.get((quota.pk, start))
        if row is not None:
            return BudgetLine(quota, row.spent, row.held, end, limit)
        return BudgetLine(quota, self._charge(quota), Decimal(0), end, limit)

    def is_used(self, quota: Quota, share: Decimal) -> bool:
        """Whether at least this share of the budget of a key or member is spent; False for all other quotas."""
        if quota.key_id is None and quota.member_id is None:
            return False
        line = self.line(quota, visible=True)
        return line.spent is not None and line.spent >= line.limit * share

    def _period(self, period: str) -> tuple[datetime, datetime | None]:
        if period not in self._bounds:
            self._bounds[period] = period_bounds(period, self.at, self.tenant.organization.time_zone)
        return self._bounds[period]

    def _charge(self, quota: Quota) -> Decimal:
        """US dollars since the period of ``quota`` began, by the sums of hours."""
        place = by, _, one_group = _summed_with(quota)
        alike = self._alike[place]
        groups = sorted({each.model_group for each in alike})
        if place not in self._sums:
            where = Q(**{f"{by}_id__in": {getattr(each, f"{by}_id") for each in alike}}) if by else Q()
            start, _ = self._period(quota.period)
            series = [Q(model_group=name) for name in groups] if one_group else None
            # Whole hours: of the one under way, which may have many requests, the sums of its minutes.
            end = hour_floor(self.at) + HOUR
            self._sums[place] = grouped(self.tenant.organization, by, start, end, where=where, series=series)
        column = (getattr(quota, f"{by}_id"),) if by else ()
        group = (groups.index(quota.model_group),) if one_group else ()
        return self._sums[place].get((*column, *group), Sums()).charge

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


def _shared(tenant: TenantAccess, counters: Counters) -> list[Layer]:
    """The plan's layer, where there is a plan, and the organization's."""
    sees_all = tenant.may(Permission.VIEW_USAGE)
    found = []
    if tenant.organization.plan is not None:
        plan = Layer("plan", tenant.organization.plan.name)
        own = {(quota.metric, quota.model_group) for quota in counters.of("organization")}
        # The plan's limit is the default where the organization has none of its kind.
        default = [quota for quota in counters.plan if (quota.metric, quota.model_group) not in own]
        found.append(counters.fill(plan, default, visible=sees_all))
    whole = Layer("organization", tenant.organization.name, editable=tenant.may(Permission.MANAGE_QUOTAS))
    found.append(counters.fill(whole, counters.of("organization"), visible=sees_all))
    return found


def _team(tenant: TenantAccess, team: Team, counters: Counters) -> Layer:
    layer = Layer("team", team.name, team, editable=tenant.may(Permission.MANAGE_QUOTAS, team))
    visible = tenant.may(Permission.VIEW_USAGE, team)
    return counters.fill(layer, counters.of("team", team.pk), visible=visible)


def _key(tenant: TenantAccess, key: ApiKey, counters: Counters) -> Layer:
    layer = Layer("key", key.name, key, editable=tenant.may(Permission.MANAGE_QUOTAS, key.team))
    return counters.fill(layer, counters.of("key", key.pk), visible=True)


def _member(tenant: TenantAccess, member: Membership, counters: Counters) -> Layer:
    layer = Layer("member", member.user.email, member, editable=tenant.may(Permission.MANAGE_QUOTAS))
    return counters.fill(layer, counters.of("member", member.pk), visible=True)


def binding(tenant: TenantAccess, key: ApiKey, at: datetime) -> list[Layer]:
    """The layers that bind requests with ``key``, from the widest to the narrowest; empty ones left out."""
    bound = Q(scope="organization") | Q(team_id=key.team_id) | Q(key_id=key.pk)
    if key.owner_id is not None:
        bound |= Q(member_id=key.owner_id)
    quotas = list(Quota.objects.filter(bound))
    counters = Counters(tenant, quotas, at)
    found = _shared(tenant, counters)
    found.append(_team(tenant, key.team, counters))
    if key.owner is not None:
        found.append(_member(tenant, key.owner, counters))
    found.append(_key(tenant, key, counters))
    return [part for layer in found for part in layer.parts if part.rates or part.budgets]


@dataclass(frozen=True, slots=True)
class Layers:
    """All layers of an organization that one person may see. ``wallet`` is None where they may not see money."""

    shared: list[Layer]
    teams: list[tuple[Layer, list[Layer]]]
    members: list[Layer]
    end_users: Layer
    wallet: Budget | None
    # Whether keys or members with limits of their own were left out.
    more: bool = False

    def every(self) -> list[Layer]:
        """All of them in one list, each without its parts about model groups."""
        keys = [layer for team, of_team in self.teams for layer in (team, *of_team)]
        return [*self.shared, self.end_users, *keys, *self.members]


def _number(anchor: str, scope: str) -> int | None:
    """The id in an anchor such as ``key-17``, if it is one of ``scope``."""
    name, _, number = anchor.partition("-")
    return int(number) if name == scope and number.isdecimal() else None


def _some(rows: QuerySet[Row], most: int | None, also: int | None) -> tuple[list[Row], bool]:
    """At most the first ``most`` of ``rows``, and whether there are more; the one with the id ``also`` is
    among them if it is among ``rows``."""
    if most is None:
        return list(rows), False
    found = list(rows[: most + 1])
    more, found = len(found) > most, found[:most]
    if more and also is not None and all(row.pk != also for row in found):
        found += rows.filter(pk=also)
    return found, more


def all_layers(
    tenant: TenantAccess,
    at: datetime,
    *,
    also: str = "",
    model_group: str = "",
    search: str = "",
    most: int | None = None,
    used: Decimal | None = None,
) -> Layers:
    """Every layer to be shown, keys under their team. What has no limits is left out, but for ``also``
    and its part about ``model_group``.

    With ``search``, only teams, keys and members that it names (in the name or the e-mail address of the
    owner or member), and the teams of such keys. Of keys and of members at most the first ``most``. With
    ``used``, budgets alone, and of keys and members those with a budget of which at least this share is spent.
    """
    # Those of one end user each have pages of their own.
    asked = Quota.objects.filter(end_user="")
    quotas = list(asked if used is None else asked.filter(metric="budget"))
    counters = Counters(tenant, quotas, at)
    everywhere = tenant.may(Permission.VIEW_USAGE) or tenant.may(Permission.MANAGE_QUOTAS)
    teams = Team.objects.order_by("name")
    if not everywhere:
        teams = teams.filter(pk__in=tenant.team_roles)
    also_key, also_member = _number(also, "key"), _number(also, "member")
    wanted = quotas if used is None else [quota for quota in quotas if counters.is_used(quota, used)]
    limited = {quota.key_id for quota in wanted if quota.key_id is not None}
    if also_key is not None:
        limited.add(also_key)
    keys = keyring.visible_keys(tenant).filter(revoked_at__isnull=True, successor__isnull=True)
    keys = keys.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=at), pk__in=limited)
    if search:
        keys = keys.filter(_named(search) | Q(pk=also_key))
    found_keys, more_keys = _some(keys.order_by("team__name", "name"), most, also_key)
    by_team: dict[int, list[Layer]] = {}
    for key in found_keys:
        by_team.setdefault(key.team_id, []).append(_key(tenant, key, counters))
    if search:
        teams = teams.filter(Q(name__icontains=search) | Q(pk__in=by_team) | Q(pk=_number(also, "team")))
    shown_members = {quota.member_id for quota in wanted if quota.member_id is not None}
    if not everywhere:
        shown_members &= {tenant.membership.pk}
    if also_member is not None:
        shown_members.add(also_member)
    members = Membership.objects.select_related("user").filter(pk__in=shown_members).order_by("user__email")
    if search:
        members = members.filter(Q(user__email__icontains=search) | Q(pk=also_member))
    found_members, more_members = _some(members, most, also_member)
    wallet = None
    if tenant.may(Permission.VIEW_MONEY):
        wallet = Budget.objects.filter(quota__isnull=True, subject="").first()
    end_users = counters.fill(
        Layer("end_user", "Each end user", editable=tenant.may(Permission.MANAGE_QUOTAS)),
        counters.of("end_user"),
        visible=False,
    )
    found = Layers(
        _shared(tenant, counters),
        [(_team(tenant, team, counters), by_team.get(team.pk, [])) for team in teams],
        [_member(tenant, member, counters) for member in found_members],
        end_users,
        wallet,
        more_keys or more_members,
    )
    for layer in found.every():
        if layer.anchor == also:
            layer.of_group(model_group)
    return found


def _named(search: str) -> Q:
    """The keys that ``search`` names."""
    return (
        Q(name__icontains=search) | Q(team__name__icontains=search) | Q(owner__user__email__icontains=search)
    )


def limitable_members(tenant: TenantAccess, search: str = "") -> QuerySet[Membership]:
    """Members without a limit of their own, if this person may give them one."""
    members = Membership.objects.select_related("user").exclude(quotas__isnull=False)
    if not tenant.may(Permission.MANAGE_QUOTAS):
        return members.none()
    return members.filter(user__email__icontains=search).order_by("user__email")


def limitable_keys(tenant: TenantAccess, at: datetime, search: str = "") -> QuerySet[ApiKey]:
    """Working keys without a limit of their own to which this person may give one."""
    keys = keyring.visible_keys(tenant).filter(revoked_at__isnull=True, successor__isnull=True)
    # Thousands of them are sorted for the first few, by names alone.
    keys = keys.select_related(None).select_related("team").only("name", "team__name")
    keys = keys.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=at))
    teams = tenant.teams_with(Permission.MANAGE_QUOTAS)
    if teams is not None:
        keys = keys.filter(team__in=teams)
    if search:
        keys = keys.filter(_named(search))
    return keys.exclude(quotas__isnull=False).order_by("team__name", "name")
