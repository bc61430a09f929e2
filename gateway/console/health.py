"""The states of deployments: may they be asked, how soon do they answer, how often do they fail."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString

from gateway.attempts import MOST_REQUESTS, Measured, measured
from gateway.console.access import TenantRequest, requires
from gateway.console.charts import strip
from gateway.console.models import usable
from gateway.explanation import Picture, State, caller_of, picture
from routing.circuit import Outcome, outcome_of
from routing.table import DeploymentSpec, GroupSpec
from tenants.permissions import Permission

PAGE = 50
COLOURS = {
    Outcome.OK: "good",
    Outcome.FAULT: "bad",
    Outcome.LIMIT: "warn",
    Outcome.CREDENTIAL: "warn",
    Outcome.NEUTRAL: "off",
}


@dataclass(frozen=True, slots=True)
class HealthRow:
    """One deployment, the groups it serves, and what the last hour says of it."""

    deployment: DeploymentSpec
    groups: tuple[str, ...]
    state: State
    measured: Measured

    @property
    def latest(self) -> SafeString:
        """The latest attempts as a picture."""
        words = [COLOURS[outcome_of(reason)] for reason in reversed(self.measured.latest)]
        label = f"Latest {len(words)} attempts: {words.count('good')} answered, {words.count('bad')} failed"
        return strip(words, label)


def health_rows(seen: Picture, groups: Iterable[GroupSpec], found: Mapping[str, Measured]) -> list[HealthRow]:
    """The deployments of ``groups``, those in trouble first, then by name."""
    deployments: dict[str, DeploymentSpec] = {}
    serves: dict[str, list[str]] = {}
    for group in groups:
        for member in group.members:
            deployments[member.deployment.name] = member.deployment
            serves.setdefault(member.deployment.name, []).append(group.name)
    rows = [
        HealthRow(deployment, tuple(serves[name]), seen.state(deployment), found.get(name, Measured()))
        for name, deployment in deployments.items()
    ]
    return sorted(rows, key=lambda row: (row.state.well, row.deployment.name))


def searched(rows: Collection[HealthRow], text: str) -> list[HealthRow]:
    """The rows in which ``text`` is in the name of the deployment, its provider or one of its groups."""
    wanted = text.lower()
    return [
        row
        for row in rows
        if any(
            wanted in name.lower()
            for name in (row.deployment.name, row.deployment.provider.name, row.deployment.model, *row.groups)
        )
    ]


def health_context(rows: list[HealthRow], search: str, after: int, seen: Picture) -> dict[str, object]:
    """What the page shows: one page of ``rows`` from the one numbered ``after``, and the sums of all."""
    found = searched(rows, search)
    return {
        "rows": found[after : after + PAGE],
        "any": bool(rows),
        "search": search,
        "older": after + PAGE if len(found) > after + PAGE else None,
        "after": after,
        "well": sum(row.state.well for row in rows),
        "troubled": sum(not row.state.well for row in rows),
        "faults": sum(row.measured.faults for row in rows),
        "judged": sum(row.measured.judged for row in rows),
        "redis_away": seen.notices is None,
        "most": MOST_REQUESTS,
        "at": seen.at,
    }


def place_in(request_value: str) -> int:
    """The row a page begins with; 0 for what is no number."""
    return int(request_value) if request_value.isdecimal() and len(request_value) < 7 else 0


@requires(Permission.VIEW)
def health(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/health/``: the deployments that the organization's models use.

    Their states hold for everybody; what is measured is of this organization's own requests.
    """
    organization = request.tenant.organization
    seen = picture()
    rows = health_rows(seen, usable(seen.table, caller_of(organization)), measured(organization))
    search, after = request.GET.get("q", "").strip(), place_in(request.GET.get("after", ""))
    return render(request, "console/models/health.html", health_context(rows, search, after, seen))
