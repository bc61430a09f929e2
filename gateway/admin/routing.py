"""Providers, deployments and model groups in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from gateway.admin.served import Served, operator, touched
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.services import deployments, groups, providers

if TYPE_CHECKING:
    # Generic for the type checker only.
    PlaceAdmin = admin.TabularInline[GroupDeployment, ModelGroup]
    ProviderModelForm = forms.ModelForm[Provider]
else:
    PlaceAdmin, ProviderModelForm = admin.TabularInline, forms.ModelForm


class ProviderForm(ProviderModelForm):
    """A provider; its credentials can be written here, never read."""

    base_url = forms.URLField(
        required=False, assume_scheme="https", help_text="Empty: where this kind usually answers."
    )
    credentials = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text="One a line. They replace those that are stored, and are never shown again. Empty: no change.",
    )


@admin.register(Provider)
class ProviderAdmin(Served):
    """Providers and their credentials."""

    form = ProviderForm
    list_display = ("name", "kind", "base_url", "stored")
    fields = ("name", "kind", "base_url", *providers.TIMEOUTS, "credentials", "stored")
    readonly_fields = ("stored",)

    def danger(self, request: HttpRequest) -> str:
        """Deleting a provider, and whatever touches credentials."""
        if request.path.endswith("/delete/"):
            return "delete a provider"
        return "change a provider's credentials" if request.POST.get("credentials") else ""

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> tuple[str, ...]:  # noqa: ARG002  # Django's signature
        return ("name", "stored") if obj else ("stored",)

    @admin.display(description="stored credentials")
    def stored(self, provider: Provider) -> str:
        """How the stored credentials end."""
        if not provider.pk:
            return "none"
        return ", ".join(str(credential) for credential in provider.credentials.order_by("pk")) or "none"

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        secrets = [line.strip() for line in form.cleaned_data["credentials"].splitlines() if line.strip()]
        by = operator(request)
        names = ("kind", "base_url", *providers.TIMEOUTS)
        if change:
            providers.update_provider(acting_user=by, provider=obj, **touched(form, *names))
            if secrets:
                providers.set_credentials(acting_user=by, provider=obj, secrets=secrets)
            return
        values = {name: form.cleaned_data[name] for name in names}
        obj.pk = providers.create_provider(acting_user=by, name=obj.name, credentials=secrets, **values).pk

    def delete_model(self, request: HttpRequest, obj: Provider) -> None:
        providers.remove_provider(acting_user=operator(request), provider=obj)


@admin.register(Deployment)
class DeploymentAdmin(Served):
    """One model at one provider."""

    NAMES: ClassVar[tuple[str, ...]] = (
        "provider",
        "model",
        "context_window",
        "max_output_tokens",
        "capabilities",
        "region",
    )
    list_display = ("name", "provider", "model", "context_window")
    list_filter = ("provider",)
    search_fields = ("name", "model")
    fields = ("name", *NAMES)

    def get_readonly_fields(self, request: HttpRequest, obj: Deployment | None = None) -> tuple[str, ...]:  # noqa: ARG002  # Django's signature
        return ("name",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Deployment, form: Any, change: bool) -> None:
        by = operator(request)
        if change:
            deployments.update_deployment(acting_user=by, deployment=obj, **touched(form, *self.NAMES))
            return
        values = {name: form.cleaned_data[name] for name in self.NAMES}
        obj.pk = deployments.create_deployment(acting_user=by, name=obj.name, **values).pk

    def delete_model(self, request: HttpRequest, obj: Deployment) -> None:
        deployments.remove_deployment(acting_user=operator(request), deployment=obj)


class PlaceInline(PlaceAdmin):
    """The deployments of a model group, in order."""

    model = GroupDeployment
    extra = 1


@admin.register(ModelGroup)
class ModelGroupAdmin(Served):
    """The names that clients send as ``model``."""

    list_display = ("name", "strategy")
    NAMES: ClassVar[tuple[str, ...]] = (
        *("strategy", "fallbacks", "rules", "max_cost", "regions", "pin", "affinity", "hedge", "resume"),
        *("structured_output", "validate_tools", "unsupported_params"),
    )
    fields = ("name", *NAMES)
    inlines = (PlaceInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: ModelGroup | None = None) -> tuple[str, ...]:  # noqa: ARG002  # Django's signature
        return ("name",) if obj else ()

    def save_model(self, request: HttpRequest, obj: ModelGroup, form: Any, change: bool) -> None:
        by, given = operator(request), form.cleaned_data
        # An empty field of the form says nothing.
        given["fallbacks"], given["rules"] = given["fallbacks"] or {}, given["rules"] or []
        given["regions"] = given["regions"] or None
        if change:
            changes = touched(form, *self.NAMES)
            groups.update_model_group(acting_user=by, group=obj, check_links=False, **changes)
            return
        values = {name: form.cleaned_data[name] for name in self.NAMES}
        # The deployments follow, and with them the check.
        obj.pk = groups.create_model_group(acting_user=by, name=obj.name, check_links=False, **values).pk

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: ARG002  # Django's signature
        places = [
            groups.Place(row["deployment"], row["priority"], row["weight"])
            for row in formset.cleaned_data
            if row and not row.get("DELETE")
        ]
        # What the formset would save and delete is done by the service.
        formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
        groups.set_members(
            acting_user=operator(request),
            group=form.instance,
            places=sorted(places, key=lambda place: place.priority),
        )

    def delete_model(self, request: HttpRequest, obj: ModelGroup) -> None:
        groups.remove_model_group(acting_user=operator(request), group=obj)
