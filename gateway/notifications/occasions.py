"""What is worth telling right now. Looking again makes no second message: each occasion has a name, and a
channel is told of a name once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db.models import Q

from billing.models import Budget
from billing.money import plain
from gateway.models import Delivery, NotificationChannel
from gateway.v1.board import read_board
from routing.models import Deployment
from tenants.models import ApiKey, Organization

# How long before a key's end it is told of, the nearest first.
KEY_NOTICES = (timedelta(days=1), timedelta(days=7))
# A provider's rate limit is no outage, nor is a model that it never had.
NO_OUTAGE = {"rate_limited", "unknown_model"}
# One message an hour tells of a deployment that fails and recovers all the time.
OUTAGE_HOUR = "%Y-%m-%dT%H"


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something an organization should hear of. ``about`` is the same whenever it is noticed again."""

    organization_id: int
    topic: str
    about: str
    subject: str
    text: str


def tell(occasions: Iterable[Occasion]) -> int:
    """Queue each for every channel that wants to hear of it; returns how many deliveries there are more."""
    by_place: dict[tuple[int, str], list[NotificationChannel]] = defaultdict(list)
    for channel in NotificationChannel.objects.filter(disabled_at__isnull=True):
        for topic in channel.topics:
            by_place[channel.organization_id, topic].append(channel)
    wanted = [
        Delivery(
            channel=channel,
            topic=each.topic,
            about=each.about,
            # A name may hold what no header does.
            subject=" ".join(each.subject.split())[:200],
            text=each.text,
        )
        for each in occasions
        for channel in by_place[each.organization_id, each.topic]
    ]
    if not wanted:
        return 0
    known = set(
        Delivery.objects.filter(about__in={each.about for each in wanted}).values_list("channel_id", "about")
    )
    new = [each for each in wanted if (each.channel_id, each.about) not in known]
    # Another task may have been faster since.
    Delivery.objects.bulk_create(new, ignore_conflicts=True)
    return len(new)


def budget_alerts(now: datetime) -> list[Occasion]:
    """Budgets whose spending has passed a share to alert at; a soft one without any alerts when it is spent."""
    subscribed = NotificationChannel.objects.filter(disabled_at__isnull=True, topics__contains=["budget"])
    running = Q(period_end__isnull=True) | Q(period_end__gt=now)
    alerting = Q(quota__hard=False) | ~Q(quota__alert_at=[])
    found = []
    budgets = Budget.objects.filter(
        running,
        alerting,
        quota__isnull=False,
        spent__gt=0,
        organization__in=subscribed.values("organization"),
    ).select_related("quota__team", "quota__key", "quota__member__user", "organization")
    for budget in budgets.iterator():
        quota = budget.quota
        assert quota is not None  # noqa: S101  # asked for above
        limit = quota.limit_at(now)
        found += [
            _budget_alert(budget, share, limit)
            for share in quota.alert_at or [Decimal(1)]
            if limit and budget.spent >= share * limit
        ]
    return found


def _budget_alert(budget: Budget, share: Decimal, limit: Decimal) -> Occasion:
    quota = budget.quota
    assert quota is not None  # noqa: S101  # as above
    whose = {
        "team": f"team {quota.team}",
        "key": f"key {quota.key.name if quota.key else ''}",
        "member": f"member {quota.member}",
        "end_user": f"end user {budget.subject or quota.end_user}",
    }.get(quota.scope, f"organization {budget.organization}")
    if quota.model_group:
        whose += f" for model {quota.model_group}"
    percent = f"{(share * 100).normalize():f}%"
    period = "in total" if quota.period == "total" else f"this {quota.period}"
    then = "Requests are refused when it is used up." if quota.hard else "It only alerts."
    return Occasion(
        budget.organization_id,
        "budget",
        f"budget:{budget.pk}:{share.normalize():f}",
        f"{percent} of the budget of {whose} is used",
        f"The budget of {whose} is {plain(limit)} US dollars {period}; {plain(budget.spent)} is spent, "
        f"which is {percent} or more. {then}\n\n"
        f"{settings.PUBLIC_URL}/o/{budget.organization.slug}/quotas/",
    )


def keys_that_end(now: datetime) -> list[Occasion]:
    """Keys that end within a week, and once more those that end within a day."""
    ending = ApiKey.objects.filter(
        revoked_at__isnull=True,
        successor__isnull=True,
        expires_at__gt=now,
        expires_at__lte=now + KEY_NOTICES[-1],
    ).select_related("organization", "team")
    found = []
    for key in ending:
        assert key.expires_at is not None  # noqa: S101  # asked for above
        notice = next(each for each in KEY_NOTICES if key.expires_at <= now + each)
        words = "a day" if notice == KEY_NOTICES[0] else "a week"
        found.append(
            Occasion(
                key.organization_id,
                "key_expiry",
                f"key:{key.pk}:{key.expires_at.isoformat()}:{notice.days}",
                f"The key {key.name} of team {key.team} ends within {words}",
                f"It ends at {key.expires_at:%Y-%m-%d %H:%M} UTC. Rotate it to go on with another secret, or "
                f"give it a later last day.\n\n{settings.PUBLIC_URL}/o/{key.organization.slug}/keys/{key.pk}/",
            )
        )
    return found


def outages(now: datetime) -> list[Occasion]:
    """Deployments that are rested because they fail, for the organizations that may use them."""
    if not NotificationChannel.objects.filter(disabled_at__isnull=True, topics__contains=["outage"]).exists():
        return []
    notices = asyncio.run(read_board(settings.REDIS_URL)) or []
    failing = {
        notice.key[0]: notice.why
        for notice in notices
        if notice.why not in NO_OUTAGE and notice.until > now.timestamp()
    }
    if not failing:
        return []
    found = []
    deployments = Deployment.objects.filter(pk__in=failing).select_related("provider")
    groups = {
        deployment.pk: set(deployment.groups.values_list("group__name", flat=True))
        for deployment in deployments
    }
    organizations = Organization.objects.filter(
        channels__disabled_at__isnull=True, channels__topics__contains=["outage"], suspended_at__isnull=True
    ).select_related("plan")
    for organization in organizations.distinct():
        for deployment in deployments:
            usable = {name for name in groups[deployment.pk] if _may_use(organization, name)}
            if usable:
                found.append(
                    Occasion(
                        organization.pk,
                        "outage",
                        f"outage:{deployment.pk}:{now.strftime(OUTAGE_HOUR)}",
                        f"{deployment.provider.name} is failing",
                        f"The deployment {deployment.name} fails and is not asked for a while. It serves "
                        f"{', '.join(sorted(usable))}. Requests go to other deployments where there are any.",
                    )
                )
    return found


def _may_use(organization: Organization, group: str) -> bool:
    plan = organization.plan.model_groups if organization.plan is not None else None
    return all(allowed is None or group in allowed for allowed in (plan, organization.model_groups))
