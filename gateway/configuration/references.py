"""Names in the file that lead to something: each must be in the file or in the database already."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from django_scopes import scopes_disabled

from gateway.configuration.document import Document
from gateway.configuration.problems import Path, Problem
from gateway.configuration.schema import Configuration, GroupBlock, OrganizationBlock, QuotasBlock
from routing.links import FALLBACK_REASONS, find_cycle, neighbours, unreachable
from routing.models import Deployment, ModelGroup, Provider
from tenants.models import Membership, Plan, Team

A_GROUP = "a model group in this file or in the database"
A_DEPLOYMENT = "a deployment in this file or in the database"
A_PLAN = "a plan in this file or in the database"


@dataclass
class Known:
    """The names there are: those in the database and those in the file."""

    providers: set[str]
    deployments: set[str]
    plans: set[str]
    teams: set[str]
    # By group name: where it leads, by reason.
    groups: dict[str, dict[str, set[str]]]
    # E-mail addresses of members, by organization.
    members: dict[str, set[str]]


def fallbacks_of(block: GroupBlock) -> dict[str, list[str]]:
    """A group's fallbacks as they are stored: only those there are."""
    return {reason: names for reason, names in block.fallbacks.model_dump().items() if names}


def rules_of(block: GroupBlock) -> list[dict[str, Any]]:
    """A group's rules as they are stored."""
    return [rule.model_dump(exclude_none=True) for rule in block.rules]


def _known(configuration: Configuration) -> Known:
    with scopes_disabled():
        members: dict[str, set[str]] = {}
        for slug, email in Membership.objects.values_list("organization__slug", "user__email"):
            members.setdefault(slug, set()).add(email.lower())
        known = Known(
            providers=set(Provider.objects.values_list("name", flat=True)),
            deployments=set(Deployment.objects.values_list("name", flat=True)),
            plans=set(Plan.objects.values_list("name", flat=True)),
            teams=set(Team.objects.values_list("slug", flat=True)),
            groups={g.name: neighbours(g.fallbacks, g.rules) for g in ModelGroup.objects.all()},
            members=members,
        )
    known.providers |= {block.name for block in configuration.providers}
    known.deployments |= {block.name for block in configuration.deployments}
    known.plans |= {block.name for block in configuration.plans}
    for group in configuration.model_groups:
        known.groups[group.name] = neighbours(fallbacks_of(group), rules_of(group))
    for organization in configuration.organizations:
        emails = known.members.setdefault(organization.slug, set())
        emails |= {user.email for user in organization.users}
        for team in organization.teams:
            known.teams.add(team.slug)
            emails |= {member.email for member in team.members}
    return known


class _Checker:
    """Goes through the file and notes each name that leads nowhere."""

    def __init__(self, configuration: Configuration, document: Document) -> None:
        self.configuration = configuration
        self.document = document
        self.known = _known(configuration)
        self.problems: list[Problem] = []

    def refuse(self, path: Path, message: str) -> None:
        """Note a problem."""
        self.problems.append(self.document.problem(path, message))

    def unique(self, names: Iterable[str], path: Path, field: str) -> None:
        """Refuse the second of two equal names in the list at ``path``."""
        first: dict[str, int] = {}
        for index, name in enumerate(names):
            if name in first:
                line = self.document.line((*path, first[name], field))
                self.refuse((*path, index, field), f"{name!r} is there already, in line {line}")
            first.setdefault(name, index)

    def one(self, name: str | None, known: Container[str], path: Path, what: str) -> None:
        """Refuse a name that is not ``known``."""
        if name is not None and name not in known:
            self.refuse(path, f"{name!r} is not {what}")

    def each(self, names: Iterable[str] | None, known: Container[str], path: Path, what: str) -> None:
        """Refuse each of the listed ``names`` that is not ``known``, and the second of two equal ones."""
        seen: set[str] = set()
        for index, name in enumerate(names or ()):
            self.one(name, known, (*path, index), what)
            if name in seen:
                self.refuse((*path, index), f"{name!r} is in the list twice")
            seen.add(name)

    def routing(self) -> None:
        """Providers, deployments and model groups."""
        parts = self.configuration
        self.unique((block.name for block in parts.providers), ("providers",), "name")
        self.unique((block.name for block in parts.deployments), ("deployments",), "name")
        self.unique((block.name for block in parts.model_groups), ("model_groups",), "name")
        for index, deployment in enumerate(parts.deployments):
            self.one(
                deployment.provider,
                self.known.providers,
                ("deployments", index, "provider"),
                "a provider in this file or in the database",
            )
        for index, group in enumerate(parts.model_groups):
            self.group(group, ("model_groups", index))
        self.cycles()

    def group(self, group: GroupBlock, path: Path) -> None:
        """One model group's deployments, fallbacks and rules."""
        places: Path = (*path, "deployments")
        self.unique((place.name for place in group.deployments), places, "name")
        for index, place in enumerate(group.deployments):
            self.one(place.name, self.known.deployments, (*places, index, "name"), A_DEPLOYMENT)
        for reason, names in fallbacks_of(group).items():
            self.each(names, self.known.groups, (*path, "fallbacks", reason), A_GROUP)
        for index, earlier in unreachable(rules_of(group)):
            line = self.document.line((*path, "rules", earlier))
            self.refuse(
                (*path, "rules", index), f"is never reached: the rule in line {line} matches whatever it does"
            )
        own = {place.name for place in group.deployments}
        for index, rule in enumerate(group.rules):
            at: Path = (*path, "rules", index)
            self.one(rule.use, self.known.groups, (*at, "use"), A_GROUP)
            self.each(rule.deployments, own, (*at, "deployments"), f"a deployment of the group {group.name}")
            self.one(rule.when.plan, self.known.plans, (*at, "when", "plan"), A_PLAN)
            self.one(
                rule.when.team,
                self.known.teams,
                (*at, "when", "team"),
                "a team in this file or in the database",
            )

    def cycles(self) -> None:
        """Fallbacks of one kind, or rules, that lead back to where they began."""
        here = {group.name: index for index, group in enumerate(self.configuration.model_groups)}
        for reason in (*FALLBACK_REASONS, "rules"):
            way = find_cycle({name: links[reason] for name, links in self.known.groups.items()})
            if way is None:
                continue
            named = next((name for name in way if name in here), None)
            path: Path = () if named is None else ("model_groups", here[named])
            if named is not None:
                path = (*path, "rules") if reason == "rules" else (*path, "fallbacks", reason)
            self.refuse(path, f"leads in a circle: {' -> '.join(way)}")

    def tenants(self) -> None:
        """Plans and organizations."""
        plans, organizations = self.configuration.plans, self.configuration.organizations
        self.unique((plan.name for plan in plans), ("plans",), "name")
        self.unique((organization.slug for organization in organizations), ("organizations",), "slug")
        for index, plan in enumerate(plans):
            self.each(plan.model_groups, self.known.groups, ("plans", index, "model_groups"), A_GROUP)
            self.quotas(plan.quotas, ("plans", index, "quotas"))
        for index, organization in enumerate(organizations):
            self.organization(organization, ("organizations", index))

    def quotas(self, block: QuotasBlock, path: Path) -> None:
        """The model groups that have limits of their own."""
        for group in block.model_groups:
            self.one(group, self.known.groups, (*path, "model_groups", group), A_GROUP)

    def organization(self, block: OrganizationBlock, path: Path) -> None:
        """One organization with its users, teams and keys."""
        self.one(block.plan, self.known.plans, (*path, "plan"), A_PLAN)
        self.each(block.model_groups, self.known.groups, (*path, "model_groups"), A_GROUP)
        for group in block.prices:
            self.one(group, self.known.groups, (*path, "prices", group), A_GROUP)
        self.quotas(block.quotas, (*path, "quotas"))
        self.quotas(block.end_user_quotas, (*path, "end_user_quotas"))
        for index, user in enumerate(block.users):
            self.quotas(user.quotas, (*path, "users", index, "quotas"))
        self.unique((user.email for user in block.users), (*path, "users"), "email")
        self.unique((team.slug for team in block.teams), (*path, "teams"), "slug")
        for index, team in enumerate(block.teams):
            at: Path = (*path, "teams", index)
            self.each(team.model_groups, self.known.groups, (*at, "model_groups"), A_GROUP)
            self.quotas(team.quotas, (*at, "quotas"))
            self.unique((member.email for member in team.members), (*at, "members"), "email")
            self.unique((key.name for key in team.keys), (*at, "keys"), "name")
            for place, key in enumerate(team.keys):
                here: Path = (*at, "keys", place)
                self.each(key.model_groups, self.known.groups, (*here, "model_groups"), A_GROUP)
                self.quotas(key.quotas, (*here, "quotas"))
                self.one(
                    key.owner,
                    self.known.members.get(block.slug, frozenset()),
                    (*here, "owner"),
                    f"a member of {block.slug}: add them to its users",
                )

    def secrets(self) -> None:
        """One secret belongs to one key; its value is never shown."""
        first: dict[str, Path] = {}
        for index, organization in enumerate(self.configuration.organizations):
            for team_index, team in enumerate(organization.teams):
                for key_index, key in enumerate(team.keys):
                    path: Path = ("organizations", index, "teams", team_index, "keys", key_index, "secret")
                    if key.secret is None:
                        continue
                    if key.secret in first:
                        line = self.document.line(first[key.secret])
                        self.refuse(path, f"is the secret of another key already, in line {line}")
                    first.setdefault(key.secret, path)


def check_references(configuration: Configuration, document: Document) -> list[Problem]:
    """Every name in ``configuration`` that leads nowhere, is there twice, or leads in a circle."""
    checker = _Checker(configuration, document)
    checker.routing()
    checker.tenants()
    checker.secrets()
    return checker.problems
