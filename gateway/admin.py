"""Django's admin, for platform operators: providers, models, prices, tenants, people.

It writes through the same services as everything else, so every change has its audit entry; what a
service refuses is shown as a message and nothing is saved.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.db import models, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django_scopes import scope

from billing.calendars import midnight
from billing.models import (
    DeadLetter,
    ExchangeRate,
    LedgerTransaction,
    Price,
    ReconcileReport,
    RedeemableCode,
    TaskRun,
)
from billing.services import codes, grants
from billing.services import wallet as wallets
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.services import deployments, groups, providers
from tenants.models import AuditEntry, Organization, Plan, User
from tenants.permissions import Role
from tenants.services import members, organizations

if TYPE_CHECKING:
    # Generic for the type checker only.
    ModelAdmin = admin.ModelAdmin[Any]
    PlaceAdmin = admin.TabularInline[GroupDeployment, ModelGroup]
    ProviderModelForm = forms.ModelForm[Provider]
    OrganizationModelForm = forms.ModelForm[Organization]
    PersonForm = AdminUserCreationForm[User]
    PersonAdmin = DjangoUserAdmin[User]
else:
    ModelAdmin, PlaceAdmin = admin.ModelAdmin, admin.TabularInline
    ProviderModelForm = OrganizationModelForm = forms.ModelForm
    PersonForm, PersonAdmin = AdminUserCreationForm, DjangoUserAdmin

admin.site.site_header = "Weir: operator area"
admin.site.site_title = "Weir"
admin.site.index_title = "Providers, models, tenants"


def operator(request: HttpRequest) -> User:
    """The operator signed in; the admin lets in nobody else."""
    if not isinstance(request.user, User):
        raise TypeError("The admin is for people who are signed in.")
    return request.user


def touched(form: forms.ModelForm[Any], *names: str) -> dict[str, Any]:
    """The fields among ``names`` that the form changed, with their values."""
    return {name: form.cleaned_data[name] for name in names if name in form.changed_data}


class Served(ModelAdmin):
    """An admin page whose writes are those of a service."""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            with transaction.atomic():
                return super().changeform_view(request, object_id, form_url, extra_context)
        except ValueError as error:
            # Every refusal of a service is a ValueError that says why, in words for people.
            if request.method != "POST":
                raise
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            with transaction.atomic():
                return super().delete_view(request, object_id, extra_context)
        except ValueError as error:
            if request.method != "POST":
                raise
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Without the deletion of many, which would go past the services."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions


class ReadOnly(ModelAdmin):
    """Rows that are only ever read here."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002  # Django's signature
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002  # Django's signature
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002  # Django's signature
        return False


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


@admin.register(Price)
class PriceAdmin(ReadOnly):
    """Prices, newest first; they are set by the configuration file and never changed."""

    list_display = ("__str__", "input", "cached_input", "cache_write", "output", "effective_from")
    list_filter = ("deployment", "model_group")
    ordering = ("-effective_from",)


@admin.register(RedeemableCode)
class RedeemableCodeAdmin(Served):
    """Codes worth money. A new one is shown once, above the list."""

    list_display = ("__str__", "amount", "memo", "expires_at", "made_by", "made_at", "posting")
    fields = ("amount", "expires_at", "memo")

    def has_change_permission(self, request: HttpRequest, obj: RedeemableCode | None = None) -> bool:  # noqa: ARG002  # Django's signature
        return False

    def has_delete_permission(self, request: HttpRequest, obj: RedeemableCode | None = None) -> bool:  # noqa: ARG002  # Django's signature
        return False

    def save_model(self, request: HttpRequest, obj: RedeemableCode, form: Any, change: bool) -> None:  # noqa: ARG002  # Django's signature
        values = {name: form.cleaned_data[name] for name in self.fields}
        made, text = codes.make_code(acting_user=operator(request), **values)
        obj.pk = made.pk
        self.message_user(request, f"{text} is worth {made.amount:f} US dollars. It is not shown again.")


@admin.register(ExchangeRate)
class ExchangeRateAdmin(ReadOnly):
    """Exchange rates, newest first; they are entered by the configuration file and never changed."""

    list_display = ("currency", "rate", "effective_from")
    ordering = ("-effective_from",)


@admin.register(Plan)
class PlanAdmin(Served):
    """What organizations get by default."""

    list_display = ("name", "model_groups")

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:  # noqa: ARG002  # Django's signature
        return ("name",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        by, names = operator(request), form.cleaned_data["model_groups"] or None
        if change:
            organizations.update_plan(acting_user=by, plan=obj, model_groups=names)
        else:
            obj.pk = organizations.create_plan(acting_user=by, name=obj.name, model_groups=names).pk

    def delete_model(self, request: HttpRequest, obj: Plan) -> None:
        organizations.remove_plan(acting_user=operator(request), plan=obj)


class OrganizationForm(OrganizationModelForm):
    """A tenant, with its first owner, and with money that came in."""

    first_owner = forms.EmailField(
        required=False, help_text="Made an owner, with an account if there is none."
    )
    top_up = forms.DecimalField(
        required=False,
        min_value=0,
        max_digits=24,
        decimal_places=12,
        help_text="US dollars that were paid in.",
    )
    reference = forms.CharField(
        required=False,
        max_length=100,
        help_text="Of the payment, adjustment or refund; the same one is never posted twice.",
    )
    adjustment = forms.DecimalField(
        required=False,
        max_digits=24,
        decimal_places=12,
        help_text="US dollars given without a payment; with a minus sign, taken.",
    )
    refund = forms.DecimalField(
        required=False,
        min_value=0,
        max_digits=24,
        decimal_places=12,
        help_text="US dollars that were paid back.",
    )
    refunded = forms.CharField(
        required=False, max_length=120, help_text="Reference of the top-up that is refunded."
    )
    credit = forms.DecimalField(
        required=False,
        min_value=0,
        max_digits=24,
        decimal_places=12,
        help_text="US dollars of promotional credit: spent before paid money, taken back at its end.",
    )
    credit_ends = forms.DateField(
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="Last day of the credit, by the organization's calendar.",
    )
    reason = forms.CharField(
        required=False,
        max_length=300,
        help_text="Of the adjustment, refund or credit; the customer reads it.",
    )


@admin.register(Organization)
class OrganizationAdmin(Served):
    """Tenants. They are suspended, never deleted."""

    NAMES: ClassVar[tuple[str, ...]] = (
        "name",
        "plan",
        "time_zone",
        "markup",
        "lower_max_tokens",
        "store_responses",
        "model_groups",
        "regions",
        "hidden_headers",
        "cors_origins",
    )
    TERMS: ClassVar[tuple[str, ...]] = ("billing", "credit_limit")
    form = OrganizationForm
    list_display = ("name", "slug", "plan", "billing", "suspended_at")
    search_fields = ("name", "slug")
    MONEY: ClassVar[tuple[str, ...]] = (
        "top_up",
        "adjustment",
        "refund",
        "refunded",
        "credit",
        "credit_ends",
        "reason",
        "reference",
    )
    fields = ("slug", *NAMES, *TERMS, "first_owner", *MONEY, "suspended_at")
    actions = ("suspend", "resume")

    def has_delete_permission(self, request: HttpRequest, obj: Organization | None = None) -> bool:  # noqa: ARG002  # Django's signature
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Organization | None = None) -> tuple[str, ...]:  # noqa: ARG002  # Django's signature
        return ("slug", "suspended_at") if obj else ("suspended_at",)

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:
        by, values = operator(request), form.cleaned_data
        values["model_groups"] = values["model_groups"] or None
        values["regions"] = values["regions"] or None
        if change:
            changes = touched(form, *self.NAMES)
            saved = organizations.update_organization(acting_user=by, organization=obj, **changes)
            if touched(form, *self.TERMS):
                terms = {name: values[name] for name in self.TERMS}
                wallets.set_terms(acting_user=by, organization=saved, **terms)
        else:
            chosen = {name: values[name] for name in (*self.NAMES, *self.TERMS)}
            saved = organizations.create_organization(acting_user=by, slug=obj.slug, **chosen)
            obj.pk = saved.pk
        if values["first_owner"]:
            members.add_member(
                acting_user=by, organization=saved, email=values["first_owner"], role=Role.OWNER
            )
        self.move_money(by, saved, values)

    def move_money(self, by: User, organization: Organization, values: dict[str, Any]) -> None:
        """Post what the form says was paid in, given, taken or paid back."""
        reference = values["reference"] or f"admin-{uuid4()}"
        if values["top_up"]:
            wallets.top_up(
                acting_user=by, organization=organization, amount=values["top_up"], reference=reference
            )
        if values["adjustment"]:
            wallets.adjust(
                acting_user=by,
                organization=organization,
                amount=values["adjustment"],
                reason=values["reason"],
                reference=reference,
            )
        if values["refund"]:
            with scope(organization=organization):
                top_up = LedgerTransaction.objects.filter(kind="top_up", reference=values["refunded"]).first()
            if top_up is None:
                raise wallets.NotRefundable(f"There is no top-up with the reference {values['refunded']!r}.")
            wallets.refund(
                acting_user=by,
                organization=organization,
                top_up=top_up,
                amount=values["refund"],
                reason=values["reason"],
                reference=reference,
            )

        if values["credit"]:
            if values["credit_ends"] is None:
                raise grants.BadExpiry("credit_ends: credit needs a last day.")
            grants.give_grant(
                acting_user=by,
                organization=organization,
                amount=values["credit"],
                expires_at=midnight(values["credit_ends"] + timedelta(days=1), organization.time_zone),
                reason=values["reason"],
                reference=reference,
            )

    @admin.action(description="Suspend: refuse its keys, hide its pages")
    def suspend(self, request: HttpRequest, chosen: QuerySet[Organization]) -> None:
        """Suspend the organizations chosen."""
        for organization in chosen:
            organizations.suspend_organization(acting_user=operator(request), organization=organization)

    @admin.action(description="Resume")
    def resume(self, request: HttpRequest, chosen: QuerySet[Organization]) -> None:
        """Undo a suspension."""
        for organization in chosen:
            organizations.resume_organization(acting_user=operator(request), organization=organization)


class NewUser(PersonForm):
    """A person, by e-mail address."""

    class Meta:
        model = User
        fields = ("email",)


@admin.register(User)
class UserAdmin(PersonAdmin):
    """People. Who is in which organization is set in the console."""

    add_form = NewUser
    ordering = ("email",)
    list_display = ("email", "first_name", "last_name", "is_staff", "is_active", "last_login")
    list_filter = ("is_staff", "is_active")
    search_fields = ("email", "first_name", "last_name")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("email", "password")}),
        ("Person", {"fields": ("first_name", "last_name")}),
        ("Operator", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (None, {"classes": ("wide",), "fields": ("email", "usable_password", "password1", "password2")}),
    )


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    """What changed, in all organizations and on the platform."""

    list_display = ("at", "organization", "actor", "verb", "target_type", "target_label")
    list_filter = ("target_type", "verb")
    search_fields = ("target_label", "actor__email", "organization__slug")
    ordering = ("-pk",)


@admin.register(ReconcileReport)
class ReconcileReportAdmin(ReadOnly):
    """Whether the books balance."""

    list_display = ("at", "balanced")
    list_filter = ("balanced",)
    ordering = ("-at",)


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnly):
    """Journal records that could not become usage events."""

    list_display = ("at", "reason")
    ordering = ("-at",)


@admin.register(TaskRun)
class TaskRunAdmin(ReadOnly):
    """What Celery last did of each kind, how long it took, and whether it failed."""

    list_display = (
        "name",
        "started_at",
        "ended_at",
        "seconds",
        "error",
        "succeeded_at",
        "runs",
        "failures",
        "detail",
    )
    ordering = ("name",)
