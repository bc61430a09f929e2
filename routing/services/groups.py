"""Model groups: the names clients send, and the deployments behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone
from django_scopes import scopes_disabled

from routing.links import FALLBACK_REASONS, find_cycle, misshapen, neighbours
from routing.models import Deployment, GroupDeployment, ModelGroup
from tenants.models import Plan, Team, User
from tenants.services import audit, rows

CHANGEABLE = frozenset(
    {"strategy", "fallbacks", "rules", "max_cost", "regions", "pin", "affinity", "hedge", "resume"}
) | frozenset({"structured_output", "validate_tools", "unsupported_params"})


class ModelGroupError(ValueError):
    """A model group that cannot be made or changed so."""


class ModelGroupExists(ModelGroupError):
    """The name is taken."""


class ModelGroupInUse(ModelGroupError):
    """Another model group still leads to it."""


class MissingModelGroup(ModelGroupError):
    """A fallback or rule leads to a group that does not exist."""


class FallbackCycle(ModelGroupError):
    """Fallbacks or rules that lead back to where they began."""


class BadLinks(ModelGroupError):
    """Fallbacks or rules with unknown fields, or that could never matter."""


class UnpricedGroup(ModelGroupError):
    """No deployment of the group has a price, so nothing would be served."""


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment's place in a group: lower ``priority`` is tried first, ``weight`` 0 drains it."""

    deployment: Deployment
    priority: int = 1
    weight: int = 1


def check_served(group: ModelGroup) -> None:
    """Raise ``UnpricedGroup`` unless a deployment of the group has a price, or it leads to another group."""
    links = neighbours(group.fallbacks, group.rules)
    if links["rules"] or links["on_error"]:
        return
    for place in group.members.select_related("deployment"):
        # Prices are kept by billing, which stands on routing; a row without any rate ended a price.
        price = place.deployment.prices.filter(effective_from__lte=timezone.now())
        latest = price.order_by("-effective_from", "-pk").first()
        if latest is not None and latest.rates.priced:
            return
    raise UnpricedGroup(
        f"No deployment of {group.name} has a price, so nothing would be served: "
        "set a price, add a deployment that has one, or a fallback."
    )


def _check_links() -> None:
    """Raise unless every fallback and rule leads to a group, and none leads back."""
    groups = {group.name: neighbours(group.fallbacks, group.rules) for group in ModelGroup.objects.all()}
    for name, links in groups.items():
        for reason, targets in links.items():
            if missing := targets - groups.keys():
                raise MissingModelGroup(
                    f"{name}: {reason} leads to {', '.join(sorted(missing))}, which is not a model group."
                )
    for reason in (*FALLBACK_REASONS, "rules"):
        if way := find_cycle({name: links[reason] for name, links in groups.items()}):
            raise FallbackCycle(f"{reason} goes in a circle: {' -> '.join(way)}.")


def _check_shape(group: ModelGroup) -> None:
    if problems := misshapen(group.fallbacks, group.rules):
        raise BadLinks("; ".join(problems))


def _check(group: ModelGroup) -> None:
    """All that can be wrong with one group among the others."""
    _check_links()
    own = set(group.members.values_list("deployment__name", flat=True))
    for index, rule in enumerate(group.rules):
        if missing := set(rule.get("deployments") or ()) - own:
            raise BadLinks(f"rules[{index}]: {', '.join(sorted(missing))} is no deployment of {group.name}.")
        plan, team = rule["when"].get("plan"), rule["when"].get("team")
        if plan is not None and not Plan.objects.filter(name=plan).exists():
            raise BadLinks(f"rules[{index}].when.plan: there is no plan {plan!r}.")
        with scopes_disabled():
            if team is not None and not Team.objects.filter(slug=team).exists():
                raise BadLinks(f"rules[{index}].when.team: there is no team {team!r}.")
    check_served(group)


@transaction.atomic
def create_model_group(
    *,
    acting_user: User | None,
    name: str,
    strategy: str = "priority",
    places: Sequence[Place] = (),
    fallbacks: Mapping[str, Any] | None = None,
    rules: Sequence[Mapping[str, Any]] = (),
    max_cost: Decimal | None = None,
    regions: Sequence[str] | None = None,
    pin: bool = True,
    affinity: bool = True,
    hedge: bool = False,
    resume: bool = False,
    structured_output: str = "repair",
    validate_tools: bool = False,
    unsupported_params: str = "map",
    check_links: bool = True,
) -> ModelGroup:
    """A new model group over ``places``.

    ``max_cost`` is what one request may be charged at most, in US dollars; ``regions`` are those of
    deployments it may use, None: all; ``pin``: whether clients may ask for one of them by name;
    ``affinity``: whether a conversation goes on where its prompt is cached; ``hedge``: whether a request
    that is late is sent to a second one too; ``resume``: whether a stream that breaks off is continued by
    another one.
    ``structured_output`` and ``unsupported_params`` are words of ``routing.exactness``.
    ``check_links`` False leaves links and prices to a caller that makes several things and checks them
    itself. Raises ``ModelGroupExists``, ``MissingModelGroup``, ``FallbackCycle``, ``BadLinks``,
    ``UnpricedGroup``, ``InvalidRow``.
    """
    group = ModelGroup(
        name=name,
        strategy=strategy,
        fallbacks=dict(fallbacks or {}),
        rules=list(rules),
        max_cost=max_cost,
        regions=None if regions is None else list(regions),
        pin=pin,
        affinity=affinity,
        hedge=hedge,
        resume=resume,
        structured_output=structured_output,
        validate_tools=validate_tools,
        unsupported_params=unsupported_params,
    )
    _check_shape(group)
    rows.check(group)
    if ModelGroup.objects.filter(name=name).exists():
        raise ModelGroupExists(f"There is a model group {name!r} already.")
    group.save(force_insert=True)
    _place(group, places)
    if check_links:
        _check(group)
    audit.record(
        acting_user=acting_user,
        verb="created",
        target=group,
        detail={"strategy": strategy, "deployments": [place.deployment.name for place in places]},
    )
    return group


def _place(group: ModelGroup, places: Sequence[Place]) -> None:
    GroupDeployment.objects.bulk_create(
        GroupDeployment(
            group=group, deployment=place.deployment, priority=place.priority, weight=place.weight
        )
        for place in places
    )


@transaction.atomic
def update_model_group(
    *, acting_user: User | None, group: ModelGroup, check_links: bool = True, **changes: Any
) -> ModelGroup:
    """Change anything but the name and the deployments; nothing if all is so already.

    Raises ``ModelGroupError`` for another field, ``MissingModelGroup``, ``FallbackCycle``, ``BadLinks``,
    ``UnpricedGroup``, ``InvalidRow``.
    """
    if unknown := set(changes) - CHANGEABLE:
        raise ModelGroupError(f"Not changed here: {', '.join(sorted(unknown))}.")
    locked = ModelGroup.objects.select_for_update(no_key=True).get(pk=group.pk)
    if changes := rows.changed(locked, changes):
        detail = rows.assign(locked, changes)
        _check_shape(locked)
        if check_links:
            _check(locked)
        audit.record(acting_user=acting_user, verb="changed", target=locked, detail=detail)
    return locked


def _described(places: Sequence[Place | GroupDeployment]) -> list[dict[str, Any]]:
    return [{"name": p.deployment.name, "priority": p.priority, "weight": p.weight} for p in places]


@transaction.atomic
def set_members(
    *, acting_user: User | None, group: ModelGroup, places: Sequence[Place], check_links: bool = True
) -> None:
    """Make the group's deployments exactly ``places``, in order; nothing if they are so already.

    Raises ``BadLinks``, ``UnpricedGroup``; with ``check_links`` False the caller checks.
    """
    locked = ModelGroup.objects.select_for_update(no_key=True).get(pk=group.pk)
    current = _described(list(locked.members.select_related("deployment").order_by("pk")))
    wanted = _described(places)
    if current == wanted:
        if check_links:
            _check(locked)
        return
    locked.members.all().delete()
    _place(locked, places)
    if check_links:
        _check(locked)
    audit.record(
        acting_user=acting_user,
        verb="set deployments",
        target=locked,
        detail={"deployments": {"from": current, "to": wanted}},
    )


@transaction.atomic
def remove_model_group(*, acting_user: User | None, group: ModelGroup) -> None:
    """Delete a model group and its prices. Raises ``ModelGroupInUse`` while another group leads to it."""
    locked = ModelGroup.objects.select_for_update(no_key=True).get(pk=group.pk)
    for other in ModelGroup.objects.exclude(pk=locked.pk):
        if any(locked.name in targets for targets in neighbours(other.fallbacks, other.rules).values()):
            raise ModelGroupInUse(f"The model group {other.name!r} leads to {locked.name!r}.")
    audit.record(acting_user=acting_user, verb="removed", target=locked)
    locked.delete()
