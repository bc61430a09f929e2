"""Organizations in the admin: their terms, and money that came in, was given or went back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django_scopes import scope

from billing.calendars import midnight
from billing.models import LedgerTransaction
from billing.services import grants
from billing.services import wallet as wallets
from gateway.admin.served import Served, operator, touched
from tenants.models import Organization, User
from tenants.permissions import Role
from tenants.services import members, organizations

if TYPE_CHECKING:
    # Generic for the type checker only.
    OrganizationModelForm = forms.ModelForm[Organization]
else:
    OrganizationModelForm = forms.ModelForm


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
        "keep_details_days",
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

    def danger(self, request: HttpRequest) -> str:
        """Suspending, moving money, making an owner."""
        if request.POST.get("action") == "suspend":
            return "suspend organizations"
        if any(request.POST.get(amount) for amount in ("top_up", "adjustment", "refund", "credit")):
            return "move money"
        return "make an owner" if request.POST.get("first_owner") else ""

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
