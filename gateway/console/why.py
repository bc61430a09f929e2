"""Why this route: what would become of a request to a model group, by the routing policy itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import path

from gateway.attempts import Measured, measured
from gateway.console import keyring
from gateway.console.access import TenantRequest, requires
from gateway.console.models import STRATEGIES, group_or_404
from gateway.explanation import CHAT, Caller, Explanation, Picture, State, caller_of, explain, picture
from routing.models import region_validator
from routing.policy import Need, Verdict
from routing.table import DeploymentSpec, GroupSpec, Member
from tenants.access import TenantAccess
from tenants.models import ApiKey, Team
from tenants.permissions import Permission

MOST_KEYS = 100
NEEDS = [
    ("tools", "Tools"),
    ("vision", "Images"),
    ("audio", "Audio"),
    ("json_schema", "JSON schema"),
    ("streaming", "A stream"),
]
ENDPOINTS = [(CHAT, "Chat"), ("embeddings", "Embeddings")]
MOST_TOKENS = 100_000_000


class WhyForm(forms.Form):
    """The request that is asked about. Every field has a default, so that the page answers at once."""

    who = forms.ChoiceField(label="Sent with")
    endpoint = forms.ChoiceField(choices=ENDPOINTS)
    tokens = forms.IntegerField(label="Input tokens", min_value=0, max_value=MOST_TOKENS)
    output = forms.IntegerField(label="Output tokens", min_value=0, max_value=MOST_TOKENS)
    max_cost = forms.DecimalField(
        label="Ceiling, US dollars",
        min_value=Decimal(0),
        max_digits=24,
        decimal_places=12,
        required=False,
        help_text="As in X-Weir-Max-Cost.",
    )
    region = forms.CharField(
        max_length=40, validators=[region_validator], required=False, help_text="As in X-Weir-Region."
    )
    needs = forms.MultipleChoiceField(choices=NEEDS, required=False, widget=forms.CheckboxSelectMultiple)

    def __init__(self, tenant: TenantAccess, given: QueryDict) -> None:
        # What an address leaves out is as usual, so that short addresses work.
        asked = given.copy()
        for name, usual in (
            ("who", "organization"),
            ("endpoint", CHAT),
            ("tokens", "1000"),
            ("output", "500"),
        ):
            asked.setdefault(name, usual)
        super().__init__(asked)
        self.keys = working_keys(tenant)
        chosen = asked.get("who", "")
        shown = list(self.keys.order_by("-last_used_at", "-pk")[:MOST_KEYS])
        if chosen.startswith("key-") and chosen[4:].isdecimal() and len(chosen) < 20:
            shown += [key for key in self.keys.filter(pk=int(chosen[4:])) if key not in shown]
        self.fields["who"].choices = [  # type: ignore[attr-defined]  # a ChoiceField
            ("organization", "Any key of the organization"),
            ("Teams", [(f"team-{team.pk}", team.name) for team in Team.objects.order_by("name")]),
            (
                "Keys",
                [(f"key-{key.pk}", f"{key.name} ({key.team.name})") for key in sorted(shown, key=_named)],
            ),
        ]

    def caller(self, tenant: TenantAccess) -> Caller:
        """Who would send it."""
        kind, _, number = self.cleaned_data["who"].partition("-")
        if kind == "team":
            return caller_of(tenant.organization, Team.objects.get(pk=number))
        if kind == "key":
            key = self.keys.get(pk=number)
            return caller_of(tenant.organization, key.team, key)
        return caller_of(tenant.organization)

    def need(self, caller: Caller) -> Need:
        """What the request would need."""
        data = self.cleaned_data
        regions = caller.regions
        if data["region"]:
            told = frozenset({data["region"]})
            regions = told if regions is None else regions & told
        return Need(
            data["tokens"],
            data["output"],
            frozenset(data["needs"]),
            caller.plan,
            caller.team,
            data["max_cost"],
            regions,
        )


def working_keys(tenant: TenantAccess) -> QuerySet[ApiKey]:
    """The keys that this person may see and that work."""
    now = datetime.now(UTC)
    keys = keyring.visible_keys(tenant).filter(revoked_at__isnull=True, successor__isnull=True)
    return keys.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))


def _named(key: ApiKey) -> tuple[str, str]:
    return key.team.name, key.name


@dataclass(frozen=True, slots=True)
class Row:
    """One deployment of the answer. ``charge`` is the most that the caller would pay, in US dollars."""

    verdict: Verdict
    state: State
    charge: Decimal | None
    reason: str
    measured: Measured


def reasons(explanation: Explanation, latency: Mapping[str, Measured]) -> dict[int, str]:
    """Why each deployment of the group that serves stands where it does, by its id."""
    group = explanation.route.group
    placed = {
        verdict.deployment.id
        for verdict in explanation.verdicts
        if verdict.place is not None and verdict.group == group.name
    }
    used = [each for each in group.members if each.deployment.id in placed]
    return {each.deployment.id: _reason(group, each, used, latency) for each in used}


def _reason(group: GroupSpec, member: Member, used: list[Member], latency: Mapping[str, Measured]) -> str:
    match group.strategy:
        case "priority":
            equal = [each for each in used if each.priority == member.priority]
            shared = f", {_share(member, equal)}" if len(equal) > 1 else ""
            return f"priority {member.priority}{shared}"
        case "weighted":
            return f"weight {member.weight}: {_share(member, used)}"
        case "cheapest":
            return "by its provider's price for these tokens"
        case "least_busy":
            return "by requests under way, which each worker knows for itself"
        case _:
            known = latency.get(member.deployment.name)
            if known is None or known.first_token_median is None:
                return "no first token measured in the last hour"
            return f"first token after {known.first_token_median:,} ms (median of the last hour)"


def _share(member: Member, among: list[Member]) -> str:
    whole = sum(each.weight for each in among)
    return f"first for {100 * member.weight / whole:.0f}% of requests" if whole else ""


@requires(Permission.VIEW)
def why(request: TenantRequest, group: str) -> HttpResponse:
    """``/o/<organization>/models/<group>/why/``: the form, and the answer for what its address says."""
    tenant = request.tenant
    seen = picture()
    found = group_or_404(seen.table, caller_of(tenant.organization), group)
    form = WhyForm(tenant, request.GET)
    context: dict[str, Any] = {"group": found, "form": form, "redis_away": seen.notices is None}
    if form.is_valid():
        context |= answer(seen, form.caller(tenant), found, form, measured(tenant.organization))
    return render(request, "console/models/why.html", context, status=422 if form.errors else 200)


def answer(
    seen: Picture, caller: Caller, group: GroupSpec, form: WhyForm, latency: Mapping[str, Measured]
) -> dict[str, Any]:
    """What the page shows of the route."""
    if not caller.may_use(group.name):
        allowed = sorted(name for name in seen.table.groups if caller.may_use(name))
        return {"refused": True, "allowed": allowed}
    need, endpoint = form.need(caller), form.cleaned_data["endpoint"]

    def seconds(deployment: DeploymentSpec) -> float:
        return (latency.get(deployment.name, Measured()).first_token_median or 0) / 1000

    explanation = explain(seen, caller, group, need, endpoint=endpoint, latency=seconds)
    route = explanation.route
    why_there = reasons(explanation, latency)
    rows = []
    for verdict in explanation.verdicts:
        by = seen.table.groups[verdict.group]
        reason = (
            why_there.get(verdict.deployment.id, "") if by is route.group else f"fallback group {by.name}"
        )
        rows.append(
            Row(
                verdict,
                seen.state(verdict.deployment),
                seen.charge(caller, by, verdict.deployment, need, endpoint),
                reason,
                latency.get(verdict.deployment.name, Measured()),
            )
        )
    return {
        "rows": [row for row in rows if row.verdict.place],
        "removed": [row for row in rows if not row.verdict.place],
        "route": route,
        "redirected": route.group is not group,
        "strategy": STRATEGIES[route.group.strategy],
        "narrowed": sorted(route.only) if route.only is not None else None,
        "need": route.need,
        "later": [
            (words, [name for name in names if caller.may_use(name)])
            for words, names in (
                ("the prompt is too long for it", route.group.on_context_window),
                ("its content filter refuses", route.group.on_content_filter),
            )
        ],
    }


urlpatterns = [path("<str:group>/why/", why, name="model_why")]
