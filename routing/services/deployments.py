"""Deployments: one model at one provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from routing.models import Deployment, Provider
from tenants.models import User
from tenants.services import audit, rows


class DeploymentError(ValueError):
    """A deployment that cannot be made or changed so."""


class DeploymentExists(DeploymentError):
    """The name is taken."""


class DeploymentInUse(DeploymentError):
    """A model group still leads to the deployment."""


CHANGEABLE = frozenset({"provider", "model", "context_window", "max_output_tokens", "capabilities", "region"})


@transaction.atomic
def create_deployment(
    *,
    acting_user: User | None,
    name: str,
    provider: Provider,
    model: str,
    context_window: int | None = None,
    max_output_tokens: int | None = None,
    capabilities: Sequence[str] | None = None,
    region: str = "",
) -> Deployment:
    """A new deployment of ``model`` (the provider's own name for it) at ``provider``.

    Windows are in tokens, None: not checked. ``capabilities`` None: whatever is asked. ``region``
    is where it runs, empty: not said. It is not served until it has a price. Raises ``DeploymentExists``, ``InvalidRow``.
    """
    deployment = Deployment(
        name=name,
        provider=provider,
        model=model,
        context_window=context_window,
        max_output_tokens=max_output_tokens,
        capabilities=None if capabilities is None else list(capabilities),
        region=region,
    )
    rows.check(deployment)
    if Deployment.objects.filter(name=name).exists():
        raise DeploymentExists(f"There is a deployment {name!r} already.")
    deployment.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="created",
        target=deployment,
        detail={"provider": provider.name, "model": model},
    )
    return deployment


@transaction.atomic
def update_deployment(*, acting_user: User | None, deployment: Deployment, **changes: Any) -> Deployment:
    """Change anything but the name; nothing if all is so already. Raises ``DeploymentError``, ``InvalidRow``."""
    if unknown := set(changes) - CHANGEABLE:
        raise DeploymentError(f"Not changed here: {', '.join(sorted(unknown))}.")
    locked = Deployment.objects.select_for_update(of=("self",), no_key=True).get(pk=deployment.pk)
    if changes := rows.changed(locked, changes):
        detail = rows.assign(locked, changes)
        audit.record(acting_user=acting_user, verb="changed", target=locked, detail=detail)
    return locked


@transaction.atomic
def remove_deployment(*, acting_user: User | None, deployment: Deployment) -> None:
    """Delete a deployment and its prices. Raises ``DeploymentInUse`` while a model group has it."""
    locked = Deployment.objects.select_for_update(of=("self",), no_key=True).get(pk=deployment.pk)
    if group := locked.groups.select_related("group").first():
        raise DeploymentInUse(f"The deployment {locked.name!r} is in the model group {group.group.name!r}.")
    audit.record(acting_user=acting_user, verb="removed", target=locked)
    locked.delete()
