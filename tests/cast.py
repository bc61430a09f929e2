"""A small fixed cast: one organization with people in every role, two teams and a key in each."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.utils.module_loading import import_string

from billing.services.wallet import wallet
from tenants.models import ApiKey, Membership, Organization, Team
from tenants.permissions import Role
from tenants.services.keys import create_key
from tenants.services.members import add_member
from tenants.services.organizations import create_organization
from tenants.services.teams import create_team, set_team_member

PASSWORD = "correct horse battery"


@cache
def hashed_password(hasher: str) -> str:
    """``PASSWORD`` as ``hasher`` (the first of PASSWORD_HASHERS) stores it.

    Hashing takes long by design, so it is done once a run.
    """
    return make_password(PASSWORD, hasher=import_string(hasher)())


@dataclass(frozen=True)
class Cast:
    """The organization ``slug`` and who is in it; every person's password is ``PASSWORD``.

    E-mail addresses are ``<name>@<slug>.example``. Bob is a plain member of the organization and admin
    of the team search; Cleo is a member in support; Vera only looks.
    """

    organization: Organization
    ann: Membership  # owner
    adam: Membership  # admin
    fay: Membership  # finance
    bob: Membership  # member; admin of search
    cleo: Membership  # member; member of support
    vera: Membership  # viewer
    search: Team
    support: Team
    search_key: ApiKey  # owned by Bob
    search_secret: str
    support_key: ApiKey  # without an owner
    support_secret: str


def make_cast(
    slug: str,
    *,
    billing: str = "postpaid",
    credit_limit: Decimal | None = None,
    markup: Decimal = Decimal(0),
    time_zone: str = "UTC",
) -> Cast:
    """Make the cast of ``slug`` through the services; its wallet is there too."""
    organization = create_organization(
        acting_user=None,
        slug=slug,
        name=f"{slug.capitalize()} Ltd",
        time_zone=time_zone,
        billing=billing,
        credit_limit=credit_limit,
        markup=markup,
    )

    def member(name: str, role: Role) -> Membership:
        added = add_member(
            acting_user=None, organization=organization, email=f"{name}@{slug}.example", role=role
        )
        added.user.password = hashed_password(settings.PASSWORD_HASHERS[0])
        added.user.save(update_fields=["password"])
        return added

    bob, cleo = member("bob", Role.MEMBER), member("cleo", Role.MEMBER)
    search = create_team(acting_user=None, organization=organization, slug="search", name="Search")
    support = create_team(acting_user=None, organization=organization, slug="support", name="Support")
    set_team_member(acting_user=None, team=search, membership=bob, role=Role.ADMIN)
    set_team_member(acting_user=None, team=support, membership=cleo, role=Role.MEMBER)
    search_key, search_secret = create_key(acting_user=None, team=search, name="search-backend", owner=bob)
    support_key, support_secret = create_key(acting_user=None, team=support, name="support-bot")
    wallet(organization)
    return Cast(
        organization=organization,
        ann=member("ann", Role.OWNER),
        adam=member("adam", Role.ADMIN),
        fay=member("fay", Role.FINANCE),
        bob=bob,
        cleo=cleo,
        vera=member("vera", Role.VIEWER),
        search=search,
        support=support,
        search_key=search_key,
        search_secret=search_secret,
        support_key=support_key,
        support_secret=support_secret,
    )
