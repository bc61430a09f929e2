"""Applying providers, deployments and model groups."""

from __future__ import annotations

from typing import Any

from gateway.configuration.changes import SECRET, FieldChange
from gateway.configuration.price_blocks import match_price
from gateway.configuration.problems import Path
from gateway.configuration.references import fallbacks_of, rules_of
from gateway.configuration.run import Run, differences
from gateway.configuration.schema import DeploymentBlock, GroupBlock, ProviderBlock
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.services import (
    create_deployment,
    create_model_group,
    create_provider,
    set_credentials,
    set_members,
    update_deployment,
    update_model_group,
    update_provider,
)
from routing.services.groups import Place, check_served
from routing.services.providers import address, stored_secrets


def apply_provider(run: Run, block: ProviderBlock, path: Path) -> None:
    """Make or change one provider and its credentials."""
    run.name("providers", block.name)
    wanted = {
        "kind": block.kind,
        "base_url": address(block.kind, block.base_url),
        "connect_timeout": block.timeouts.connect,
        "first_token_timeout": block.timeouts.first_token,
        "idle_timeout": block.timeouts.idle,
        "total_timeout": block.timeouts.total,
    }
    with run.at(path):
        provider = Provider.objects.filter(name=block.name).first()
        if provider is None:
            create_provider(acting_user=None, name=block.name, credentials=block.credentials, **wanted)  # type: ignore[arg-type]  # the values differ in type
            run.created("providers", block.name)
            return
        differing, shown = differences(provider, wanted)
        if differing:
            update_provider(acting_user=None, provider=provider, **differing)
        if stored_secrets(provider) != block.credentials:
            set_credentials(acting_user=None, provider=provider, secrets=block.credentials)
            shown.append(FieldChange("credentials", SECRET, SECRET))
        run.changed("providers", block.name, shown)


def apply_deployment(run: Run, block: DeploymentBlock, path: Path) -> None:
    """Make or change one deployment and what its provider asks for it."""
    run.name("deployments", block.name)
    with run.at(path):
        wanted = {
            "provider": Provider.objects.get(name=block.provider),
            "model": block.model,
            "context_window": block.context_window,
            "max_output_tokens": block.max_output_tokens,
            "region": block.region or "",
        }
        # Left out, they stay as the catalogue or a measurement set them.
        if block.capabilities is not None:
            wanted["capabilities"] = sorted(set(block.capabilities))
        deployment = Deployment.objects.filter(name=block.name).select_related("provider").first()
        if deployment is None:
            deployment = create_deployment(acting_user=None, name=block.name, **wanted)  # type: ignore[arg-type]  # the values differ in type
            if block.cost is not None:
                match_price(block.cost, "cost", deployment=deployment)
            run.created("deployments", block.name)
            return
        if deployment.capabilities is not None and set(deployment.capabilities) == set(
            block.capabilities or ()
        ):
            wanted.pop("capabilities", None)
        differing, shown = differences(deployment, wanted)
        if differing:
            update_deployment(acting_user=None, deployment=deployment, **differing)
        if block.cost is not None:
            shown += match_price(block.cost, "cost", deployment=deployment)
        run.changed("deployments", block.name, shown)


def apply_model_group(run: Run, block: GroupBlock, path: Path) -> None:
    """Make or change one model group, its deployments and its price.

    Links between groups were checked for the file as a whole, so they may lead to a group further down.
    """
    run.name("model_groups", block.name)
    with run.at(path):
        known = {
            row.name: row for row in Deployment.objects.filter(name__in=[p.name for p in block.deployments])
        }
        places = [Place(known[place.name], place.priority, place.weight) for place in block.deployments]
        bounds: dict[str, Any] = {
            name: getattr(block, name)
            for name in ("max_cost", "regions", "pin", "affinity", "hedge", "resume")
        }
        bounds |= {"structured_output": block.structured_output, "validate_tools": block.validate_tools}
        bounds["unsupported_params"] = block.unsupported_params
        group = ModelGroup.objects.filter(name=block.name).first()
        if group is None:
            group = create_model_group(
                acting_user=None,
                name=block.name,
                strategy=block.strategy,
                places=places,
                fallbacks=fallbacks_of(block),
                rules=rules_of(block),
                check_links=False,
                **bounds,
            )
            check_served(group)
            match_price(block.price, "price", model_group=group)
            run.created("model_groups", block.name)
            return
        shown = _match_links(group, block, bounds)
        before = [_described(row) for row in group.members.select_related("deployment").order_by("pk")]
        after = [_described(place) for place in places]
        if sorted(before) != sorted(after):
            set_members(acting_user=None, group=group, places=places, check_links=False)
            shown.append(FieldChange("deployments", before, after))
        group.refresh_from_db()
        check_served(group)
        shown += match_price(block.price, "price", model_group=group)
        run.changed("model_groups", block.name, shown)


def _match_links(group: ModelGroup, block: GroupBlock, bounds: dict[str, Any]) -> list[FieldChange]:
    stored = {reason: names for reason, names in group.fallbacks.items() if names}
    wanted: dict[str, object] = {"strategy": block.strategy, **bounds}
    if stored != fallbacks_of(block):
        wanted["fallbacks"] = fallbacks_of(block)
    if group.rules != rules_of(block):
        wanted["rules"] = rules_of(block)
    differing, shown = differences(group, wanted)
    if differing:
        update_model_group(acting_user=None, group=group, check_links=False, **differing)
    return shown


def _described(place: Place | GroupDeployment) -> str:
    """A place in a group on one line: name, priority and weight."""
    return f"{place.deployment.name} priority {place.priority} weight {place.weight}"
