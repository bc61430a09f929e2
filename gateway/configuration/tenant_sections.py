"""Applying plans and organizations, with users, teams and keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.utils import timezone
from django_scopes import scope

from billing.calendars import midnight
from billing.currencies import rate_at
from billing.models import LedgerEntry
from billing.money import plain
from billing.services.exchange_rates import set_exchange_rate
from billing.services.wallet import set_terms, top_up, wallet
from gateway.configuration.changes import SECRET, Change, FieldChange, MadeKey
from gateway.configuration.price_blocks import match_own_prices
from gateway.configuration.problems import Path
from gateway.configuration.quota_blocks import match_quotas
from gateway.configuration.run import Run, differences
from gateway.configuration.schema import (
    ExchangeRateBlock,
    KeyBlock,
    OrganizationBlock,
    PlanBlock,
    TeamBlock,
    UserBlock,
)
from gateway.models import AppliedObject
from tenants import keys
from tenants.models import ApiKey, Membership, Organization, Plan, Team, TeamMembership
from tenants.permissions import Role
from tenants.services.keys import create_key, replace_secret, update_key
from tenants.services.members import add_member, set_role
from tenants.services.organizations import (
    create_organization,
    create_plan,
    resume_organization,
    update_organization,
    update_plan,
)
from tenants.services.teams import create_team, set_team_member, update_team

# In AppliedObject: an organization that a prune suspended, so that naming it again resumes it.
SUSPENDED = "suspended"


def opening_reference(slug: str) -> str:
    """The ledger reference of an organization's opening top-up, which is posted once."""
    return f"opening:{slug}"


def opening_balance(organization: Organization) -> Decimal | None:
    """The opening top-up in US dollars; None if there was none."""
    with scope(organization=organization):
        entry = LedgerEntry.objects.filter(
            account="cash", transaction__reference=opening_reference(organization.slug)
        ).first()
    return None if entry is None else entry.amount


def apply_exchange_rate(run: Run, block: ExchangeRateBlock, path: Path) -> None:
    """Enter one rate. Rates the file no longer names stay, since amounts were converted by them."""
    with run.at(path):
        begins = block.effective_from
        if not isinstance(begins, datetime):
            begins = midnight(begins, "UTC")
        row, new = set_exchange_rate(
            acting_user=None, currency=block.currency, rate=block.rate, effective_from=begins
        )
        if new:
            run.outcome.changes.append(Change("+", "exchange rate", str(row)))


def apply_plan(run: Run, block: PlanBlock, path: Path) -> None:
    """Make or change one plan and its quotas."""
    run.name("plans", block.name)
    with run.at(path):
        plan = Plan.objects.filter(name=block.name).first()
        if plan is None:
            plan = create_plan(acting_user=None, name=block.name, model_groups=block.model_groups)
            match_quotas("plan", plan, block.quotas)
            run.created("plans", block.name)
            return
        differing, shown = differences(plan, {"model_groups": block.model_groups})
        if differing:
            update_plan(acting_user=None, plan=plan, **differing)
        shown += match_quotas("plan", plan, block.quotas)
        run.changed("plans", block.name, shown)


def apply_organization(run: Run, block: OrganizationBlock, path: Path) -> None:
    """Make or change one organization and all that the file says of it."""
    run.name("organizations", block.slug)
    organization = run.attempt(path, lambda: _match_organization(run, block))
    if organization is None:
        return
    with scope(organization=organization):
        # Owners first, so that a change of owner never leaves the organization without one.
        by_rank = sorted(enumerate(block.users), key=lambda each: each[1].role != Role.OWNER.value)
        for index, user in by_rank:
            _match_user(run, organization, user, (*path, "users", index))
        for index, team in enumerate(block.teams):
            TeamSection(run, organization, team, (*path, "teams", index)).match()


def _match_organization(run: Run, block: OrganizationBlock) -> Organization:
    # What cannot be converted today could not be shown; raises NoExchangeRate.
    rate_at(block.currency, timezone.now())
    wanted = {
        "name": block.name,
        "plan": Plan.objects.get(name=block.plan) if block.plan is not None else None,
        "time_zone": block.time_zone,
        "markup": block.markup,
        "currency": block.currency,
        "lower_max_tokens": block.lower_max_tokens,
        "store_responses": block.store_responses,
        "keep_details_days": block.keep_details_days,
        "log_content": block.log_content,
        "content_days": block.content_days,
        "model_groups": block.model_groups,
        "regions": block.regions,
        "hidden_headers": block.hidden_headers,
        "cors_origins": block.cors_origins,
    }
    terms = {"billing": block.billing, "credit_limit": block.credit_limit}
    organization = Organization.objects.filter(slug=block.slug).select_related("plan").first()
    if organization is None:
        organization = create_organization(acting_user=None, slug=block.slug, **wanted, **terms)  # type: ignore[arg-type]  # the values differ in type
        wallet(organization)
        _post_opening(run, organization, block)
        _match_limits(organization, block)
        match_own_prices(block.prices, organization)
        run.created("organizations", block.slug)
        return organization
    differing, shown = differences(organization, wanted)
    if differing:
        update_organization(acting_user=None, organization=organization, **differing)
    new_terms, shown_terms = differences(organization, terms)
    if new_terms:
        set_terms(
            acting_user=None,
            organization=organization,
            billing=block.billing,
            credit_limit=block.credit_limit,
        )
    shown += [*shown_terms, *_post_opening(run, organization, block), *_match_limits(organization, block)]
    shown += match_own_prices(block.prices, organization)
    shown += _resume(organization)
    run.changed("organizations", block.slug, shown)
    return organization


def _match_limits(organization: Organization, block: OrganizationBlock) -> list[FieldChange]:
    return [
        *match_quotas("organization", organization, block.quotas),
        *match_quotas("end_user", organization, block.end_user_quotas, "end_user_quotas"),
    ]


def _post_opening(run: Run, organization: Organization, block: OrganizationBlock) -> list[FieldChange]:
    if not block.balance:
        return []
    posted = opening_balance(organization)
    if posted is None:
        top_up(
            acting_user=None,
            organization=organization,
            amount=block.balance,
            reference=opening_reference(block.slug),
            memo="Opening balance",
        )
        return [FieldChange("balance", None, block.balance)]
    if posted != block.balance:
        run.outcome.notes.append(
            f"organization {block.slug}: the opening balance was posted as {plain(posted)} and stays so; "
            "later money is a top-up."
        )
    return []


def _resume(organization: Organization) -> list[FieldChange]:
    """An organization that only a prune suspended goes on when the file names it again."""
    mark = AppliedObject.objects.filter(kind=SUSPENDED, name=organization.slug)
    if organization.suspended_at is None or not mark.exists():
        return []
    resume_organization(acting_user=None, organization=organization)
    mark.delete()
    AppliedObject.objects.get_or_create(kind="organizations", name=organization.slug)
    return [FieldChange("suspended", True, False)]


def find_member(organization: Organization, email: str) -> Membership | None:
    """The member with that e-mail address, whatever its case."""
    with scope(organization=organization):
        return Membership.objects.filter(user__email__iexact=email).select_related("user").first()


def _match_user(run: Run, organization: Organization, block: UserBlock, path: Path) -> None:
    name = f"{organization.slug}/{block.email}"
    run.name("users", name)
    with run.at(path):
        membership = find_member(organization, block.email)
        if membership is None:
            membership = add_member(
                acting_user=None,
                organization=organization,
                email=block.email,
                role=Role(block.role),
                password=block.password,
            )
            match_quotas("member", membership, block.quotas)
            run.created("users", name)
            return
        differing, shown = differences(membership, {"role": block.role})
        if differing:
            set_role(acting_user=None, membership=membership, role=Role(block.role))
        shown += match_quotas("member", membership, block.quotas)
        run.changed("users", name, shown)


@dataclass
class TeamSection:
    """One team of the file, with its members and keys."""

    run: Run
    organization: Organization
    block: TeamBlock
    path: Path

    @property
    def name(self) -> str:
        """The team's identity over all organizations."""
        return f"{self.organization.slug}/{self.block.slug}"

    def match(self) -> None:
        """Make the database match, inside the organization's scope."""
        self.run.name("teams", self.name)
        team = self.run.attempt(self.path, self._match_team)
        if team is None:
            return
        for index, member in enumerate(self.block.members):
            with self.run.at((*self.path, "members", index)):
                self._match_member(team, member.email, Role(member.role))
        for index, key in enumerate(self.block.keys):
            with self.run.at((*self.path, "keys", index)):
                self._match_key(team, key)

    def _match_team(self) -> Team:
        wanted = {"name": self.block.name, "model_groups": self.block.model_groups}
        team = Team.objects.filter(slug=self.block.slug).first()
        if team is None:
            team = create_team(
                acting_user=None,
                organization=self.organization,
                slug=self.block.slug,
                **wanted,  # type: ignore[arg-type]  # the values differ in type
            )
            match_quotas("team", team, self.block.quotas)
            self.run.created("teams", self.name)
            return team
        differing, shown = differences(team, wanted)
        if differing:
            update_team(acting_user=None, team=team, **differing)
        shown += match_quotas("team", team, self.block.quotas)
        self.run.changed("teams", self.name, shown)
        return team

    def _match_member(self, team: Team, email: str, role: Role) -> None:
        name = f"{self.name}/{email}"
        self.run.name("members", name)
        # Who is in a team is in its organization too: as a plain member, unless listed among its users.
        self.run.name("users", f"{self.organization.slug}/{email}")
        membership = find_member(self.organization, email)
        if membership is None:
            membership = add_member(
                acting_user=None, organization=self.organization, email=email, role=Role.MEMBER
            )
            self.run.created("users", f"{self.organization.slug}/{email}")
        row = TeamMembership.objects.filter(team=team, membership=membership).first()
        if row is None:
            set_team_member(acting_user=None, team=team, membership=membership, role=role)
            self.run.created("members", name)
        elif row.role != role.value:
            set_team_member(acting_user=None, team=team, membership=membership, role=role)
            self.run.changed("members", name, [FieldChange("role", row.role, role.value)])

    def _match_key(self, team: Team, block: KeyBlock) -> None:
        name = f"{self.name}/{block.name}"
        self.run.name("keys", name)
        wanted: dict[str, Any] = {
            "owner": find_member(self.organization, block.owner) if block.owner else None,
            "expires_at": self._expiry(block),
            "allowed_ips": block.allowed_ips,
            "model_groups": block.model_groups,
        }
        key = ApiKey.objects.filter(
            team=team, name=block.name, revoked_at__isnull=True, successor__isnull=True
        ).first()
        if key is None:
            key, secret = create_key(
                acting_user=None, team=team, name=block.name, secret=block.secret, **wanted
            )
            match_quotas("key", key, block.quotas)
            self.run.created("keys", name)
            if block.secret is None:
                self.run.outcome.made.append(MadeKey(name, secret))
            return
        differing, shown = differences(key, wanted)
        if differing:
            update_key(acting_user=None, key=key, **differing)
        if block.secret is not None and keys.digest(block.secret) != key.digest:
            replace_secret(acting_user=None, key=key, secret=block.secret)
            shown.append(FieldChange("secret", SECRET, SECRET))
        shown += match_quotas("key", key, block.quotas)
        self.run.changed("keys", name, shown)

    def _expiry(self, block: KeyBlock) -> datetime | None:
        """A date means until the end of that day in the organization's time zone."""
        at = block.expires_at
        if at is None or isinstance(at, datetime):
            return at
        return midnight(at + timedelta(days=1), self.organization.time_zone)
