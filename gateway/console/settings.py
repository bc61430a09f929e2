"""The organization's settings: what it is called, whose midnight ends its days, and how /v1 treats its apps."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django import conf, forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.utils import timezone

from billing import retention, stored_content
from billing.currencies import currencies_at
from billing.request_content import MOST_BYTES
from gateway.console.access import TenantRequest, confirmed, demand, requires
from gateway.console.organizations import zones
from gateway.second_factor import satisfies, secured
from tenants.models import (
    LEAST_DETAIL_DAYS,
    MOST_CONTENT_DAYS,
    MOST_DETAIL_DAYS,
    Membership,
    Organization,
    header_choices,
    origin_validator,
)
from tenants.permissions import Permission
from tenants.services.organizations import update_organization

# Of what could not be stored, so much is told.
LOST_WITHIN = timedelta(days=30)
# Ticked to save something else.
CONFIRMATIONS = frozenset({"remove_details", "store_content"})


class OrganizationSettings(forms.Form):
    """What an owner may change; what an operator agreed with the organization is not among it."""

    name = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"autocomplete": "organization"}))
    time_zone = forms.ChoiceField(
        label="Time zone",
        help_text="Days, weeks and months of budgets and reports begin at its midnight. After a change the running "
        "ones begin at the new midnight, with what was spent since.",
    )
    currency = forms.ChoiceField(
        help_text="Amounts are shown, and statements invoiced, in it too. The account itself is kept in US dollars.",
    )
    lower_max_tokens = forms.BooleanField(
        label="Shorten an answer to what a hard budget has left",
        required=False,
        help_text="Else a request whose longest answer would not fit is refused.",
    )
    store_responses = forms.BooleanField(
        label="Keep responses of /v1/responses",
        required=False,
        help_text="With what was asked, encrypted and for a limited time, so that apps can go on from them by "
        "previous_response_id. Else such requests are answered and nothing is kept.",
    )
    hidden_headers = forms.MultipleChoiceField(
        label="Response headers that callers do not get",
        required=False,
        choices=header_choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="They tell which deployment answered and after how many attempts.",
    )
    cors_origins = forms.CharField(
        label="Browser apps that may call /v1",
        required=False,
        widget=forms.Textarea(
            attrs={"rows": 3, "spellcheck": "false", "placeholder": "https://app.example.com"}
        ),
        help_text="One origin a line. Empty: no page may read answers in a browser. Whoever opens such a page can "
        "read its key, so give it one with narrow limits.",
    )

    keep_details_days = forms.IntegerField(
        label="Days that details of requests are kept",
        required=False,
        min_value=LEAST_DETAIL_DAYS,
        widget=forms.NumberInput(attrs={"placeholder": "for ever"}),
    )
    remove_details = forms.BooleanField(required=False)
    require_mfa = forms.BooleanField(
        label="Demand a second factor",
        required=False,
        help_text="These pages then open only to members who have a passkey or an app for one-time codes, or who came "
        "through your own sign-in provider. Others are led to set one up. API keys work on as they are.",
    )
    log_content = forms.BooleanField(
        label="Store what is asked of /v1 and what is answered",
        required=False,
        help_text="For looking into what an app did. Where it is off, nothing of a prompt is kept.",
    )
    content_days = forms.IntegerField(
        label="Days that they are stored", required=False, min_value=1, max_value=MOST_CONTENT_DAYS
    )
    store_content = forms.BooleanField(required=False)

    def __init__(self, organization: Organization, data: Any = None) -> None:
        self.organization = organization
        # The first day that keeps its details, where fewer days than before are asked for.
        self.removes_before: date | None = None
        # Whether storing is to be switched on, which wants a second word.
        self.starts_storing = False
        initial = {
            "name": organization.name,
            "time_zone": organization.time_zone,
            "currency": organization.currency,
            "lower_max_tokens": organization.lower_max_tokens,
            "store_responses": organization.store_responses,
            "hidden_headers": organization.hidden_headers,
            # Within the platform's bound, which may be younger than the choice.
            "keep_details_days": organization.keep_details_days and retention.kept_days(organization),
            "log_content": organization.log_content,
            "content_days": organization.content_days,
            "cors_origins": "\n".join(organization.cors_origins),
            "require_mfa": organization.require_mfa,
        }
        super().__init__(data, initial=initial)
        places = zones()
        # An old name of a place stays until somebody chooses another.
        if organization.time_zone not in dict(places):
            places.insert(0, (organization.time_zone, organization.time_zone))
        self._choose_from("time_zone", places)
        most = conf.settings.KEEP_DETAILS_DAYS or MOST_DETAIL_DAYS
        days = self.fields["keep_details_days"]
        days.validators.append(MaxValueValidator(most))
        days.widget.attrs["max"] = most
        days.help_text = f"{LEAST_DETAIL_DAYS} to {most}. " + (
            f"Empty: {most} days, by this platform's rule."
            if conf.settings.KEEP_DETAILS_DAYS
            else "Empty: for ever."
        )
        known = {*currencies_at(timezone.now()), organization.currency}
        self._choose_from("currency", [(each, each) for each in sorted(known)])

    def _choose_from(self, name: str, choices: list[tuple[str, str]]) -> None:
        self.fields[name].choices = choices  # type: ignore[attr-defined]  # a ChoiceField

    def clean(self) -> dict[str, Any]:
        """What removes for good, and what stores prompts, is to be confirmed by its effect."""
        cleaned = super().clean() or {}
        self._confirm_removal(cleaned)
        self.starts_storing = cleaned["log_content"] and not self.organization.log_content
        if self.starts_storing and not cleaned["store_content"]:
            self.add_error("store_content", "Tick this to save.")
        return cleaned

    def _confirm_removal(self, cleaned: dict[str, Any]) -> None:
        wanted = cleaned.get("keep_details_days")
        if "keep_details_days" not in self.changed_data or "keep_details_days" in self.errors or not wanted:
            return
        so_far = retention.kept_days(self.organization)
        if so_far is None or wanted < so_far:
            time_zone = self.organization.time_zone
            tonight = retention.next_removal(timezone.now())
            self.removes_before = retention.first_day_kept(wanted, time_zone, tonight)
            if not cleaned["remove_details"]:
                self.add_error("remove_details", "Tick this to save.")

    def clean_content_days(self) -> int:
        days: int | None = self.cleaned_data["content_days"]
        return self.organization.content_days if days is None else days

    def clean_cors_origins(self) -> list[str]:
        origins = list(dict.fromkeys(self.cleaned_data["cors_origins"].replace(",", "\n").split()))
        for origin in origins:
            try:
                origin_validator(origin)
            except ValidationError as error:
                raise ValidationError(f"“{origin}”: {error.message}") from None
        return origins


def _danger(request: TenantRequest) -> str:
    if request.tenant.organization.require_mfa and "require_mfa" not in request.POST:
        return "let members in without a second factor"
    return "remove the details of older requests" if "remove_details" in request.POST else ""


@requires(Permission.MANAGE_ORGANIZATION, Permission.VIEW_AUDIT)
@confirmed(_danger)
def settings(request: TenantRequest) -> HttpResponse:
    """The settings; owners change them, admins read them."""
    organization = request.tenant.organization
    form = OrganizationSettings(organization, request.POST or None)
    if request.method == "POST":
        demand(request.tenant, Permission.MANAGE_ORGANIZATION)
        locks = form.is_valid() and form.cleaned_data["require_mfa"] and not organization.require_mfa
        # Whoever locks the door shows that they have a key.
        if locks and not satisfies(request, organization):
            form.add_error("require_mfa", "Set up a passkey or one-time codes for yourself first.")
        if form.is_valid():
            changes = {
                name: form.cleaned_data[name] for name in form.changed_data if name not in CONFIRMATIONS
            }
            try:
                saved = update_organization(acting_user=request.user, organization=organization, **changes)
            except ValueError as error:
                form.add_error(None, str(error))
            else:
                messages.success(request, f"Saved the settings of {saved.name}.")
                return redirect("console:settings", organization=organization.slug)
    may_change = request.tenant.may(Permission.MANAGE_ORGANIZATION)
    for field in form.fields.values():
        field.disabled = not may_change
    return render(
        request,
        "console/settings/page.html",
        {
            "form": form,
            "may_change": may_change,
            "content_days": stored_content.kept_days(organization),
            "content_kib": MOST_BYTES // 1024,
            "content_lost": stored_content.lost_since(organization, timezone.now() - LOST_WITHIN)
            if organization.log_content
            else 0,
            "content_left": not organization.log_content and stored_content.is_stored(organization),
            "detail_days": retention.kept_days(organization),
            "removed_until": retention.removed_until(organization),
            **Membership.objects.aggregate(people=Count("pk"), without_factor=Count("pk", filter=~secured())),
            "replay_hours": conf.settings.IDEMPOTENCY_HOURS,
            "local_now": timezone.now().astimezone(ZoneInfo(organization.time_zone)),
        },
        status=422 if form.errors else 200,
    )


urlpatterns = [path("", settings, name="settings")]
