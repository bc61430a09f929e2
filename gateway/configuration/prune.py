"""Removing what an earlier apply made and the file no longer names."""

from __future__ import annotations

from collections.abc import Callable

from django_scopes import scope, scopes_disabled

from billing.models import LedgerTransaction, UsageEvent
from gateway.configuration.run import SINGULAR, Run
from gateway.configuration.tenant_sections import SUSPENDED, find_member
from gateway.models import AppliedObject
from routing.links import neighbours
from routing.models import Deployment, ModelGroup, Provider
from routing.services import remove_deployment, remove_model_group, remove_provider
from tenants.models import ApiKey, Organization, Plan, Team
from tenants.services.keys import revoke_key
from tenants.services.members import remove_member
from tenants.services.organizations import remove_organization, remove_plan, suspend_organization
from tenants.services.teams import remove_team, remove_team_member


def forgotten(run: Run) -> dict[str, list[AppliedObject]]:
    """What earlier runs made and this file does not name, by section."""
    found: dict[str, list[AppliedObject]] = {section: [] for section in SINGULAR}
    for row in AppliedObject.objects.filter(kind__in=SINGULAR).order_by("name"):
        if (row.kind, row.name) not in run.named:
            found[row.kind].append(row)
    # What is in an organization or team goes with it.
    for section in ("users", "teams", "members", "keys"):
        found[section] = [row for row in found[section] if not _within(row, found["organizations"])]
    for section in ("members", "keys"):
        found[section] = [row for row in found[section] if not _within(row, found["teams"])]
    return found


def _within(row: AppliedObject, containers: list[AppliedObject]) -> bool:
    return any(row.name.startswith(f"{container.name}/") for container in containers)


class Prune:
    """The removal of everything ``forgotten``, in an order that leaves nothing dangling."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.found = forgotten(run)

    def all(self) -> None:
        """Remove each, or note why it cannot be."""
        steps: dict[str, Callable[[str], str | None]] = {
            "keys": self.key,
            "members": self.member,
            "teams": self.team,
            "users": self.user,
            "organizations": self.organization,
            "plans": self.plan,
        }
        for section, remove in steps.items():
            for row in self.found[section]:
                self._remove(row, remove)
        self.groups()
        for row in self.found["deployments"]:
            self._remove(row, self.deployment)
        for row in self.found["providers"]:
            self._remove(row, self.provider)

    def _remove(self, row: AppliedObject, remove: Callable[[str], str | None]) -> None:
        before = len(self.run.problems)
        with self.run.at(()):
            note = remove(row.name)
            # None: somebody removed it already.
            if note is not None:
                self.run.removed(row.kind, row.name, note)
            self._forget(row)
        for index in range(before, len(self.run.problems)):
            problem = self.run.problems[index]
            self.run.problems[index] = self.run.document.problem(
                (), f"cannot remove {SINGULAR[row.kind]} {row.name}: {problem.message}"
            )

    def _forget(self, row: AppliedObject) -> None:
        within = {"organizations": ("users", "teams", "members", "keys"), "teams": ("members", "keys")}
        AppliedObject.objects.filter(
            kind__in=within.get(row.kind, ()), name__startswith=f"{row.name}/"
        ).delete()
        row.delete()

    def groups(self) -> None:
        """Groups that lead to others go before them."""
        waiting = list(self.found["model_groups"])
        while waiting:
            names = {row.name for row in waiting}
            free = [row for row in waiting if not self._leaders(row.name) & names] or waiting
            for row in free:
                self._remove(row, self.group)
            waiting = [row for row in waiting if row not in free]

    def _leaders(self, name: str) -> set[str]:
        """The groups that lead to ``name``."""
        return {
            group.name
            for group in ModelGroup.objects.exclude(name=name)
            if any(name in targets for targets in neighbours(group.fallbacks, group.rules).values())
        }

    def group(self, name: str) -> str | None:
        """Delete a model group."""
        group = ModelGroup.objects.filter(name=name).first()
        if group is None:
            return None
        remove_model_group(acting_user=None, group=group)
        return ""

    def deployment(self, name: str) -> str | None:
        """Delete a deployment."""
        deployment = Deployment.objects.filter(name=name).first()
        if deployment is None:
            return None
        remove_deployment(acting_user=None, deployment=deployment)
        return ""

    def provider(self, name: str) -> str | None:
        """Delete a provider."""
        provider = Provider.objects.filter(name=name).first()
        if provider is None:
            return None
        remove_provider(acting_user=None, provider=provider)
        return ""

    def plan(self, name: str) -> str | None:
        """Delete a plan."""
        plan = Plan.objects.filter(name=name).first()
        if plan is None:
            return None
        remove_plan(acting_user=None, plan=plan)
        return ""

    def organization(self, name: str) -> str | None:
        """Delete an organization that used and paid nothing; suspend another, since its books must stay."""
        organization = Organization.objects.filter(slug=name).first()
        if organization is None or organization.suspended_at is not None:
            return None
        with scope(organization=organization):
            used = UsageEvent.objects.exists() or LedgerTransaction.objects.exists()
        if not used:
            remove_organization(acting_user=None, organization=organization)
            return ""
        suspend_organization(acting_user=None, organization=organization)
        AppliedObject.objects.get_or_create(kind=SUSPENDED, name=name)
        return "suspended: its usage and books stay"

    def user(self, name: str) -> str | None:
        """Take a person out of an organization; their account stays."""
        slug, email = name.split("/", 1)
        organization = Organization.objects.filter(slug=slug).first()
        membership = None if organization is None else find_member(organization, email)
        if membership is None:
            return None
        remove_member(acting_user=None, membership=membership)
        return "and their own keys are revoked"

    def team(self, name: str) -> str | None:
        """Delete a team that used nothing; of another, revoke the keys."""
        team = _team(name)
        if team is None:
            return None
        with scope(organization=team.organization):
            if not UsageEvent.objects.filter(team_id=team.pk).exists():
                remove_team(acting_user=None, team=team)
                return ""
            for key in ApiKey.objects.filter(team=team, revoked_at__isnull=True):
                revoke_key(acting_user=None, key=key)
        return "stays, since it has usage; its keys are revoked"

    def member(self, name: str) -> str | None:
        """Take a person out of a team."""
        team_name, email = name.rsplit("/", 1)
        team = _team(team_name)
        membership = None if team is None else find_member(team.organization, email)
        if team is None or membership is None:
            return None
        with scope(organization=team.organization):
            if not membership.teams.filter(team=team).exists():
                return None
            remove_team_member(acting_user=None, team=team, membership=membership)
        return ""

    def key(self, name: str) -> str | None:
        """Revoke a key."""
        slug, team_slug, key_name = name.split("/", 2)
        team = _team(f"{slug}/{team_slug}")
        if team is None:
            return None
        with scope(organization=team.organization):
            key = ApiKey.objects.filter(
                team=team, name=key_name, revoked_at__isnull=True, successor__isnull=True
            ).first()
            if key is None:
                return None
            revoke_key(acting_user=None, key=key)
        return "revoked"


def _team(name: str) -> Team | None:
    slug, team_slug = name.split("/", 1)
    with scopes_disabled():
        return (
            Team.objects.filter(organization__slug=slug, slug=team_slug)
            .select_related("organization")
            .first()
        )
