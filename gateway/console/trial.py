"""Would this request pass? The form, and the answer of ``gateway.trial`` as people see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.http import HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import path

from billing.leases import BudgetRule
from billing.models.end_user import LONGEST_ID
from billing.rate_limits import CONCURRENCY, RateRule
from gateway.console.access import TenantRequest, requires
from gateway.console.forms import group_choices
from gateway.console.why import MOST_KEYS, MOST_TOKENS, working_keys
from gateway.trial import Trial, chat_request, try_request
from gateway.v1.admission import UNITS
from gateway.v1.errors import V1Error
from tenants.access import TenantAccess
from tenants.models import ApiKey
from tenants.permissions import Permission

MOST_TEXT = 100_000


class TrialForm(forms.Form):
    """The request that is asked about. Every field but the key has a default."""

    key = forms.ChoiceField(label="Sent with")
    model = forms.ChoiceField()
    end_user = forms.CharField(
        label="End user",
        max_length=LONGEST_ID,
        required=False,
        strip=False,
        help_text="As in user.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    tokens = forms.IntegerField(label="Input tokens", min_value=0, max_value=MOST_TOKENS)
    output = forms.IntegerField(
        label="Output tokens, at most",
        min_value=1,
        max_value=MOST_TOKENS,
        required=False,
        widget=forms.NumberInput(attrs={"placeholder": "As the model has it"}),
        help_text="As in max_tokens.",
    )
    text = forms.CharField(
        label="A text in place of a number of tokens",
        max_length=MOST_TEXT,
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text="It is counted here and neither kept nor sent to a provider.",
    )

    def __init__(self, tenant: TenantAccess, given: QueryDict) -> None:
        asked = given.copy()
        self.keys = working_keys(tenant)
        shown = list(self.keys.order_by("-last_used_at", "-pk")[:MOST_KEYS])
        chosen = asked.get("key", "")
        if chosen.isdecimal() and len(chosen) < 19:
            shown += [key for key in self.keys.filter(pk=int(chosen)) if key not in shown]
        groups = group_choices(tenant)
        # What an address leaves out is as usual, so that short addresses work.
        for name, usual in (
            ("key", str(shown[0].pk) if shown else ""),
            ("model", groups[0][0] if groups else ""),
            ("tokens", "1000"),
            ("output", "500"),
        ):
            asked.setdefault(name, usual)
        super().__init__(asked)
        by_team = sorted(shown, key=lambda key: (key.team.name, key.name))
        self.fields["key"].choices = [(str(key.pk), f"{key.team.name} / {key.name}") for key in by_team]  # type: ignore[attr-defined]  # a ChoiceField
        self.fields["model"].choices = groups  # type: ignore[attr-defined]  # a ChoiceField
        self.possible = bool(shown and groups)

    def chosen(self) -> ApiKey:
        """The key the request would be sent with."""
        key: ApiKey = self.keys.get(pk=int(self.cleaned_data["key"]))
        return key

    def trial(self) -> Trial:
        """What would become of the request."""
        data = self.cleaned_data
        try:
            facts, _ = chat_request(
                data["model"],
                end_user=data["end_user"],
                text=data["text"],
                input_tokens=data["tokens"],
                max_tokens=data["output"],
            )
        except V1Error as error:
            return Trial(error, "request", (), ())
        return try_request(self.chosen(), facts)


@dataclass(frozen=True, slots=True)
class Row:
    """One layer of the answer. Amounts are US dollars where ``money``, else counts; ``used`` and ``held``
    are None where this person may not know them.

    ``verdict`` is ``passes``, ``refuses``, ``bites`` (the refusal that the client is told of), ``counts``
    (it never refuses) or empty, where the request does not come so far.
    """

    label: str
    what: str
    money: bool
    limit: Decimal | int | None
    used: Decimal | int | None
    held: Decimal | None
    take: Decimal | int | None
    verdict: str
    resets_at: datetime | None = None
    wait_seconds: float | None = None
    never: bool = False


PERIODS = {"day": "a day", "week": "a week", "month": "a month", "total": "in total"}


def _sees(tenant: TenantAccess, key: ApiKey, scope: str) -> bool:
    """Whether this person may know what is used of a limit of ``scope`` that binds ``key``."""
    if scope == "wallet":
        return tenant.may(Permission.VIEW_MONEY)
    if scope == "team":
        return tenant.may(Permission.VIEW_USAGE, key.team)
    # Whoever sees the key sees what it used, and an owner what they did.
    own = key.owner_id == tenant.membership.pk
    return scope == "key" or (scope == "member" and own) or tenant.may(Permission.VIEW_USAGE)


def rows_of(tenant: TenantAccess, key: ApiKey, trial: Trial) -> Iterator[Row]:
    """Every layer that binds the request, in the order in which they are asked."""
    reaches = trial.amount is not None
    for look in trial.rates or ():
        verdict = "passes" if look.fits else "refuses"
        if look.bites and trial.refused_by == "rate":
            verdict = "bites"
        seen = _sees(tenant, key, look.rule.scope)
        yield Row(
            _label(look.rule),
            UNITS[look.rule.metric],
            False,
            look.rule.limit,
            look.used if seen else None,
            None,
            look.take,
            verdict if reaches else "",
            wait_seconds=look.wait_seconds if look.rule.metric != CONCURRENCY else None,
            never=look.wait_seconds is None,
        )
    told = trial.refused_by == "budget"
    for budget in trial.budgets:
        verdict = "passes" if budget.fits else "refuses"
        if not budget.fits and told:
            verdict, told = "bites", False
        elif budget.limit is None:
            verdict = "counts"
        seen = _sees(tenant, key, budget.rule.scope)
        wallet = budget.rule.scope == "wallet"
        yield Row(
            f"Account of {budget.rule.label}" if wallet else _label(budget.rule),
            "to spend" if wallet else f"budget {PERIODS[budget.rule.period]}",
            True,
            (budget.limit if budget.limit is not None else budget.rule.limit) if seen or not wallet else None,
            budget.spent if seen else None,
            budget.held if seen else None,
            budget.take if reaches else None,
            verdict if reaches else "",
            budget.ends_at,
        )


def _label(rule: BudgetRule | RateRule) -> str:
    return rule.label[:1].upper() + rule.label[1:]


@requires(Permission.VIEW)
def trial(request: TenantRequest) -> HttpResponse:
    """``quotas/trial/``: by POST, since a text is nothing for an address; a GET tries the usual request."""
    tenant = request.tenant
    form = TrialForm(tenant, request.POST if request.method == "POST" else request.GET)
    context: dict[str, Any] = {"form": form}
    if form.possible and form.is_valid():
        found, key = form.trial(), form.chosen()
        context |= {"trial": found, "key": key, "rows": list(rows_of(tenant, key, found))}
    return render(
        request, "console/quotas/trial.html", context, status=422 if form.possible and form.errors else 200
    )


urlpatterns = [path("trial/", trial, name="trial")]
