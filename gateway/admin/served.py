"""Pages of the admin that write through services, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from gateway.confirmation import guard
from tenants.models import User

if TYPE_CHECKING:
    # Generic for the type checker only.
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


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

    def danger(self, request: HttpRequest) -> str:  # noqa: ARG002  # for those that override it
        """What ``request``, a POST, is about to do that only somebody does who proved who they are; empty: nothing."""
        return ""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        return guard(
            request,
            lambda: self._change(request, object_id, form_url, extra_context),
            lambda: self.danger(request),
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        show = super().changelist_view
        return guard(request, lambda: show(request, extra_context), lambda: self.danger(request))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        return guard(
            request, lambda: self._delete(request, object_id, extra_context), lambda: self.danger(request)
        )

    def _change(
        self,
        request: HttpRequest,
        object_id: str | None,
        form_url: str,
        extra_context: dict[str, Any] | None,
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

    def _delete(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None
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
