"""What operators are told by e-mail: deployments of any provider that are not asked because they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.core import mail
from django.db import transaction

from billing.models import TaskRun
from gateway.explanation import RESTING
from gateway.notifications.occasions import OUTAGE_HOUR
from gateway.notifications.sending import TIMEOUT_SECONDS
from gateway.v1.board import Notice, read_board
from routing.models import Deployment

# A provider's rate limit is no outage. A model that it does not know is the operators' to mend.
NO_OUTAGE = {"rate_limited"}
# The run in whose detail stands what was told.
TASK = "tell_operators"


@dataclass(frozen=True, slots=True)
class Outage:
    """A deployment that fails. ``about`` is the same for an hour, so that it is told once in it; ``alone``
    are its model groups in which no other deployment can take over."""

    about: str
    deployment: str
    provider: str
    why: str
    until: datetime
    groups: list[str]
    alone: list[str]

    @property
    def text(self) -> str:
        """All of it in a few lines."""
        serves = f"It serves {', '.join(self.groups)}." if self.groups else "No model group has it."
        lines = [
            f"{self.deployment} at {self.provider}: {self.why}, not asked until {self.until:%H:%M:%S} UTC.",
            serves,
        ]
        if self.alone:
            lines.append(f"Nothing else answers for {', '.join(self.alone)}.")
        return "\n".join(lines)


def outages(now: datetime) -> list[Outage]:
    """Every deployment that is rested at ``now`` because it fails, by name; none while Redis is away."""
    failing: dict[int, Notice] = {}
    for notice in asyncio.run(read_board(settings.REDIS_URL)) or []:
        if notice.why not in NO_OUTAGE and notice.until > now.timestamp():
            # Of several circuits of one deployment, the one that stays open longest.
            failing[notice.key[0]] = max(
                notice, failing.get(notice.key[0], notice), key=lambda each: each.until
            )
    if not failing:
        return []
    found = (
        Deployment.objects.filter(pk__in=failing)
        .order_by("name")
        .select_related("provider")
        .prefetch_related("groups__group__members")
    )
    return [_outage(deployment, failing, now) for deployment in found]


def _outage(deployment: Deployment, failing: dict[int, Notice], now: datetime) -> Outage:
    notice = failing[deployment.pk]
    groups = sorted((place.group for place in deployment.groups.all()), key=lambda group: group.name)
    alone = [
        group.name
        for group in groups
        if not any(place.weight and place.deployment_id not in failing for place in group.members.all())
    ]
    return Outage(
        f"{deployment.pk}:{now.strftime(OUTAGE_HOUR)}",
        deployment.name,
        deployment.provider.name,
        RESTING.get(notice.why, notice.why),
        datetime.fromtimestamp(notice.until, UTC),
        [group.name for group in groups],
        alone,
    )


def tell(now: datetime) -> int:
    """Send OPERATOR_EMAILS one message about all that was not told this hour; how many outages it tells of.

    Raises what the mail server does, and then tells again at the next look. A message can come twice if a
    worker dies just after it was sent.
    """
    if not settings.OPERATOR_EMAILS:
        return 0
    current = outages(now)
    told = _told()
    new = [each for each in current if each.about not in told]
    if not new:
        return 0
    subject = (
        f"{new[0].deployment} at {new[0].provider} is failing"
        if len(new) == 1
        else f"{len(new)} deployments are failing"
    )
    link = f"{settings.PUBLIC_URL}/operator/health/"
    with mail.get_connection(timeout=TIMEOUT_SECONDS) as connection:
        mail.EmailMessage(
            subject,
            "\n\n".join([*(each.text for each in new), link]),
            to=settings.OPERATOR_EMAILS,
            connection=connection,
        ).send()
    hour = now.strftime(OUTAGE_HOUR)
    _note({about for about in told if about.endswith(hour)} | {each.about for each in new})
    return len(new)


def _told() -> set[str]:
    run = TaskRun.objects.filter(name=TASK).first()
    return set((run.detail or {}).get("told", ())) if run is not None else set()


def _note(told: Collection[str]) -> None:
    with transaction.atomic():
        run = TaskRun.objects.select_for_update().get(name=TASK)
        run.detail = {"told": sorted(told)}
        run.save(update_fields=["detail"])
