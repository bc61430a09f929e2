"""Deployments: listed, and changed after a look at what the change does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from gateway.console.lists import words
from gateway.operators import changes
from gateway.operators.access import OperatorRequest, operators_only
from routing.links import ABILITIES
from routing.models import Deployment, Provider, region_validator
from routing.services.deployments import update_deployment
from routing.table import RoutingTable
from tenants.models import User

PAGE = 50
# Abilities whose word does not read as something that is ticked.
SAID = {"no_streaming": "only whole answers, no streams"}


class DeploymentForm(forms.Form):
    """All of a deployment but its name."""

    provider = forms.ModelChoiceField(
        Provider.objects.order_by("name"), to_field_name="name", empty_label=None
    )
    model = forms.CharField(
        max_length=200,
        help_text="The provider's own name for it.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    context_window = forms.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="Tokens. Empty: unknown, not checked."
    )
    max_output_tokens = forms.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="Tokens. Empty: unknown."
    )
    anything = forms.BooleanField(
        required=False,
        label="Assumed to do whatever is asked",
        help_text="Unticked, it gets only requests that need no more than what is ticked below.",
    )
    capabilities = forms.MultipleChoiceField(
        required=False, label="It can do", widget=forms.CheckboxSelectMultiple
    )
    region = forms.CharField(
        required=False,
        max_length=40,
        validators=[region_validator],
        help_text="Where it runs, such as eu. Empty: not said, so not for requests that must stay in a region.",
    )

    def __init__(self, found: Deployment, given: Any = None) -> None:
        initial = {name: getattr(found, name) for name in ("model", "context_window", "max_output_tokens")}
        super().__init__(
            given,
            initial={
                **initial,
                "provider": found.provider.name,
                "anything": found.capabilities is None,
                "capabilities": found.capabilities or [],
                "region": found.region,
            },
        )
        words = [*ABILITIES, *(word for word in found.capabilities or () if word not in ABILITIES)]
        self.fields["capabilities"].choices = [(word, SAID.get(word, word)) for word in words]  # type: ignore[attr-defined]  # a ChoiceField
        self.found = found

    def changes(self) -> dict[str, Any]:
        """What the service takes, once the form is valid."""
        values = {name: value for name, value in self.cleaned_data.items() if name != "anything"}
        if self.cleaned_data["anything"]:
            values["capabilities"] = None
        elif set(values["capabilities"]) == set(self.found.capabilities or ()) and self.found.capabilities:
            # Their order means nothing.
            values["capabilities"] = self.found.capabilities
        return values


def describe(found: Deployment) -> Mapping[str, str]:
    """The row as it is in this transaction, locked."""
    row = Deployment.objects.select_for_update(of=("self",), no_key=True).select_related("provider")
    now = row.get(pk=found.pk)
    return {
        "provider": now.provider.name,
        "model": now.model,
        "context window": f"{now.context_window:,}" if now.context_window else "unknown",
        "max output tokens": f"{now.max_output_tokens:,}" if now.max_output_tokens else "unknown",
        "capabilities": "whatever is asked"
        if now.capabilities is None
        else ", ".join(now.capabilities) or "none",
        "region": now.region or "not said",
    }


def found(request: OperatorRequest) -> QuerySet[Deployment]:
    """The deployments that the address asks for, by name."""
    search = words(request)
    every = Deployment.objects.order_by("name").select_related("provider").prefetch_related("groups__group")
    if search:
        every = every.filter(
            Q(name__icontains=search) | Q(model__icontains=search) | Q(provider__name__icontains=search)
        )
    return every


@operators_only
def deployments(request: OperatorRequest) -> HttpResponse:
    """``/operator/deployments/``: by name. ``?after=`` a name."""
    search, after = words(request), words(request, "after")
    rows = found(request)
    if after:
        rows = rows.filter(name__gt=after)
    page = list(rows[: PAGE + 1])
    return render(
        request,
        "operators/deployments/list.html",
        {
            "deployments": page[:PAGE],
            "search": search,
            "csv": f"{reverse('operator:deployments_csv')}?{urlencode({'q': search} if search else {})}",
            "after": after,
            "older": page[PAGE - 1].name if len(page) > PAGE else "",
        },
    )


def _make(by: User, found: Deployment, values: dict[str, Any]) -> None:
    update_deployment(acting_user=by, deployment=found, **values)


def _groups_of(found: Deployment, table: RoutingTable) -> set[str]:
    return {
        group.name
        for group in table.groups.values()
        if any(member.deployment.id == found.pk for member in group.members)
    }


@operators_only
def deployment(request: OperatorRequest, name: str) -> HttpResponse:
    """``/operator/deployments/<name>/``. POST ``do=preview`` shows the effect; ``do=save`` with its
    ``token`` makes the change, if it is still that one."""
    found = get_object_or_404(Deployment.objects.select_related("provider"), name=name)
    given = request.POST if request.method == "POST" else None
    form, example = DeploymentForm(found, given), changes.Example(given, prefix="example")
    shown, problem, stale = None, "", False
    if given is not None and form.is_valid() and example.is_valid():
        change = changes.Change(partial(describe, found), partial(_make, request.user, found, form.changes()))
        try:
            if given.get("do") == "save":
                if changes.save(change, given.get("token", "")):
                    messages.success(request, f"{found.name} is changed; workers follow within a second.")
                    return redirect("operator:deployment", name=found.name)
                stale = True
            shown = changes.preview(change, example.need(), partial(_groups_of, found))
        except ValueError as error:
            # Every refusal of a service is a ValueError that says why.
            problem = str(error)
    return render(
        request,
        "operators/deployments/detail.html",
        {
            "deployment": found,
            "places": found.groups.select_related("group").order_by("group__name"),
            "form": form,
            "example": example,
            "preview": shown,
            "stale": stale,
            "problem": problem,
        },
        status=422 if given is not None and shown is None else 200,
    )
