"""Adding funds: a checkout at the payment provider, a code; and the address of the provider's webhooks."""

from __future__ import annotations

from decimal import Decimal

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.models import Checkout
from billing.payments import provider_called, provider_in_use
from billing.payments.base import BadSignature, PaymentError
from billing.payments.dummy import DummyProvider
from billing.services import checkouts, codes
from gateway.console.access import TenantRequest, requires
from tenants.permissions import Permission


class Amount(forms.Form):
    """How much to pay."""

    amount = forms.DecimalField(
        label="Amount, US dollars",
        min_value=checkouts.LEAST,
        max_value=checkouts.MOST,
        max_digits=9,
        decimal_places=2,
        initial=Decimal(50),
    )


class Code(forms.Form):
    """A code to redeem."""

    code = forms.CharField(
        max_length=60,
        widget=forms.TextInput(
            attrs={"placeholder": "XXXX-XXXX-XXXX-XXXX-XXXX", "autocomplete": "off", "spellcheck": "false"}
        ),
    )


def _page(request: TenantRequest, amount: Amount, code: Code) -> HttpResponse:
    return render(
        request,
        "console/funds/page.html",
        {"amount": amount, "code": code, "provider": provider_in_use()},
        status=422 if amount.is_bound or code.is_bound else 200,
    )


@requires(Permission.ADD_FUNDS)
def funds(request: TenantRequest) -> HttpResponse:
    """Choose an amount, or type a code. A POST opens a checkout."""
    form = Amount(request.POST or None)
    provider, organization = provider_in_use(), request.tenant.organization
    if request.method == "POST" and provider is None:
        raise Http404
    if request.method == "POST" and provider is not None and form.is_valid():
        # The provider fills in nothing; the reference is a part of the address.
        back = settings.PUBLIC_URL + reverse("console:checkout", args=[organization.slug, "REFERENCE"])
        try:
            checkout = checkouts.start(
                acting_user=request.user,
                organization=organization,
                provider=provider,
                amount=form.cleaned_data["amount"],
                return_url=back.replace("REFERENCE", "{reference}"),
            )
        except (ValueError, PaymentError) as error:
            form.add_error(None, str(error))
        else:
            return redirect("console:checkout", organization.slug, checkout.reference)
    return _page(request, form, Code())


@requires(Permission.ADD_FUNDS)
@require_POST
def code_redeem(request: TenantRequest) -> HttpResponse:
    """Redeem a code."""
    form = Code(request.POST)
    if form.is_valid():
        try:
            posting = codes.redeem(
                acting_user=request.user,
                organization=request.tenant.organization,
                code=form.cleaned_data["code"],
            )
        except ValueError as error:
            form.add_error("code", str(error))
        else:
            messages.success(request, f"Redeemed: {posting.memo}.")
            return redirect("console:ledger", request.tenant.organization.slug)
    return _page(request, Amount(), form)


@requires(Permission.ADD_FUNDS)
def checkout(request: TenantRequest, reference: str) -> HttpResponse:
    """Where a payment stands: on to the provider, waiting for its word, or paid. Customers come back here.

    A form may not lead to another site (the Content-Security-Policy), so the provider's page is a link. A
    POST pays at the dummy provider.
    """
    found = get_object_or_404(Checkout.objects.select_related("posting"), reference=reference)
    provider = provider_called(found.provider)
    if request.method == "POST" and found.posting is None:
        if not isinstance(provider, DummyProvider):
            raise Http404
        checkouts.receive(provider, *provider.webhook(found.reference, found.amount))
        return redirect(request.path)
    return render(
        request,
        "console/funds/checkout.html",
        {"checkout": found, "provider": provider, "dummy": isinstance(provider, DummyProvider)},
    )


@csrf_exempt
@require_POST
def payment_webhook(request: HttpRequest, provider: str) -> HttpResponse:
    """``/payments/<provider>/``: what the provider tells us, signed by it. 400 if it is not."""
    used = provider_called(provider)
    if used is None:
        raise Http404
    try:
        checkouts.receive(used, request.body, request.headers)
    except BadSignature:
        return HttpResponse("The signature is wrong.\n", status=400, content_type="text/plain")
    return HttpResponse(status=204)


urlpatterns = [
    path("", funds, name="funds"),
    path("code/", code_redeem, name="code_redeem"),
    path("<slug:reference>/", checkout, name="checkout"),
]
public_urlpatterns = [path("<slug:provider>/", payment_webhook, name="payment_webhook")]
