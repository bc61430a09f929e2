"""Reads of routing. What is here belongs to the platform, not to a tenant."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import QuerySet

from routing.models import Deployment, ModelGroup, Provider
from tenants.models import Organization


def providers() -> QuerySet[Provider]:
    """Every provider by name, with its deployments."""
    return Provider.objects.order_by("name").prefetch_related("deployments")


def deployments() -> QuerySet[Deployment]:
    """Every deployment by name, with its provider."""
    return Deployment.objects.order_by("name").select_related("provider")


def model_groups() -> QuerySet[ModelGroup]:
    """Every model group by name, with its members and their deployments."""
    return ModelGroup.objects.order_by("name").prefetch_related("members__deployment__provider")


def permitted_names(organization: Organization, *narrower: Collection[str] | None) -> frozenset[str] | None:
    """Names of the model groups that the organization, its plan and each of ``narrower`` all allow.

    None: every one. Layers can only narrow, so a name must be in each list that is not None.
    """
    plan = organization.plan.model_groups if organization.plan is not None else None
    permitted: frozenset[str] | None = None
    for layer in (plan, organization.model_groups, *narrower):
        if layer is not None:
            permitted = frozenset(layer) if permitted is None else permitted & frozenset(layer)
    return permitted


def model_groups_of(organization: Organization, *narrower: Collection[str] | None) -> QuerySet[ModelGroup]:
    """The model groups that ``organization`` may use, narrowed by a team's or key's list; by name."""
    permitted = permitted_names(organization, *narrower)
    found = model_groups()
    return found if permitted is None else found.filter(name__in=permitted)


def missing_model_groups(names: Collection[str]) -> list[str]:
    """Those of ``names`` that no model group has, sorted."""
    known = ModelGroup.objects.filter(name__in=names).values_list("name", flat=True)
    return sorted(set(names) - set(known))
