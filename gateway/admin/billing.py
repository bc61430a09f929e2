"""Prices, codes, rates and what became of the books in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from billing.models import DeadLetter, ExchangeRate, Price, ReconcileReport, RedeemableCode, TaskRun
from billing.services import codes
from gateway.admin.served import ReadOnly, Served, operator


@admin.register(Price)
class PriceAdmin(ReadOnly):
    """Prices, newest first; they are set by the configuration file and never changed."""

    list_display = ("__str__", "input", "cached_input", "cache_write", "output", "effective_from")
    list_filter = ("deployment", "model_group")
    ordering = ("-effective_from",)


@admin.register(RedeemableCode)
class RedeemableCodeAdmin(Served):
    """Codes worth money. A new one is shown once, above the list."""

    list_display = ("__str__", "amount", "memo", "expires_at", "made_by", "made_at", "posting")
    fields = ("amount", "expires_at", "memo")

    def danger(self, request: HttpRequest) -> str:  # noqa: ARG002  # the same for all
        """A code is money."""
        return "make a code that adds funds"

    def has_change_permission(self, request: HttpRequest, obj: RedeemableCode | None = None) -> bool:  # noqa: ARG002  # Django's signature
        return False

    def has_delete_permission(self, request: HttpRequest, obj: RedeemableCode | None = None) -> bool:  # noqa: ARG002  # Django's signature
        return False

    def save_model(self, request: HttpRequest, obj: RedeemableCode, form: Any, change: bool) -> None:  # noqa: ARG002  # Django's signature
        values = {name: form.cleaned_data[name] for name in self.fields}
        made, text = codes.make_code(acting_user=operator(request), **values)
        obj.pk = made.pk
        self.message_user(request, f"{text} is worth {made.amount:f} US dollars. It is not shown again.")


@admin.register(ExchangeRate)
class ExchangeRateAdmin(ReadOnly):
    """Exchange rates, newest first; they are entered by the configuration file and never changed."""

    list_display = ("currency", "rate", "effective_from")
    ordering = ("-effective_from",)


@admin.register(ReconcileReport)
class ReconcileReportAdmin(ReadOnly):
    """Whether the books balance."""

    list_display = ("at", "balanced")
    list_filter = ("balanced",)
    ordering = ("-at",)


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnly):
    """Journal records that could not become usage events."""

    list_display = ("at", "reason")
    ordering = ("-at",)


@admin.register(TaskRun)
class TaskRunAdmin(ReadOnly):
    """What Celery last did of each kind, how long it took, and whether it failed."""

    list_display = (
        "name",
        "started_at",
        "ended_at",
        "seconds",
        "error",
        "succeeded_at",
        "runs",
        "failures",
        "detail",
    )
    ordering = ("name",)
