"""How an organization's people sign in: its own provider, its domains, and whether that is the only way."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from allauth.core import ratelimit
from django import forms
from django.contrib import messages
from django.http import HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from gateway.console.access import TenantRequest, confirmed, requires
from gateway.models import EmailDomain, SignInIdentity, SignInProvider
from gateway.single_sign_on import domains, providers
from gateway.single_sign_on.issuers import IssuerError, discover
from gateway.single_sign_on.pages import callback_url
from gateway.single_sign_on.sessions import LIFE_SECONDS, came_through
from tenants.permissions import Permission
from tenants.services.rows import InvalidRow

_PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false", "class": "mono"}


class ProviderForm(forms.Form):
    """What the provider gave."""

    issuer = forms.CharField(
        label="Issuer",
        max_length=300,
        help_text="As your provider writes it. Its discovery document is looked for below it.",
        widget=forms.URLInput(attrs={**_PLAIN, "placeholder": "https://login.example.com"}),
    )
    client_id = forms.CharField(label="Client ID", max_length=300, widget=forms.TextInput(attrs=_PLAIN))
    secret = forms.CharField(
        label="Client secret",
        max_length=1000,
        required=False,
        help_text="Stored encrypted and not shown again.",
        # A secret is not written back into a page.
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )


class DomainForm(forms.Form):
    """A domain to claim."""

    domain = forms.CharField(
        label="Domain", max_length=253, widget=forms.TextInput(attrs={**_PLAIN, "placeholder": "example.com"})
    )


def _page(
    request: TenantRequest,
    provider: SignInProvider | None,
    form: ProviderForm | None = None,
    domain_form: DomainForm | None = None,
    status: int = 200,
) -> HttpResponse:
    organization = request.tenant.organization
    claims = [(claim, domains.record_of(claim)) for claim in EmailDomain.objects.order_by("domain")]
    known = {"issuer": provider.issuer, "client_id": provider.client_id} if provider else {}
    context: dict[str, Any] = {
        "provider": provider,
        "place": urlsplit(provider.issuer).hostname if provider else "",
        "form": form or ProviderForm(initial=known),
        "domain_form": domain_form or DomainForm(),
        "claims": claims,
        "confirmed": any(claim.confirmed_at for claim, _ in claims),
        "callback": callback_url(organization.slug),
        "people": SignInIdentity.objects.count(),
        "came_through": provider is not None and came_through(request, provider),
        "hours": LIFE_SECONDS // 3600,
        "try_it": reverse("console:sign_in_organization", args=[organization.slug])
        + f"?next={reverse('console:single_sign_on', args=[organization.slug])}",
    }
    return render(request, "console/sign_in/page.html", context, status=status)


def _provider(request: TenantRequest) -> SignInProvider | None:
    return SignInProvider.objects.filter(organization=request.tenant.organization).first()


def _back(request: TenantRequest) -> HttpResponse:
    return redirect("console:single_sign_on", organization=request.tenant.organization.slug)


@requires(Permission.MANAGE_ORGANIZATION)
@confirmed("change the provider through which people sign in")
def single_sign_on(request: TenantRequest) -> HttpResponse:
    """The provider, the domains and the switch; a POST sets the provider."""
    provider = _provider(request)
    if request.method != "POST":
        return _page(request, provider)
    form = ProviderForm(request.POST)
    if form.is_valid():
        try:
            providers.save_provider(
                acting_user=request.user, organization=request.tenant.organization, **form.cleaned_data
            )
        except (providers.ProviderError, InvalidRow) as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "Saved the provider. Test the connection, then sign in through it.")
            return _back(request)
    return _page(request, provider, form=form, status=422)


def _danger(request: TenantRequest) -> str:
    return {
        "only": "let people in through the provider only",
        "any": "let people in with their password again",
        "remove": "remove the provider through which people sign in",
    }.get(request.POST.get("do", ""), "")


@requires(Permission.MANAGE_ORGANIZATION)
@confirmed(_danger)
@require_POST
def single_sign_on_change(request: TenantRequest) -> HttpResponse:
    """``do``: test, only, any (way in) or remove."""
    organization, provider = request.tenant.organization, _provider(request)
    do = request.POST.get("do")
    if do not in {"test", "only", "any", "remove"}:
        return HttpResponseBadRequest("do: test, only, any or remove.")
    if provider is None:
        messages.error(request, "Set the provider first.")
        return _back(request)
    try:
        if do == "test":
            found = discover(provider.issuer)
            messages.success(
                request,
                f"The provider answers, and signs people in at {urlsplit(found.authorization).hostname}. "
                "Whether it takes the client ID and secret shows when you sign in through it.",
            )
        elif do == "remove":
            providers.remove_provider(acting_user=request.user, provider=provider)
            messages.success(request, "Removed the provider. Members sign in with their password.")
        elif do == "only" and not came_through(request, provider):
            # Whoever locks the door shows that the key fits.
            messages.error(request, "Sign in through the provider yourself first. Nothing was changed.")
        else:
            providers.set_oidc_only(acting_user=request.user, organization=organization, on=do == "only")
            messages.success(
                request,
                "Only the provider lets people in from now on."
                if do == "only"
                else "Members may sign in with their password again.",
            )
    except (IssuerError, providers.ProviderError) as error:
        messages.error(request, str(error))
    return _back(request)


@requires(Permission.MANAGE_ORGANIZATION)
@require_POST
def domain_claim(request: TenantRequest) -> HttpResponse:
    """Claim a domain; the page then shows the record that proves it."""
    form = DomainForm(request.POST)
    if form.is_valid():
        try:
            claim = domains.claim_domain(
                acting_user=request.user,
                organization=request.tenant.organization,
                domain=form.cleaned_data["domain"],
            )
        except domains.DomainError as error:
            form.add_error("domain", str(error))
        else:
            messages.success(request, f"Claimed {claim.domain}. Publish its record, then check it.")
            return _back(request)
    return _page(request, _provider(request), domain_form=form, status=422)


@requires(Permission.MANAGE_ORGANIZATION)
@require_POST
def domain_check(request: TenantRequest, domain: int) -> HttpResponse:
    """Look up a domain's record; the domain is the organization's own if it is there."""
    claim = get_object_or_404(EmailDomain, pk=domain)
    if not ratelimit.consume(request, action="domain_check", user=request.user):
        refused: HttpResponse = ratelimit.respond_429(request)
        return refused
    try:
        domains.check_domain(acting_user=request.user, claim=claim)
    except domains.DomainError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{claim.domain} is yours. Your provider signs its people in.")
    return _back(request)


@requires(Permission.MANAGE_ORGANIZATION)
@confirmed("give a domain up")
@require_POST
def domain_drop(request: TenantRequest, domain: int) -> HttpResponse:
    """Give a domain up."""
    claim = get_object_or_404(EmailDomain, pk=domain)
    try:
        domains.drop_domain(acting_user=request.user, claim=claim)
    except domains.DomainError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"Gave {claim.domain} up.")
    return _back(request)


# Below /o/<slug>/sign-in/.
urlpatterns = [
    path("", single_sign_on, name="single_sign_on"),
    path("change/", single_sign_on_change, name="single_sign_on_change"),
    path("domains/", domain_claim, name="domain_claim"),
    path("domains/<int:domain>/check/", domain_check, name="domain_check"),
    path("domains/<int:domain>/remove/", domain_drop, name="domain_drop"),
]
