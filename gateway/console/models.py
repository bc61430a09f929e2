"""The model groups an organization may use: what each routes to, its price here, its health, and for whom.

Names of deployments and providers are shown to tenants, as the answers' headers and the request log do.
What a provider asks, and anything of its credentials, never is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import path

from gateway.console import keyring
from gateway.console.access import TenantRequest, requires
from gateway.console.model_prices import TenantPrice, tenant_price
from gateway.explanation import Caller, Picture, State, caller_of, picture
from routing.table import DeploymentSpec, GroupSpec, RoutingTable, Rule
from tenants.models import Team
from tenants.permissions import Permission

PAGE = 50
MOST_KEYS = 50
STRATEGIES = {
    "priority": "The lowest priority number first; equal numbers share by weight.",
    "weighted": "Each comes first in proportion to its weight.",
    "cheapest": "What costs least for the request's tokens comes first.",
    "fastest": "Of two taken by chance, the one that answers sooner; who is twice as slow as the best waits behind.",
    "least_busy": "The one with the fewest requests under way for its weight.",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment in a group, as the organization sees it."""

    deployment: DeploymentSpec
    priority: int
    weight: int
    state: State
    price: TenantPrice | None


@dataclass(frozen=True, slots=True)
class ModelPage:
    """A model group as the organization sees it."""

    group: GroupSpec
    places: Sequence[Place]

    @property
    def prices(self) -> list[TenantPrice]:
        """Those of the deployments, each once; one where the group has a price of its own."""
        return [price for price, _ in self.prices_by_who_answers]

    @property
    def prices_by_who_answers(self) -> list[tuple[TenantPrice, list[str]]]:
        """Each price with the names of the deployments it holds for."""
        found: list[tuple[TenantPrice, list[str]]] = []
        for place in self.places:
            if place.price is None:
                continue
            same = next((names for price, names in found if price.alike(place.price)), None)
            if same is None:
                found.append((place.price, [place.deployment.name]))
            else:
                same.append(place.deployment.name)
        return found

    @property
    def windows(self) -> list[int]:
        """The shortest and the longest context window in tokens, once if they are equal; of those known."""
        known = [size for place in self.places if (size := place.deployment.context_window) is not None]
        return sorted({min(known), max(known)}) if known else []

    @property
    def capabilities(self) -> list[str]:
        """What at least one of its deployments says it can do; empty where none says."""
        said = [each.deployment.capabilities for each in self.places]
        return sorted(frozenset[str]().union(*(each for each in said if each is not None)))

    @property
    def health(self) -> str:
        """``good``, ``warn`` (some may not be asked), ``bad`` (none may), or empty (there are none)."""
        used = [place for place in self.places if place.weight]
        well = [place for place in used if place.state.word in ("closed", "half-open")]
        if not used:
            return ""
        return "bad" if not well else "warn" if len(well) < len(used) else "good"


def model_page(seen: Picture, caller: Caller, group: GroupSpec) -> ModelPage:
    """``group`` as ``caller``'s organization sees it."""
    return ModelPage(
        group,
        [
            Place(
                member.deployment,
                member.priority,
                member.weight,
                seen.state(member.deployment),
                tenant_price(seen, caller, group, member.deployment),
            )
            for member in group.members
        ],
    )


def usable(table: RoutingTable, caller: Caller) -> list[GroupSpec]:
    """The model groups that ``caller`` may use, by name."""
    return [table.groups[name] for name in sorted(table.groups) if caller.may_use(name)]


def group_or_404(table: RoutingTable, caller: Caller, name: str) -> GroupSpec:
    """The group ``name`` if the organization may use it. Raises Http404."""
    group = table.groups.get(name)
    if group is None or not caller.may_use(name):
        raise Http404
    return group


def rules_for(group: GroupSpec, caller: Caller, teams: Collection[str]) -> list[tuple[str, str]]:
    """The rules that may hold for ``caller``'s organization, each as its condition and what then follows.

    Those about another plan, another's team or a group that it may not use say nothing to it.
    """

    def concerns(rule: Rule) -> bool:
        plan, team = rule.when.get("plan"), rule.when.get("team")
        return (
            (plan is None or plan == caller.plan)
            and (team is None or team in teams)
            and (rule.use is None or caller.may_use(rule.use))
        )

    return [(condition(rule.when), consequence(rule)) for rule in group.rules if concerns(rule)]


def condition(when: Mapping[str, Any]) -> str:
    """A rule's condition in words."""
    words = {
        "plan": lambda value: f"the plan is {value}",
        "team": lambda value: f"the team is {value}",
        "input_tokens_over": lambda value: f"the prompt is over {value:,} tokens",
        "needs": lambda value: f"the request needs {' and '.join(sorted(value)).replace('_', ' ')}",
    }
    return " and ".join(words[name](value) for name, value in when.items() if name in words) or "always"


def consequence(rule: Rule) -> str:
    """Where a rule leads, in words."""
    if rule.use is not None:
        return f"goes to {rule.use}"
    return f"only {', '.join(sorted(rule.deployments or ()))}"


@requires(Permission.VIEW)
def models(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/models/``: every model group the organization may use. ``?after=`` a name."""
    seen, caller = picture(), caller_of(request.tenant.organization)
    groups = usable(seen.table, caller)
    search, after = request.GET.get("q", "").strip(), request.GET.get("after", "")
    found = [
        group
        for group in groups
        if search.lower() in group.name.lower()
        or any(search.lower() in member.deployment.name.lower() for member in group.members)
    ]
    rest = [group for group in found if group.name > after]
    return render(
        request,
        "console/models/list.html",
        {
            "pages": [model_page(seen, caller, group) for group in rest[:PAGE]],
            "any": bool(groups),
            "search": search,
            "after": after,
            "older": rest[PAGE - 1].name if len(rest) > PAGE else "",
            "redis_away": seen.notices is None,
        },
    )


@requires(Permission.VIEW)
def model(request: TenantRequest, group: str) -> HttpResponse:
    """``/o/<organization>/models/<group>/``: one model group."""
    organization = request.tenant.organization
    seen, caller = picture(), caller_of(organization)
    found = group_or_404(seen.table, caller, group)
    keys = keyring.visible_keys(request.tenant).filter(revoked_at__isnull=True, successor__isnull=True)
    allowed = Q(model_groups__isnull=True) | Q(model_groups__contains=[group])
    narrowed = keys.filter(model_groups__contains=[group]).order_by("name")
    return render(
        request,
        "console/models/detail.html",
        {
            "page": model_page(seen, caller, found),
            "strategy": STRATEGIES[found.strategy],
            "fallbacks": [
                (words, [name for name in names if caller.may_use(name)])
                for words, names in (
                    ("When it fails", found.on_error),
                    ("When the prompt is too long", found.on_context_window),
                    ("When a content filter refuses", found.on_content_filter),
                )
            ],
            "rules": rules_for(found, caller, Team.objects.values_list("slug", flat=True)),
            "teams": Team.objects.filter(allowed).order_by("name"),
            "teams_without": Team.objects.exclude(allowed).order_by("name"),
            "keys": list(narrowed[:MOST_KEYS]),
            "redis_away": seen.notices is None,
        },
    )


urlpatterns = [path("", models, name="models"), path("<str:group>/", model, name="model")]
