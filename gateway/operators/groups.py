"""Model groups: listed, and changed after a look at what the change does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.forms.formsets import BaseFormSet, formset_factory
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from billing.money import plain
from gateway.console.lists import words
from gateway.operators import changes
from gateway.operators.access import OperatorRequest, operators_only
from routing.exactness import structured_output_choices, unsupported_params_choices
from routing.links import FALLBACK_REASONS
from routing.models import Deployment, ModelGroup
from routing.services.groups import Place, set_members, update_model_group
from routing.strategies import strategy_choices
from tenants.models import User

if TYPE_CHECKING:
    # Generic for the type checker only.
    PlaceForms = BaseFormSet["PlaceForm"]
else:
    PlaceForms = BaseFormSet

PAGE = 50
# Of names offered while typing.
OFFERED = 1000
SWITCHES = ("pin", "affinity", "hedge", "resume", "validate_tools")


class Indented(json.JSONEncoder):
    """JSON over several lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "indent": 2})


class Names(forms.CharField):
    """Names between commas or spaces, in order; a list."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            required=False,
            widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false", "autocomplete": "off"}),
            **options,
        )

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        names = str(super().clean(value)).replace(",", " ").split()
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValidationError(f"{', '.join(sorted(twice))} is in the list twice.")
        return names


class GroupForm(forms.Form):
    """All of a model group but its name and its deployments."""

    strategy = forms.ChoiceField(choices=strategy_choices)
    on_error = Names(label="If all fail", help_text="Model groups to try then, in order.")
    on_context_window = Names(label="If the prompt is too long")
    on_content_filter = Names(label="If the content filter refuses")
    rules = forms.JSONField(
        required=False,
        encoder=Indented,
        help_text='A list, first match wins: [{"when": {"needs": ["vision"]}, "use": "other-group"}]',
        widget=forms.Textarea(attrs={"rows": 8, "class": "mono", "spellcheck": "false"}),
    )
    max_cost = forms.DecimalField(
        required=False,
        min_value=0,
        max_digits=24,
        decimal_places=12,
        label="Ceiling of one request",
        help_text="US dollars. Empty: none.",
    )
    regions = Names(label="Only in regions", help_text="Empty: anywhere.")
    structured_output = forms.ChoiceField(
        choices=structured_output_choices, label="Answers that break their schema"
    )
    unsupported_params = forms.ChoiceField(
        choices=unsupported_params_choices, label="Parameters a provider lacks"
    )
    pin = forms.BooleanField(required=False, label="Clients may ask for one of its deployments")
    affinity = forms.BooleanField(required=False, label="A conversation stays where its prompt is cached")
    hedge = forms.BooleanField(required=False, label="A late request goes to a second deployment too")
    resume = forms.BooleanField(required=False, label="A stream that breaks off is continued elsewhere")
    validate_tools = forms.BooleanField(required=False, label="Arguments of tool calls must be valid")

    def __init__(self, found: ModelGroup, given: Any = None) -> None:
        named = ("strategy", "rules", "max_cost", "structured_output", "unsupported_params", *SWITCHES)
        initial = {name: getattr(found, name) for name in named}
        initial |= {reason: list(found.fallbacks.get(reason, ())) for reason in FALLBACK_REASONS}
        if found.max_cost is not None:
            initial["max_cost"] = plain(found.max_cost)
        super().__init__(given, initial={**initial, "regions": found.regions or []})
        self.found = found

    def clean_rules(self) -> Any:
        rules = self.cleaned_data["rules"] or []
        if "\\u0000" in json.dumps(rules):
            raise ValidationError("The character U+0000 cannot be stored.")
        return rules

    def changes(self) -> dict[str, Any]:
        """What the service takes, once the form is valid."""
        values = dict(self.cleaned_data)
        given = {reason: values.pop(reason) for reason in FALLBACK_REASONS}
        fallbacks = {reason: names for reason, names in given.items() if names}
        stored = {reason: names for reason, names in self.found.fallbacks.items() if names}
        # An empty list that is stored says what nothing says.
        values["fallbacks"] = self.found.fallbacks if fallbacks == stored else fallbacks
        values["regions"] = values["regions"] or None
        return values


class PlaceForm(forms.Form):
    """A deployment's place in the group. A row without a name is none."""

    deployment = forms.CharField(
        max_length=100,
        required=False,
        widget=forms.TextInput(
            attrs={
                "class": "input small",
                "list": "deployments",
                "autocomplete": "off",
                "aria-label": "Deployment",
            }
        ),
    )
    priority = forms.IntegerField(
        min_value=0,
        max_value=2**31 - 1,
        initial=1,
        widget=forms.NumberInput(attrs={"class": "input small", "aria-label": "Priority"}),
    )
    weight = forms.IntegerField(
        min_value=0,
        max_value=2**31 - 1,
        initial=1,
        widget=forms.NumberInput(attrs={"class": "input small", "aria-label": "Weight"}),
    )


class Places(PlaceForms):
    """The deployments of a group, each once."""

    def clean(self) -> None:
        """Resolve all names in one query."""
        self.known = {row.name: row for row in Deployment.objects.filter(name__in=self._names())}
        names = self._names()
        for form in self.forms:
            name = form.cleaned_data.get("deployment", "") if form.is_valid() else ""
            if name and name not in self.known:
                form.add_error("deployment", f"There is no deployment {name}.")
            elif names.count(name) > 1:
                form.add_error("deployment", f"{name} is there twice.")

    def _names(self) -> list[str]:
        return [form.cleaned_data["deployment"] for form in self.forms if form.cleaned_data.get("deployment")]

    def places(self) -> list[Place]:
        """What the service takes, in the order of the rows, once all are valid."""
        rows = [form.cleaned_data for form in self.forms if form.cleaned_data.get("deployment")]
        return [Place(self.known[row["deployment"]], row["priority"], row["weight"]) for row in rows]


PlaceSet = formset_factory(PlaceForm, formset=Places, extra=2, max_num=500, absolute_max=500)


def describe(found: ModelGroup) -> Mapping[str, str]:
    """The group as it is in this transaction, locked."""
    now = ModelGroup.objects.select_for_update(no_key=True).get(pk=found.pk)
    members = now.members.select_related("deployment").order_by("pk")
    return {
        "deployments": "; ".join(
            f"{each.deployment.name} (priority {each.priority}, weight {each.weight})" for each in members
        )
        or "none",
        "strategy": now.strategy,
        **{
            f"fallbacks {reason}": ", ".join(now.fallbacks.get(reason, ())) or "none"
            for reason in FALLBACK_REASONS
        },
        "rules": json.dumps(now.rules, sort_keys=True) if now.rules else "none",
        "ceiling": "none" if now.max_cost is None else f"${plain(now.max_cost)}",
        "regions": ", ".join(now.regions or ()) or "anywhere",
        "structured output": now.structured_output,
        "unsupported params": now.unsupported_params,
        **{name.replace("_", " "): "yes" if getattr(now, name) else "no" for name in SWITCHES},
    }


def found(request: OperatorRequest) -> QuerySet[ModelGroup]:
    """The model groups that the address asks for, by name."""
    search = words(request)
    every = ModelGroup.objects.order_by("name").prefetch_related("members__deployment")
    if search:
        every = every.filter(
            Q(name__icontains=search)
            | Q(pk__in=ModelGroup.objects.filter(members__deployment__name__icontains=search))
        )
    return every


@operators_only
def model_groups(request: OperatorRequest) -> HttpResponse:
    """``/operator/groups/``: by name. ``?after=`` a name."""
    search, after = words(request), words(request, "after")
    rows = found(request)
    if after:
        rows = rows.filter(name__gt=after)
    page = list(rows[: PAGE + 1])
    return render(
        request,
        "operators/groups/list.html",
        {
            "groups": page[:PAGE],
            "search": search,
            "csv": f"{reverse('operator:model_groups_csv')}?{urlencode({'q': search} if search else {})}",
            "after": after,
            "older": page[PAGE - 1].name if len(page) > PAGE else "",
        },
    )


def _make(by: User, found: ModelGroup, values: dict[str, Any], places: list[Place]) -> None:
    with transaction.atomic():
        # The deployments follow, and with them the check of both.
        update_model_group(acting_user=by, group=found, check_links=False, **values)
        set_members(acting_user=by, group=found, places=places)


@operators_only
def model_group(request: OperatorRequest, name: str) -> HttpResponse:
    """``/operator/groups/<name>/``. POST ``do=preview`` shows the effect; ``do=save`` with its ``token``
    makes the change, if it is still that one."""
    found = get_object_or_404(ModelGroup, name=name)
    given = request.POST if request.method == "POST" else None
    members = found.members.select_related("deployment").order_by("pk")
    rows = [
        {"deployment": each.deployment.name, "priority": each.priority, "weight": each.weight}
        for each in members
    ]
    form, example = GroupForm(found, given), changes.Example(given, prefix="example")
    # What is sent says it all: a row that equals one stored meanwhile is no empty row.
    places = cast(Places, PlaceSet(given, initial=None if given else rows, prefix="places"))
    shown, problem, stale = None, "", False
    if given is not None and form.is_valid() and example.is_valid() and places.is_valid():
        make = partial(_make, request.user, found, form.changes(), places.places())
        change = changes.Change(partial(describe, found), make)
        try:
            if given.get("do") == "save":
                if changes.save(change, given.get("token", "")):
                    messages.success(request, f"{found.name} is changed; workers follow within a second.")
                    return redirect("operator:model_group", name=found.name)
                stale = True
            shown = changes.preview(change, example.need(), lambda _table: {found.name})
        except ValueError as error:
            # Every refusal of a service is a ValueError that says why.
            problem = str(error)
    return render(
        request,
        "operators/groups/detail.html",
        {
            "group": found,
            "form": form,
            "places": places,
            "example": example,
            "known": Deployment.objects.order_by("name").values_list("name", flat=True)[:OFFERED],
            "preview": shown,
            "stale": stale,
            "problem": problem,
        },
        status=422 if given is not None and shown is None else 200,
    )
