"""Whom the organization has told what: channels, a test of each, and what was sent lately."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db.models import Q, QuerySet
from django.http import HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from billing.exports.sheets import Row
from billing.usage_export import moment
from gateway.console.access import TenantRequest, requires
from gateway.console.lists import CHUNK, list_file, place, words
from gateway.models import Delivery, NotificationChannel, channel_choices, topic_choices
from gateway.notifications import channels
from tenants.permissions import ORGANIZATION_ROLES, Permission

SHOWN_DELIVERIES = 25
COLUMNS = ("created_at", "channel", "topic", "message", "state", "attempts", "problem", "sent_at")


class NewChannel(forms.Form):
    """A channel to add."""

    kind = forms.ChoiceField(label="Send by", choices=channel_choices)
    name = forms.CharField(
        max_length=100, widget=forms.TextInput(attrs={"placeholder": "On call", "autocomplete": "off"})
    )
    topics = forms.MultipleChoiceField(
        label="Tell of", choices=topic_choices, widget=forms.CheckboxSelectMultiple
    )
    recipients = forms.CharField(
        label="E-mail addresses",
        required=False,
        help_text="For e-mail: one address a line.",
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
    )
    roles = forms.MultipleChoiceField(
        label="Everybody who is",
        required=False,
        choices=[(role.value, role.label) for role in ORGANIZATION_ROLES],
        help_text="For e-mail: whoever has the role when the message is sent.",
        widget=forms.CheckboxSelectMultiple,
    )
    url = forms.CharField(
        label="Webhook address",
        required=False,
        max_length=1000,
        help_text="For webhooks: begins with https://. It is stored encrypted and not shown again.",
        # A Slack address is a secret, and is not written back into a page.
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )

    def clean_recipients(self) -> list[str]:
        found: list[str] = self.cleaned_data["recipients"].replace(",", "\n").split()
        for address in found:
            try:
                validate_email(address)
            except ValidationError:
                raise ValidationError(f"“{address}” is not an e-mail address.") from None
        return found


def _found(search: str) -> QuerySet[Delivery]:
    """The messages that ``search`` finds in their subject, the name of their channel or their problem, the
    newest first."""
    deliveries = Delivery.objects.select_related("channel")
    if search:
        deliveries = deliveries.filter(
            Q(subject__icontains=search) | Q(channel__name__icontains=search) | Q(problem__icontains=search)
        )
    return deliveries.order_by("-pk")


def _page(request: TenantRequest, form: NewChannel, key: str = "", status: int = 200) -> HttpResponse:
    search, before = words(request), place(request, "before")
    deliveries = _found(search)
    if before is not None:
        deliveries = deliveries.filter(pk__lt=before)
    some = list(deliveries[: SHOWN_DELIVERIES + 1])
    more, some = len(some) > SHOWN_DELIVERIES, some[:SHOWN_DELIVERIES]
    asked = {"q": search} if search else {}
    slug = request.tenant.organization.slug
    context: dict[str, Any] = {
        "channels": NotificationChannel.objects.order_by("name"),
        "deliveries": some,
        "search": search,
        "searchable": more or bool(search or before),
        "csv": f"{reverse('console:deliveries_csv', args=[slug])}?{urlencode(asked)}",
        "first": f"?{urlencode(asked)}#deliveries" if before is not None else "",
        "next": f"?{urlencode({**asked, 'before': some[-1].pk})}#deliveries" if more else "",
        "topics": dict(topic_choices()),
        "form": form,
        "signing_key": key,
    }
    response = render(request, "console/notifications/page.html", context, status=status)
    if key:
        response.headers["Cache-Control"] = "no-store"
    return response


@requires(Permission.MANAGE_NOTIFICATIONS)
def notifications(request: TenantRequest) -> HttpResponse:
    """Channels and deliveries; a POST adds a channel and shows a webhook's signing key this once."""
    if request.method != "POST":
        return _page(request, NewChannel(initial={"topics": [name for name, _ in topic_choices()]}))
    form = NewChannel(request.POST)
    if form.is_valid():
        try:
            channel, key = channels.add_channel(
                acting_user=request.user, organization=request.tenant.organization, **form.cleaned_data
            )
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"Added {channel.name}. Send a test to see whether it works.")
            if key:
                return _page(request, NewChannel(), key)
            return redirect(reverse("console:notifications", args=[request.tenant.organization.slug]))
    return _page(request, form, status=422)


@requires(Permission.MANAGE_NOTIFICATIONS)
@require_POST
def channel(request: TenantRequest, channel: int) -> HttpResponse:
    """``do``: test, on, off or remove."""
    found = get_object_or_404(NotificationChannel.objects.select_related("organization"), pk=channel)
    do = request.POST.get("do")
    if do == "test":
        channels.send_test(acting_user=request.user, channel=found)
        messages.success(request, f"A test is on its way to {found.name}. Its outcome appears below.")
    elif do in {"on", "off"}:
        channels.switch_channel(acting_user=request.user, channel=found, on=do == "on")
        messages.success(request, f"{found.name} is {do}.")
    elif do == "remove":
        channels.remove_channel(acting_user=request.user, channel=found)
        messages.success(request, f"Removed {found.name}.")
    else:
        return HttpResponseBadRequest("do: test, on, off or remove.")
    return redirect(reverse("console:notifications", args=[request.tenant.organization.slug]))


@requires(Permission.MANAGE_NOTIFICATIONS)
def delivery_file(request: TenantRequest) -> HttpResponse:
    """``notifications/deliveries.csv``: every message that the search finds."""

    def rows() -> Iterator[Row]:
        for each in _found(words(request)).iterator(chunk_size=CHUNK):
            yield {
                "created_at": moment(each.created_at),
                "channel": each.channel.name,
                "topic": each.topic,
                "message": each.subject,
                "state": each.state,
                "attempts": each.attempts,
                "problem": each.problem,
                "sent_at": moment(each.sent_at) if each.sent_at else "",
            }

    return list_file(f"notifications-{request.tenant.organization.slug}", COLUMNS, rows())


urlpatterns = [
    path("", notifications, name="notifications"),
    path("deliveries.csv", delivery_file, name="deliveries_csv"),
    path("<int:channel>/", channel, name="notification_channel"),
]
