"""Organizations and plans: making and changing them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.db import transaction
from django.utils import timezone

from tenants.models import Organization, Plan, User
from tenants.services import audit, rows


class OrganizationError(ValueError):
    """An organization or plan that cannot be made or changed so."""


class OrganizationExists(OrganizationError):
    """The slug is taken."""


class UnknownTimeZone(OrganizationError):
    """The time zone's name is not in the tz database."""


class BadTerms(OrganizationError):
    """Terms of payment that contradict themselves."""


class UnchangeableField(OrganizationError):
    """A field that ``update_organization`` does not change."""


class PlanInUse(OrganizationError):
    """Organizations are still on the plan."""


CHANGEABLE = frozenset(
    {
        "name",
        "plan",
        "time_zone",
        "markup",
        "currency",
        "model_groups",
        "lower_max_tokens",
        "store_responses",
        "keep_details_days",
        "log_content",
        "content_days",
        "regions",
        "hidden_headers",
        "cors_origins",
        "oidc_only",
        "require_mfa",
    }
)


def _check_time_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UnknownTimeZone(f"{name!r} is not a time zone, such as Europe/Berlin or UTC.") from None


def _check_terms(billing: str, credit_limit: Decimal | None) -> None:
    if credit_limit is None:
        return
    if billing == "prepaid":
        raise BadTerms("A prepaid organization never goes below zero, so it has no credit limit.")
    if not (credit_limit.is_finite() and credit_limit >= 0):
        raise BadTerms("A credit limit is not negative.")


def _check_markup(markup: Decimal) -> None:
    if not (markup.is_finite() and markup >= 0):
        raise BadTerms("A markup is not negative.")


@transaction.atomic
def create_organization(
    *,
    acting_user: User | None,
    slug: str,
    name: str,
    time_zone: str = "UTC",
    billing: str = "postpaid",
    credit_limit: Decimal | None = None,
    markup: Decimal = Decimal(0),
    currency: str = "USD",
    lower_max_tokens: bool = False,
    store_responses: bool = False,
    keep_details_days: int | None = None,
    log_content: bool = False,
    content_days: int = 30,
    plan: Plan | None = None,
    model_groups: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    hidden_headers: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
) -> Organization:
    """A new tenant, without members, teams or money.

    ``credit_limit`` is in US dollars, ``markup`` a share (0.2 adds a fifth), ``currency`` the one it
    is invoiced in. ``keep_details_days`` None: details of requests are kept for ever. ``regions`` None: its
    requests go anywhere; ``hidden_headers`` are of ``HIDEABLE_HEADERS``; ``cors_origins`` as browsers
    send them. Raises
    ``OrganizationExists``, ``UnknownTimeZone``, ``BadTerms``, ``InvalidRow``.
    """
    _check_time_zone(time_zone)
    _check_terms(billing, credit_limit)
    _check_markup(markup)
    organization = Organization(
        slug=slug,
        name=name,
        time_zone=time_zone,
        billing=billing,
        credit_limit=credit_limit,
        markup=markup,
        currency=currency,
        lower_max_tokens=lower_max_tokens,
        store_responses=store_responses,
        keep_details_days=keep_details_days,
        log_content=log_content,
        content_days=content_days,
        plan=plan,
        model_groups=None if model_groups is None else list(model_groups),
        regions=None if regions is None else list(regions),
        hidden_headers=list(hidden_headers),
        cors_origins=list(cors_origins),
    )
    rows.check(organization)
    if Organization.objects.filter(slug=slug).exists():
        raise OrganizationExists(f"There is an organization {slug!r} already.")
    organization.save(force_insert=True)
    audit.record(
        acting_user=acting_user,
        verb="created",
        target=organization,
        organization=organization,
        detail={"name": name, "billing": billing, "time_zone": time_zone},
    )
    return organization


@transaction.atomic
def update_organization(
    *, acting_user: User | None, organization: Organization, **changes: Any
) -> Organization:
    """Change the fields in ``CHANGEABLE``; nothing if all are so already.

    How it pays is changed by ``billing.services.wallet.set_terms``, which moves the wallet's limit too.
    Raises ``UnchangeableField``, ``UnknownTimeZone``, ``BadTerms``, ``InvalidRow``.
    """
    if unknown := set(changes) - CHANGEABLE:
        raise UnchangeableField(f"Not changed here: {', '.join(sorted(unknown))}.")
    if "time_zone" in changes:
        _check_time_zone(changes["time_zone"])
    if "markup" in changes:
        _check_markup(changes["markup"])
    return _change(acting_user, organization, changes)


def _change(acting_user: User | None, organization: Organization, changes: dict[str, Any]) -> Organization:
    locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if changes := rows.changed(locked, changes):
        detail = rows.assign(locked, changes)
        audit.record(
            acting_user=acting_user, verb="changed", target=locked, organization=locked, detail=detail
        )
    for name in changes:
        setattr(organization, name, getattr(locked, name))
    return locked


@transaction.atomic
def change_terms(
    *, acting_user: User | None, organization: Organization, billing: str, credit_limit: Decimal | None
) -> Organization:
    """Change how an organization pays. Only ``billing.services.wallet.set_terms`` calls this.

    Raises ``BadTerms``, ``InvalidRow``.
    """
    _check_terms(billing, credit_limit)
    return _change(acting_user, organization, {"billing": billing, "credit_limit": credit_limit})


@transaction.atomic
def suspend_organization(*, acting_user: User | None, organization: Organization) -> Organization:
    """Stop an organization: its keys are refused and its pages do not exist, but nothing is lost."""
    if organization.suspended_at is not None:
        return organization
    return _change(acting_user, organization, {"suspended_at": timezone.now()})


@transaction.atomic
def resume_organization(*, acting_user: User | None, organization: Organization) -> Organization:
    """Undo ``suspend_organization``."""
    return _change(acting_user, organization, {"suspended_at": None})


@transaction.atomic
def remove_organization(*, acting_user: User | None, organization: Organization) -> None:
    """Delete an organization with all that is in it, its own audit entries too; one of this stays with
    the platform.

    The caller makes sure that nothing was used or paid: ``billing`` knows, this app does not.
    """
    locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    audit.record(acting_user=acting_user, verb="removed", target=locked, detail={"name": locked.name})
    locked.delete()


@transaction.atomic
def create_plan(*, acting_user: User | None, name: str, model_groups: Sequence[str] | None = None) -> Plan:
    """A new plan. ``model_groups`` None: all of them. Raises ``OrganizationExists``, ``InvalidRow``."""
    plan = Plan(name=name, model_groups=None if model_groups is None else list(model_groups))
    rows.check(plan)
    if Plan.objects.filter(name=name).exists():
        raise OrganizationExists(f"There is a plan {name!r} already.")
    plan.save(force_insert=True)
    audit.record(
        acting_user=acting_user, verb="created", target=plan, detail={"model_groups": plan.model_groups}
    )
    return plan


@transaction.atomic
def update_plan(*, acting_user: User | None, plan: Plan, **changes: Any) -> Plan:
    """Change a plan's ``name`` or ``model_groups``. Raises ``InvalidRow``."""
    locked = Plan.objects.select_for_update(no_key=True).get(pk=plan.pk)
    if changes := rows.changed(locked, changes):
        detail = rows.assign(locked, changes)
        audit.record(acting_user=acting_user, verb="changed", target=locked, detail=detail)
    return locked


@transaction.atomic
def remove_plan(*, acting_user: User | None, plan: Plan) -> None:
    """Delete a plan and its quotas. Raises ``PlanInUse`` while an organization is on it."""
    locked = Plan.objects.select_for_update(no_key=True).get(pk=plan.pk)
    if Organization.objects.filter(plan=locked).exists():
        raise PlanInUse(f"The plan {locked.name!r} has organizations on it.")
    audit.record(acting_user=acting_user, verb="removed", target=locked)
    locked.delete()
