"""Plans, people and the audit log in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.http import HttpRequest

from gateway.admin.served import ReadOnly, Served, operator
from gateway.confirmation import guard
from tenants.models import AuditEntry, Plan, User
from tenants.services import organizations

if TYPE_CHECKING:
    # Generic for the type checker only.
    PersonForm = AdminUserCreationForm[User]
    PersonAdmin = DjangoUserAdmin[User]
else:
    PersonForm, PersonAdmin = AdminUserCreationForm, DjangoUserAdmin


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

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        show = super().changeform_view
        return guard(
            request, lambda: show(request, object_id, form_url, extra_context), lambda: "change an account"
        )

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:  # noqa: A002  # Django's signature
        show = super().user_change_password
        return guard(request, lambda: show(request, id, form_url), lambda: "change somebody's password")

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        show = super().delete_view
        return guard(request, lambda: show(request, object_id, extra_context), lambda: "delete an account")

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
