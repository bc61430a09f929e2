"""The list of API keys: searched, a page at a time, and as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse

from billing.exports.sheets import Row
from billing.reports import spent_this_month
from billing.sums import Sums
from billing.usage_export import CURRENCY, moment
from gateway.console import keyring
from gateway.console.access import TenantRequest, requires
from gateway.console.lists import CHUNK, list_file, place, words
from tenants.models import ApiKey, Team
from tenants.permissions import Permission

PAGE = 100
COLUMNS = (
    "id",
    "name",
    "key",
    "team",
    "owner",
    "status",
    "last_used_at",
    "expires_at",
    "created_at",
    "model_groups",
    "allowed_ips",
    "spent_this_month",
    "currency",
)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as the list shows it; ``spent`` is its charge this month in US dollars."""

    key: ApiKey
    standing: str
    spent: Decimal
    expires_soon: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """Which keys the address asks for."""

    search: str
    team: str
    state: str

    @classmethod
    def of(cls, request: TenantRequest) -> Asked:
        """What ``q``, ``team`` and ``state`` say."""
        return cls(words(request), words(request, "team"), words(request, "state") or "working")

    def parameters(self, **more: str) -> str:
        """The same as a query string."""
        values = {"q": self.search, "team": self.team, "state": self.state, **more}
        return urlencode({name: value for name, value in values.items() if value and value != "working"})

    def narrow(self, keys: QuerySet[ApiKey], now: datetime) -> QuerySet[ApiKey]:
        """Those of ``keys``, in the order of the list."""
        if self.search:
            keys = keys.filter(
                Q(name__icontains=self.search)
                | Q(owner__user__email__icontains=self.search)
                | Q(last_four=self.search[-4:])
            )
        if self.team:
            keys = keys.filter(team__slug=self.team)
        if self.state != "all":
            keys = keys.filter(revoked_at__isnull=True).exclude(expires_at__lte=now)
        return keys.order_by("team__name", "name", "-pk")


def _beyond(keys: QuerySet[ApiKey], last: ApiKey | None) -> QuerySet[ApiKey]:
    """Those of ``keys``, in the order of the list, that follow ``last``."""
    if last is None:
        return keys
    same_team = Q(team__name=last.team.name)
    return keys.filter(
        Q(team__name__gt=last.team.name)
        | (same_team & Q(name__gt=last.name))
        | (same_team & Q(name=last.name, pk__lt=last.pk))
    )


@requires(Permission.VIEW_OWN_USAGE)
def key_list(request: TenantRequest) -> HttpResponse:
    """The keys that this person may see, searched and filtered by what the address says. ``?after=`` takes the
    number of the last key of the page before it."""
    tenant, now, asked = request.tenant, datetime.now(UTC), Asked.of(request)
    visible = keyring.visible_keys(tenant)
    after = place(request, "after")
    last = visible.filter(pk=after).first() if after is not None else None
    found = list(_beyond(asked.narrow(visible, now), last)[: PAGE + 1])
    more, found = len(found) > PAGE, found[:PAGE]
    spent = spent_this_month(
        tenant.organization, "key", at=now, where=Q(key_id__in=[key.pk for key in found])
    )
    return render(
        request,
        "console/keys/list.html",
        {
            "rows": [
                KeyRow(
                    key,
                    keyring.standing(key, now),
                    spent.get(key.pk, Sums()).charge,
                    key.expires_at is not None and 0 < (key.expires_at - now).days + 1 <= 14,
                )
                for key in found
            ],
            "first": f"?{asked.parameters()}" if last else "",
            "next": f"?{asked.parameters(after=str(found[-1].pk))}" if more else "",
            "csv": f"{reverse('console:keys_csv', args=[tenant.organization.slug])}?{asked.parameters()}",
            "any_keys": visible.exists(),
            "teams": Team.objects.filter(keys__in=visible).distinct().order_by("name"),
            "asked": asked,
            "may_make": keyring.teams_for_new_keys(tenant).exists(),
            "has_teams": Team.objects.exists(),
            "may_make_teams": tenant.may(Permission.MANAGE_TEAMS),
        },
    )


@requires(Permission.VIEW_OWN_USAGE)
def key_file(request: TenantRequest) -> HttpResponse:
    """``keys/keys.csv``: every key that the list has, in its order; never a secret."""
    now = datetime.now(UTC)
    keys = Asked.of(request).narrow(keyring.visible_keys(request.tenant), now)
    spent = spent_this_month(request.tenant.organization, "key", at=now)

    def rows() -> Iterator[Row]:
        for key in keys.iterator(chunk_size=CHUNK):
            yield {
                "id": key.pk,
                "name": key.name,
                "key": f"{key.prefix}…{key.last_four}",
                "team": key.team.slug,
                "owner": key.owner.user.email if key.owner else "",
                "status": keyring.standing(key, now),
                "last_used_at": moment(key.last_used_at) if key.last_used_at else "",
                "expires_at": moment(key.expires_at) if key.expires_at else "",
                "created_at": moment(key.created_at),
                "model_groups": key.model_groups or "",
                "allowed_ips": key.allowed_ips or "",
                "spent_this_month": spent.get(key.pk, Sums()).charge,
                "currency": CURRENCY,
            }

    return list_file(f"keys-{request.tenant.organization.slug}", COLUMNS, rows())
