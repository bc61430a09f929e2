"""The page on which a person makes an organization of their own."""

from __future__ import annotations

from zoneinfo import available_timezones

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.utils.text import slugify
from django.views.decorators.cache import never_cache

from tenants.accounts import sign_up_open
from tenants.models import User, slug_validator
from tenants.services.founding import first_terms, found_organization
from tenants.services.organizations import OrganizationExists, UnknownTimeZone
from tenants.services.rows import InvalidRow


def zones() -> list[tuple[str, str]]:
    """Every place of the tz database, and UTC; not its old names."""
    places = (
        name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/"))
    )
    return [(name, name.replace("_", " ")) for name in ("UTC", *sorted(places))]


class NewOrganization(forms.Form):
    """Its name, its place in addresses, and whose midnight ends its days."""

    name = forms.CharField(
        label="Name",
        max_length=200,
        widget=forms.TextInput(
            attrs={"placeholder": "Acme Ltd", "autocomplete": "organization", "autofocus": True}
        ),
    )
    slug = forms.CharField(
        label="Short name",
        required=False,
        max_length=63,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false", "class": "mono"}
        ),
        help_text="Lower-case letters, digits and hyphens. It stays in the addresses of your pages.",
    )
    time_zone = forms.ChoiceField(
        label="Time zone",
        choices=zones,
        initial="UTC",
        help_text="Budgets start anew, and days end in reports, at its midnight.",
    )

    def clean(self) -> dict[str, object]:
        cleaned = self.cleaned_data
        if "slug" in cleaned and not cleaned["slug"] and "name" in cleaned:
            cleaned["slug"] = slugify(cleaned["name"])[:63].strip("-")
        try:
            if "slug" in cleaned:
                slug_validator(cleaned["slug"])
        except ValidationError as error:
            self.add_error("slug", error)
        return cleaned


@never_cache
@login_required
def organization_new(request: HttpRequest) -> HttpResponse:
    """Make an organization and go to its overview. 403 where only operators make them."""
    if not sign_up_open() or not isinstance(request.user, User):
        raise PermissionDenied
    form = NewOrganization(request.POST or None)
    if request.method == "POST" and form.is_valid():
        cleaned = form.cleaned_data
        try:
            made = found_organization(
                acting_user=request.user,
                slug=cleaned["slug"],
                name=cleaned["name"],
                time_zone=cleaned["time_zone"],
            )
        except OrganizationExists:
            form.add_error("slug", "Another organization has this short name. Choose another.")
        except UnknownTimeZone as error:
            form.add_error("time_zone", str(error))
        except (ValueError, InvalidRow) as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{made.name} is ready.")
            return redirect("console:overview", organization=made.slug)
    return render(
        request,
        "console/organizations/new.html",
        {"form": form, "terms": first_terms()},
        status=422 if request.method == "POST" else 200,
    )


# Below /organizations/, outside every organization.
public_urlpatterns = [path("new/", organization_new, name="organization_new")]
