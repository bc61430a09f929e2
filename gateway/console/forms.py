"""The console's forms: what people type, checked and in the types the services take."""

from __future__ import annotations

import ipaddress
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.utils import flatatt
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from billing.calendars import PERIODS, midnight
from billing.models import Quota
from gateway.console import keyring
from routing.access import permitted_names
from routing.models import ModelGroup
from tenants.access import TenantAccess
from tenants.models import ApiKey, Membership, Team, slug_validator
from tenants.permissions import ORGANIZATION_ROLES, TEAM_ROLES, Permission, Role

DEFAULT_LIFE = timedelta(days=90)
RATES = ("requests_per_minute", "tokens_per_minute", "concurrency")


def group_choices(tenant: TenantAccess) -> list[tuple[str, str]]:
    """The model groups that the organization and its plan both allow."""
    allowed = permitted_names(tenant.organization)
    names = ModelGroup.objects.order_by("name").values_list("name", flat=True)
    return [(name, name) for name in names if allowed is None or name in allowed]


class PlainSelect(forms.Select):
    """A list whose options are not made by a template each: for thousands of them that takes most of a second."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:  # noqa: ARG002  # a widget's signature
        attributes = self.build_attrs(self.attrs, {**(attrs or {}), "name": name})
        chosen = "" if value is None else str(value)
        options = format_html_join(
            "",
            '<option value="{}"{}>{}</option>',
            (
                (choice, mark_safe(" selected") if str(choice) == chosen else "", label)
                for choice, label in self.choices
            ),
        )
        return format_html("<select{}>{}</select>", flatatt(attributes), options)


class MemberChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic at run time
    """A member, shown by e-mail address."""

    widget = PlainSelect

    def label_from_instance(self, obj: Any) -> str:
        return str(obj.user.email)


class TeamChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic at run time
    """A team, shown by name."""

    def label_from_instance(self, obj: Any) -> str:
        return str(obj.name)


class KeySettings(forms.Form):
    """What can be changed about a key at any time."""

    name = forms.CharField(
        max_length=100,
        help_text="What uses it, so that everybody knows it in a list.",
        widget=forms.TextInput(attrs={"placeholder": "search-backend", "autocomplete": "off"}),
    )
    expires_on = forms.DateField(
        label="Last day",
        required=False,
        help_text="Works until the end of this day. Empty: no end.",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    model_groups = forms.MultipleChoiceField(
        label="Models",
        required=False,
        help_text="None chosen: all that its team may use.",
        widget=forms.CheckboxSelectMultiple,
    )
    allowed_ips = forms.CharField(
        label="Only from these networks",
        required=False,
        help_text="One address or network a line, such as 203.0.113.0/24. Empty: from anywhere.",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
    )

    def __init__(
        self, tenant: TenantAccess, *arguments: Any, key: ApiKey | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.tenant, self.key = tenant, key
        groups = self.fields["model_groups"]
        groups.choices = group_choices(tenant)  # type: ignore[attr-defined]  # a MultipleChoiceField

    @staticmethod
    def initial_of(key: ApiKey) -> dict[str, Any]:
        """The values of an existing key, as the form shows them."""
        last = (
            timezone.localtime(key.expires_at - timedelta(microseconds=1)).date() if key.expires_at else None
        )
        return {
            "name": key.name,
            "expires_on": last,
            "model_groups": key.model_groups or [],
            "allowed_ips": "\n".join(key.allowed_ips or []),
        }

    def clean_name(self) -> str:
        return str(self.cleaned_data["name"]).strip()

    def clean_expires_on(self) -> date | None:
        day: date | None = self.cleaned_data["expires_on"]
        if day is not None and "expires_on" in self.changed_data and day < timezone.localdate():
            raise ValidationError("This day is over. Choose today or a later day.")
        return day

    def clean_allowed_ips(self) -> list[str] | None:
        networks = []
        for line in self.cleaned_data["allowed_ips"].replace(",", "\n").split():
            try:
                networks.append(str(ipaddress.ip_network(line, strict=False)))
            except ValueError:
                raise ValidationError(f"“{line}” is not an IP address or network.") from None
        return networks or None

    def clean_model_groups(self) -> list[str] | None:
        return self.cleaned_data["model_groups"] or None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        team = cleaned.get("team") or (self.key.team if self.key else None)
        if team is not None and cleaned.get("name"):
            same = ApiKey.objects.filter(
                team=team, name=cleaned["name"], revoked_at__isnull=True, successor__isnull=True
            )
            if self.key is not None:
                same = same.exclude(pk=self.key.pk)
            if same.exists():
                self.add_error(
                    "name", f"{team.name} already has a key of this name. Choose another, or rotate that one."
                )
        return cleaned

    def expires_at(self) -> datetime | None:
        """The end of the last day in the organization's time zone."""
        day: date | None = self.cleaned_data["expires_on"]
        if day is None:
            return None
        return midnight(day + timedelta(days=1), self.tenant.organization.time_zone)

    def changes(self) -> dict[str, Any]:
        """The fields of the key by name."""
        return {
            "name": self.cleaned_data["name"],
            "expires_at": self.expires_at(),
            "model_groups": self.cleaned_data["model_groups"],
            "allowed_ips": self.cleaned_data["allowed_ips"],
        }


class NewKey(KeySettings):
    """A new key: also its team and owner, among those this person may choose."""

    team = TeamChoice(queryset=None, empty_label=None)
    owner = MemberChoice(
        queryset=None,
        required=False,
        empty_label="Nobody (a service)",
        help_text="Whose use it counts as.",
    )
    field_order = ["name", "team", "owner", "expires_on", "model_groups", "allowed_ips"]

    def __init__(self, tenant: TenantAccess, *arguments: Any, **options: Any) -> None:
        initial = {
            "expires_on": timezone.localdate() + DEFAULT_LIFE,
            "owner": tenant.membership.pk,
            **options.pop("initial", {}),
        }
        super().__init__(tenant, *arguments, initial=initial, **options)
        owners = keyring.owners_for_new_keys(tenant)
        self.fields["team"].queryset = keyring.teams_for_new_keys(tenant)  # type: ignore[attr-defined]  # a ModelChoiceField
        self.fields["owner"].queryset = owners  # type: ignore[attr-defined]  # a ModelChoiceField
        if tenant.teams_with(Permission.MANAGE_KEYS) == []:
            self.fields["owner"].empty_label = None  # type: ignore[attr-defined]  # a ModelChoiceField
            self.fields["owner"].required = True

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        team, owner = cleaned.get("team"), cleaned.get("owner")
        if team is not None and not keyring.may_give(self.tenant, team, owner):
            self.add_error("owner", "In this team you may make keys only for yourself.")
        return cleaned


class Rotation(forms.Form):
    """How long the old secret goes on working."""

    overlap = forms.TypedChoiceField(
        label="The old key goes on working for",
        choices=[("0", "0 (stops at once)"), ("3600", "1 hour"), ("86400", "24 hours"), ("604800", "7 days")],
        coerce=lambda seconds: timedelta(seconds=int(seconds)),
        initial="86400",
        widget=forms.RadioSelect,
    )


def _limit(label: str, places: int, step: str) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        required=False,
        min_value=Decimal(0),
        max_digits=12 + places,
        decimal_places=places,
        widget=forms.NumberInput(attrs={"placeholder": "No limit", "step": step, "inputmode": "decimal"}),
    )


class Limits(forms.Form):
    """The limits of one layer. An empty field means that this layer sets none."""

    requests_per_minute = _limit("Requests a minute", 0, "1")
    tokens_per_minute = _limit("Tokens a minute", 0, "1")
    concurrency = _limit("Requests at a time", 0, "1")
    budget_day = _limit("Budget a day, $", 6, "any")
    budget_week = _limit("Budget a week, $", 6, "any")
    budget_month = _limit("Budget a month, $", 6, "any")
    budget_total = _limit("Budget in total, $", 6, "any")
    alert_at = forms.CharField(
        label="Alert at, % of a budget",
        required=False,
        help_text="Such as 50, 80, 100: one message each, to the organization's notifications.",
        widget=forms.TextInput(attrs={"placeholder": "No alerts", "autocomplete": "off"}),
    )
    alerts_only = forms.BooleanField(label="Budgets here only alert and never refuse", required=False)

    @staticmethod
    def field_of(quota: Quota) -> str:
        """The name of the field that shows ``quota``."""
        return f"budget_{quota.period}" if quota.metric == "budget" else quota.metric

    @classmethod
    def initial_of(cls, quotas: list[Quota]) -> dict[str, Any]:
        """Existing limits as the form shows them: without needless zeros."""
        budgets = [quota for quota in quotas if quota.metric == "budget"]
        shares = sorted({share for quota in budgets for share in quota.alert_at})
        shown: dict[str, Any] = {
            "alert_at": ", ".join(f"{(share * 100).normalize():f}" for share in shares),
            "alerts_only": bool(budgets) and not any(quota.hard for quota in budgets),
        }
        for quota in quotas:
            text = f"{quota.limit:f}"
            shown[cls.field_of(quota)] = text.rstrip("0").rstrip(".") if "." in text else text
        return shown

    def clean_alert_at(self) -> tuple[Decimal, ...]:
        shares = set()
        for word in self.cleaned_data["alert_at"].replace(",", " ").replace("%", " ").split():
            try:
                share = Decimal(word) / 100
            except InvalidOperation:
                share = Decimal(0)
            if not (share.is_finite() and 0 < share <= 10):
                raise ValidationError(f"“{word}” is not a percentage above 0, such as 80.")
            shares.add(share)
        return tuple(sorted(shares))

    def wanted(self) -> dict[tuple[str, str], Decimal]:
        """Limit by metric and period, for the fields that are filled in."""
        found = {(name, ""): self.cleaned_data[name] for name in RATES}
        found |= {("budget", period): self.cleaned_data[f"budget_{period}"] for period in PERIODS}
        return {place: limit for place, limit in found.items() if limit is not None}


class Increase(forms.Form):
    """A higher limit until a moment, told in the organization's time zone."""

    to = _limit("Raise to", 6, "any")
    until_at = forms.DateTimeField(
        label="Until",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
    )

    def __init__(self, quota: Quota, data: Any = None) -> None:
        initial: dict[str, Any] = {
            "to": None if quota.raised_to is None else f"{quota.raised_to.normalize():f}",
            "until_at": timezone.localtime(quota.raised_until or timezone.now() + timedelta(days=1)),
        }
        super().__init__(data, initial=initial)
        to = self.fields["to"]
        to.required = True
        if quota.metric == "budget":
            to.label = "Raise to, $"

    def until(self) -> datetime:
        """The moment, aware."""
        moment: datetime = self.cleaned_data["until_at"]
        return moment


def roles_to_give(tenant: TenantAccess) -> list[Role]:
    """The roles this person may give: that of an owner only by owners."""
    may_make_owners = tenant.may(Permission.MANAGE_ORGANIZATION)
    return [role for role in ORGANIZATION_ROLES if role is not Role.OWNER or may_make_owners]


class NewMember(forms.Form):
    """A person to add, by e-mail address."""

    email = forms.EmailField(
        label="E-mail address",
        widget=forms.EmailInput(attrs={"placeholder": "ann@example.com", "autocomplete": "off"}),
    )
    role = forms.TypedChoiceField(coerce=Role, initial=Role.MEMBER.value)

    def __init__(self, tenant: TenantAccess, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        role = self.fields["role"]
        role.choices = [(role.value, role.label) for role in roles_to_give(tenant)]  # type: ignore[attr-defined]  # a ChoiceField

    def clean_email(self) -> str:
        email = str(self.cleaned_data["email"]).lower()
        if Membership.objects.filter(user__email__iexact=email).exists():
            raise ValidationError("This person is a member already.")
        return email


class RoleChange(forms.Form):
    """Another role for a member."""

    role = forms.TypedChoiceField(coerce=Role)

    def __init__(self, tenant: TenantAccess, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        role = self.fields["role"]
        role.choices = [(role.value, role.label) for role in roles_to_give(tenant)]  # type: ignore[attr-defined]  # a ChoiceField


class NewTeam(forms.Form):
    """A team to create."""

    name = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"placeholder": "Search"}))
    slug = forms.CharField(
        label="Short name",
        max_length=63,
        validators=[slug_validator],
        help_text="For reports and configuration files; lower-case letters, digits and hyphens.",
        widget=forms.TextInput(attrs={"placeholder": "search", "autocapitalize": "off"}),
    )

    def clean_slug(self) -> str:
        slug = str(self.cleaned_data["slug"])
        if Team.objects.filter(slug=slug).exists():
            raise ValidationError("Another team has this short name.")
        return slug


class TeamMember(forms.Form):
    """A member's place in a team."""

    membership = MemberChoice(queryset=None, label="Member", empty_label=None)
    role = forms.TypedChoiceField(
        coerce=Role, choices=[(role.value, role.label) for role in TEAM_ROLES], initial=Role.MEMBER.value
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        members = Membership.objects.select_related("user").order_by("user__email")
        self.fields["membership"].queryset = members  # type: ignore[attr-defined]  # a ModelChoiceField
