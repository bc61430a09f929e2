"""The lists of the operator area as CSV: every line that the search finds, beyond the page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from django.http import HttpResponse
from django.shortcuts import get_object_or_404

from billing.exports.sheets import Row
from billing.models import ReconcileReport
from billing.services.dead_letters import shown
from billing.usage_export import CURRENCY, moment
from gateway.console.lists import CHUNK, list_file, words
from gateway.operators import (
    accounting,
    dead_letters,
    deployments,
    groups,
    margin,
    providers,
    reconcile,
    tenants,
)
from gateway.operators.access import OperatorRequest, operators_only

TENANTS = (
    "slug",
    "name",
    "plan",
    "billing",
    "created_at",
    "suspended_at",
    "balance",
    "may_spend",
    "charged_this_month",
    "cost_this_month",
    "currency",
    "attention",
)
MARGINS = ("month", "by", "slug", "name", "requests", "cost", "charge", "margin", "currency")
CHECKS = (
    "name",
    "answers",
    "reported_input",
    "counted_input",
    "reported_output",
    "counted_output",
    "ratio",
    "farthest",
)
DIFFERENCES = ("organization", "what", "where", "expected", "found")
PROVIDERS = ("name", "kind", "base_url", "credentials", "deployments")
DEPLOYMENTS = (
    "name",
    "provider",
    "model",
    "context_window",
    "max_output_tokens",
    "capabilities",
    "region",
    "groups",
)
GROUPS = ("name", "strategy", "deployments")
LETTERS = ("number", "at", "reason", "request_id", "organization_id", "charge")


@operators_only
def tenant_file(request: OperatorRequest) -> HttpResponse:
    """``/operator/tenants.csv``. Amounts are US dollars, those of the month by UTC."""
    every = list(tenants.Asked.of(request).found)

    def rows() -> Iterator[Row]:
        for each in tenants.tenant_rows(every, datetime.now(UTC)):
            organization = each.organization
            suspended = organization.suspended_at
            yield {
                "slug": organization.slug,
                "name": organization.name,
                "plan": organization.plan.name if organization.plan else "",
                "billing": organization.billing,
                "created_at": moment(organization.created_at),
                "suspended_at": moment(suspended) if suspended else "",
                "balance": each.balance,
                "may_spend": "" if each.spendable is None else each.spendable,
                "charged_this_month": each.charge,
                "cost_this_month": each.cost,
                "currency": CURRENCY,
                "attention": each.attention,
            }

    return list_file("tenants", TENANTS, rows())


@operators_only
def margin_file(request: OperatorRequest) -> HttpResponse:
    """``/operator/margin.csv?by=tenant&month=2026-11``; by something else than tenants no line has a slug."""
    asked = margin.Asked.of(request)
    rows = (
        {
            "month": f"{asked.start:%Y-%m}",
            "by": asked.kind,
            "slug": each.slug,
            "name": each.name,
            "requests": each.requests,
            "cost": each.cost,
            "charge": each.charge,
            "margin": each.margin,
            "currency": CURRENCY,
        }
        for each in asked.found(margin.margins(asked.kind, asked.start))
    )
    return list_file(f"margin-{asked.start:%Y-%m}", MARGINS, rows)


@operators_only
def accounting_file(request: OperatorRequest) -> HttpResponse:
    """``/operator/accounting.csv``: a line for each deployment, or for each day of ``?deployment=``. Ratios are
    rounded to four digits; no ratio where nothing was counted."""
    rows = (
        {
            "name": each.name,
            "answers": each.requests,
            "reported_input": each.reported_input,
            "counted_input": each.counted_input,
            "reported_output": each.reported_output,
            "counted_output": each.counted_output,
            "ratio": "" if each.ratio is None else f"{each.ratio:.4f}",
            "farthest": f"{each.worst:.4f}",
        }
        for each in accounting.Asked.of(request).found
    )
    return list_file("accounting", CHECKS, rows)


@operators_only
def difference_file(request: OperatorRequest, report: int) -> HttpResponse:
    """``/operator/reconcile/<number>.csv``: the differences that the search finds."""
    found = reconcile.differences_of(get_object_or_404(ReconcileReport, pk=report), words(request).lower())
    rows = ({name: each.get(name, "") for name in DIFFERENCES} for each in found)
    return list_file(f"differences-{report}", DIFFERENCES, rows)


@operators_only
def provider_file(request: OperatorRequest) -> HttpResponse:
    """``/operator/providers.csv``; of credentials their number alone."""
    rows: Iterator[Row] = (
        {
            "name": each.name,
            "kind": each.kind,
            "base_url": each.base_url,
            "credentials": len(each.credentials.all()),
            "deployments": each.placed,  # type: ignore[attr-defined]  # annotated
        }
        for each in providers.found(request)
    )
    return list_file("providers", PROVIDERS, rows)


@operators_only
def deployment_file(request: OperatorRequest) -> HttpResponse:
    """``/operator/deployments.csv``."""
    rows: Iterator[Row] = (
        {
            "name": each.name,
            "provider": each.provider.name,
            "model": each.model,
            "context_window": each.context_window,
            "max_output_tokens": each.max_output_tokens,
            "capabilities": "" if each.capabilities is None else each.capabilities,
            "region": each.region,
            "groups": [place.group.name for place in each.groups.all()],
        }
        for each in deployments.found(request)
    )
    return list_file("deployments", DEPLOYMENTS, rows)


@operators_only
def group_file(request: OperatorRequest) -> HttpResponse:
    """``/operator/groups.csv``."""
    rows: Iterator[Row] = (
        {
            "name": each.name,
            "strategy": each.strategy,
            "deployments": [place.deployment.name for place in each.members.all()],
        }
        for each in groups.found(request)
    )
    return list_file("model-groups", GROUPS, rows)


@operators_only
def letter_file(request: OperatorRequest) -> HttpResponse:
    """``/operator/dead-letters.csv``; never a record itself."""

    def rows() -> Iterator[Row]:
        for letter in dead_letters.found(request).iterator(chunk_size=CHUNK):
            facts = shown(letter)
            yield {
                "number": letter.pk,
                "at": moment(letter.at),
                "reason": letter.reason,
                **{name: facts.get(name, "") for name in LETTERS[3:]},
            }

    return list_file("dead-letters", LETTERS, rows())
