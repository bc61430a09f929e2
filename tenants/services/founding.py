"""Organizations that people make for themselves."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django_scopes import scopes_disabled

from tenants.models import Membership, Organization, Plan, User
from tenants.permissions import Role
from tenants.services.members import add_member
from tenants.services.organizations import OrganizationError, create_organization
from tenants.services.teams import create_team

logger = logging.getLogger(__name__)

# How many organizations one person may own before only an operator makes them another.
MOST_OWNED = 3
FIRST_TEAM = ("main", "Main")


class TooManyOrganizations(OrganizationError):
    """The person owns ``MOST_OWNED`` organizations."""


class MissingPlan(OrganizationError):
    """SIGN_UP_PLAN names no plan; ``tenants.checks`` tells operators before anybody meets this."""


def first_terms() -> dict[str, Any]:
    """How a new organization pays: ``billing`` and ``credit_limit`` (US dollars), by SIGN_UP_CREDIT."""
    credit: Decimal = settings.SIGN_UP_CREDIT
    if credit > 0:
        return {"billing": "postpaid", "credit_limit": credit}
    return {"billing": "prepaid", "credit_limit": None}


def first_plan() -> Plan | None:
    """The plan of a new organization, by SIGN_UP_PLAN. Raises ``MissingPlan``."""
    if not settings.SIGN_UP_PLAN:
        return None
    found = Plan.objects.filter(name=settings.SIGN_UP_PLAN).first()
    if found is None:
        logger.error("SIGN_UP_PLAN names no plan, so nobody can make an organization")
        raise MissingPlan(
            "Organizations cannot be made at the moment, because of how this gateway is set up. "
            "Tell whoever runs it that the plan for new organizations is missing."
        )
    return found


@transaction.atomic
def found_organization(*, acting_user: User, slug: str, name: str, time_zone: str) -> Organization:
    """A new organization owned by ``acting_user``, with a first team so that keys can be made.

    Raises ``TooManyOrganizations``, ``MissingPlan``, and what ``create_organization`` does.
    """
    # Two requests at once would both find room.
    User.objects.select_for_update(no_key=True).get(pk=acting_user.pk)
    with scopes_disabled():
        owned = Membership.objects.filter(user=acting_user, role=Role.OWNER.value).count()
    if owned >= MOST_OWNED:
        raise TooManyOrganizations(
            f"You own {owned} organizations. Ask whoever runs this gateway to make another."
        )
    organization = create_organization(
        acting_user=acting_user,
        slug=slug,
        name=name,
        time_zone=time_zone,
        plan=first_plan(),
        **first_terms(),
    )
    add_member(acting_user=acting_user, organization=organization, email=acting_user.email, role=Role.OWNER)
    slug_of_team, name_of_team = FIRST_TEAM
    create_team(acting_user=acting_user, organization=organization, slug=slug_of_team, name=name_of_team)
    return organization
