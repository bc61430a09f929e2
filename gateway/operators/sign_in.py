"""What operators decide about a tenant's sign-in: whose a domain is, and the way in when a provider is lost."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from gateway.console.access import confirmed
from gateway.models import EmailDomain
from gateway.operators.access import OperatorRequest, operators_only
from gateway.single_sign_on import domains, providers
from tenants.models import Organization


def claims_of(organization: Organization) -> list[tuple[EmailDomain, str]]:
    """The domains a tenant claims, each with what its TXT record must say."""
    found = EmailDomain.objects.filter(organization=organization).order_by("domain")
    return [(claim, domains.record_of(claim)) for claim in found]


@operators_only
@confirmed("let a tenant's members in with their passwords again")
@require_POST
def tenant_sign_in(request: OperatorRequest, slug: str) -> HttpResponse:
    """POST ``do=any``: let the tenant's members in with their passwords again."""
    organization = get_object_or_404(Organization, slug=slug)
    if request.POST.get("do") != "any":
        return HttpResponseBadRequest("do: any.")
    providers.set_oidc_only(acting_user=request.user, organization=organization, on=False)
    messages.success(request, f"Members of {organization.name} may sign in with their password again.")
    return redirect("operator:tenant", slug=slug)


@operators_only
@confirmed("decide whose a domain is")
@require_POST
def tenant_domain(request: OperatorRequest, slug: str, domain: int) -> HttpResponse:
    """POST ``do=confirm``, once the operator has seen the record, or ``do=refuse``."""
    claim = get_object_or_404(
        EmailDomain.objects.select_related("organization"), pk=domain, organization__slug=slug
    )
    do = request.POST.get("do")
    try:
        if do == "confirm":
            domains.confirm_domain(acting_user=request.user, claim=claim)
            messages.success(request, f"{claim.domain} is {claim.organization.name}'s.")
        elif do == "refuse":
            domains.drop_domain(acting_user=request.user, claim=claim)
            messages.success(request, f"Removed the claim to {claim.domain}.")
        else:
            return HttpResponseBadRequest("do: confirm or refuse.")
    except domains.DomainError as error:
        messages.error(request, str(error))
    return redirect("operator:tenant", slug=slug)
