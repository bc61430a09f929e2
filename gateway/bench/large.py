"""One organization with everything that a large customer has, beside the usage of ``gateway.bench.month``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.utils import timezone

from billing import ledger, partitions, rollups, spans
from billing.models import BlockedEndUser, Budget, Checkout, Export, Quota
from billing.services.prices import set_price
from billing.services.wallet import top_up
from billing.statements.making import make_through
from gateway.bench import month
from gateway.models import NotificationChannel
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider
from tenants.models import Invitation, Membership, Team, TeamMembership, User

TEAMS = 50
# One key in this many has a limit of its own, and one member in this many a budget.
LIMITED_KEYS, LIMITED_MEMBERS = 20, 10
LIMITED_END_USERS = 300
BLOCKED_END_USERS = 200
TOP_UPS = 300
EXPORTS = 200
INVITATIONS = 200
CHANNELS = 10
AUDIT_ENTRIES = 100_000
MODEL_GROUPS = 40
END_USER = "customer-7"
OWNER = "owner@large.example"

_AUDIT = """
INSERT INTO tenants_auditentry (organization_id, actor_id, verb, target_type, target_id, target_label, detail, at)
SELECT %(organization)s, %(actor)s, (ARRAY['created', 'changed', 'revoked'])[1 + i %% 3],
    (ARRAY['apikey', 'quota', 'membership', 'team'])[1 + i %% 4], i::text, 'thing ' || i,
    '{"limit": {"from": "5", "to": "10"}}', now() - (%(count)s - i) * interval '1 minute'
FROM generate_series(1, %(count)s) AS i
"""


@dataclass(frozen=True, slots=True)
class Large:
    """Who looks at the pages, and which object each word in an address stands for."""

    owner: User
    objects: dict[str, Any]


def build(events: int, keys: int, members: int, say: Callable[[str], None]) -> Large:
    """Two fifths of ``events`` last month, the rest this month up to now, summed and posted; and all else."""
    crowd = month.make_crowd(keys, members, TEAMS)
    _routes()
    large = _furnish(crowd)
    say("the organization is there")

    def told(done: int) -> None:
        say(f"filled {done:,} events")

    now = datetime.now(UTC)
    before = events * 2 // 5
    month.fill(before, keys, told)
    month.fill(events - before, keys, told, month=partitions.first_of(now), until=now)
    _sum(say)
    say("posting")
    while ledger.post_usage():
        pass
    statements = make_through(crowd.organization, now)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT request_id FROM billing_usageevent WHERE organization_id = %s AND started_at > %s LIMIT 1",
            [crowd.organization.pk, now - timedelta(days=2)],
        )
        request = cursor.fetchone()[0]
        cursor.execute("VACUUM ANALYZE")
    large.objects.update(number=statements[0].number, request_id=request)
    return large


def found(objects: dict[str, Any]) -> Large:
    """The one that an earlier run built, by its ``objects``, with the hours that have ended since summed."""
    _sum(lambda _words: None)
    return Large(User.objects.get(email=OWNER), objects)


def _sum(say: Callable[[str], None]) -> None:
    say("summing the hours")
    while rollups.refresh():
        pass
    say("summing days and months")
    while spans.refresh():
        pass


def _routes() -> None:
    """The model groups that requests asked for, and some more."""
    provider = create_provider(
        acting_user=None,
        name="first",
        kind="simulator",
        base_url="http://127.0.0.1:9/v1",
        credentials=["none"],
    )
    for number in range(MODEL_GROUPS):
        places = []
        for name in ("first", "backup"):
            deployment = create_deployment(
                acting_user=None,
                name=f"model-{number}-{name}",
                provider=provider,
                model=f"provider-model-{number}",
            )
            set_price(acting_user=None, deployment=deployment, input=Decimal(1), output=Decimal(2))
            places.append(Place(deployment))
        create_model_group(acting_user=None, name=f"model-{number}", places=places)


def _furnish(crowd: month.Crowd) -> Large:
    organization, now = crowd.organization, timezone.now()
    owner = User.objects.create_user(OWNER)
    Membership.objects.create(organization=organization, user=owner, role="owner")
    teams = list(Team.objects.filter(organization=organization).order_by("pk"))
    people = list(Membership.objects.filter(organization=organization, role="member").order_by("pk"))
    TeamMembership.objects.bulk_create(
        TeamMembership(team=teams[(number * step + step) % len(teams)], membership=person, role="member")
        for number, person in enumerate(people)
        for step in (1, 7)
        if step == 1 or (number + 1) % len(teams) != (number * 7 + 7) % len(teams)
    )

    def quota(scope: str, metric: str, limit: int, **of: Any) -> Quota:
        period = "month" if metric == "budget" else ""
        return Quota(organization=organization, scope=scope, metric=metric, limit=limit, period=period, **of)

    quotas = Quota.objects.bulk_create(
        [
            quota("organization", "budget", 1_000_000),
            quota("organization", "requests_per_minute", 100_000),
            quota("end_user", "budget", 5),
            *(quota("team", "budget", 10_000, team=team) for team in teams),
            *(quota("member", "budget", 100, member=person) for person in people[::LIMITED_MEMBERS]),
            *(quota("key", "budget", 50, key=key) for key in crowd.keys[::LIMITED_KEYS]),
            *(
                quota("end_user", "budget", 20, end_user=f"customer-{number}")
                for number in range(LIMITED_END_USERS)
            ),
        ]
    )
    # Every second budget has been asked with since the month began.
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    Budget.objects.bulk_create(
        Budget(organization=organization, quota=each, period_start=first, limit=each.limit)
        for each in quotas[::2]
        if each.metric == "budget" and each.scope != "end_user"
    )
    BlockedEndUser.objects.bulk_create(
        BlockedEndUser(organization=organization, end_user=f"customer-{number * 5}", reason="abuse")
        for number in range(BLOCKED_END_USERS)
    )
    for number in range(TOP_UPS):
        top_up(
            acting_user=None, organization=organization, amount=Decimal(1000), reference=f"payment-{number}"
        )
    exports = Export.objects.bulk_create(
        Export(
            reference=f"export{number}",
            organization=organization,
            requested_by=owner,
            what="usage",
            format="csv",
            first=month.MONTH,
            last=month.MONTH,
            filters={"key_id": crowd.keys[number % len(crowd.keys)].pk},
            state="failed",
        )
        for number in range(EXPORTS)
    )
    checkout = Checkout.objects.create(
        organization=organization, reference="checkout", provider="dummy", amount=25
    )
    invitations = Invitation.objects.bulk_create(
        Invitation(
            organization=organization,
            email=f"guest-{number}@large.example",
            digest=f"bench-{number}",
            invited_by=owner,
            expires_at=now + timedelta(days=7),
        )
        for number in range(INVITATIONS)
    )
    channels = NotificationChannel.objects.bulk_create(
        NotificationChannel(
            organization=organization,
            kind="email",
            name=f"Mail {number}",
            topics=["budget"],
            recipients=["ops@large.example"],
            roles=[],
        )
        for number in range(CHANNELS)
    )
    with connection.cursor() as cursor:
        cursor.execute(_AUDIT, {"organization": organization.pk, "actor": owner.pk, "count": AUDIT_ENTRIES})
    objects = {
        "organization": organization.slug,
        "slug": organization.slug,
        "key": crowd.keys[0].pk,
        "team": teams[0].pk,
        "member": people[0].pk,
        "group": "model-1",
        "end_user": END_USER,
        "channel": channels[0].pk,
        "invitation": invitations[0].pk,
        "reference": {"export_file": exports[0].reference, "checkout": checkout.reference},
        "provider": "dummy",
        "token": "unknown",
    }
    return Large(owner, objects)
