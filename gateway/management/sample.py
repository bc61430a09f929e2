"""Two organizations to look at: one in full use, one just made. For pictures of the console."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from django.db import connection, transaction
from django.utils import timezone
from django_scopes import scope

from billing import ledger, partitions, reconcile, retention, rollups
from billing.calendars import period_bounds
from billing.exports import making as exports
from billing.models import (
    Budget,
    DeadLetter,
    Export,
    Lease,
    Quota,
    ReconcileReport,
    RequestContent,
    ScheduleRun,
    TaskRun,
    UsageEvent,
)
from billing.money import rounded
from billing.payments.dummy import DummyProvider
from billing.request_content import Content, Text
from billing.services import checkouts
from billing.services.end_users import block_end_user
from billing.services.exchange_rates import set_exchange_rate
from billing.services.exports import request_export
from billing.services.grants import give_grant
from billing.services.prices import set_price
from billing.services.quotas import raise_quota, set_quota
from billing.services.schedules import set_schedule
from billing.services.wallet import adjust, refund, top_up, wallet
from billing.settlement import Ended, settle
from billing.statements import making
from gateway.management.sample_prices import make_price_story
from gateway.models import Delivery, UsageCheck
from gateway.notifications.channels import add_channel, switch_channel
from gateway.single_sign_on.domains import claim_domain, confirm_domain
from gateway.single_sign_on.providers import save_provider
from routing.models import ModelGroup
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider
from tenants.models import ApiKey, Membership, Organization, Team, User
from tenants.permissions import Role
from tenants.services import invitations
from tenants.services.keys import create_key, revoke_key, rotate_key
from tenants.services.members import add_member
from tenants.services.organizations import create_organization, create_plan, update_organization
from tenants.services.teams import create_team, set_team_member

PASSWORD = "correct horse battery"  # noqa: S105 - of people who do not exist
WORKER = UUID(int=1)
# Model group, deployment, provider's model; US dollars per million tokens in and out.
MODELS = (
    ("fast", "gpt-small", "gpt-5.4-mini", "0.25", "2.00"),
    ("quality", "sonnet", "claude-sonnet-5", "3.00", "15.00"),
    ("long", "flash", "gemini-3-flash", "0.10", "0.40"),
)
# The model group with several deployments.
MIXED = "quality"
FEATURES = ("search", "summaries", "support chat")
HISTORY = timedelta(days=52)
# Less than that, so that there are requests without details.
KEPT_DAYS = 45
REQUESTS = 2600


@dataclass(frozen=True, slots=True)
class Sample:
    """What was made. Everybody's password is ``PASSWORD``."""

    acme: Organization
    empty: Organization
    owner: str
    member: str
    viewer: str
    newcomer: str
    operator: str
    key: ApiKey
    # Of an open invitation to acme, for a person without an account.
    invitation: str
    # The id of a request that a second provider answered, and of one whose details are removed.
    request: str
    old_request: str
    # The number of acme's newest.
    statement: str
    # The reference of a payment that was begun.
    checkout: str
    # A model group with several deployments.
    model: str
    # A comparison of the books that found a difference, and a dead letter.
    report: int
    letter: int
    # A budget that is raised for a while.
    raised: int


def _routes() -> dict[str, int]:
    """Make what the models are; returns the ids of their prices by deployment."""
    prices = {}
    deployments = {}
    provider = create_provider(
        acting_user=None,
        name="simulator",
        kind="simulator",
        base_url="http://127.0.0.1:9/v1",
        credentials=["none"],
    )
    for group, name, model, price_in, price_out in MODELS:
        deployment = deployments[group] = create_deployment(
            acting_user=None,
            name=name,
            provider=provider,
            model=model,
            context_window=400_000,
            capabilities=["tools", "json_schema", *(["vision"] if group == "quality" else [])],
        )
        prices[name] = set_price(
            acting_user=None, deployment=deployment, input=Decimal(price_in), output=Decimal(price_out)
        ).pk
    create_model_group(acting_user=None, name="fast", places=[Place(deployments["fast"])])
    create_model_group(acting_user=None, name="long", places=[Place(deployments["long"])])
    create_model_group(
        acting_user=None,
        name=MIXED,
        places=[
            Place(deployments["quality"]),
            Place(deployments["fast"], priority=2, weight=3),
            Place(deployments["long"], priority=2),
        ],
        fallbacks={"on_error": ["long"], "on_context_window": ["long"]},
        rules=[{"when": {"input_tokens_over": 300_000}, "use": "long"}],
    )
    return prices


def _people(organization: Organization) -> dict[str, Membership]:
    roles = {
        "ann": Role.OWNER,
        "adam": Role.ADMIN,
        "fiona.finance": Role.FINANCE,
        "bob": Role.MEMBER,
        "cleo.longname-of-support": Role.MEMBER,
        "dan": Role.MEMBER,
        "vera": Role.VIEWER,
    }
    return {
        name: add_member(
            acting_user=None,
            organization=organization,
            email=f"{name}@acme.example",
            role=role,
            password=PASSWORD,
        )
        for name, role in roles.items()
    }


def _teams(organization: Organization, people: dict[str, Membership]) -> dict[str, Team]:
    owner = people["ann"].user
    made = {
        slug: create_team(
            acting_user=owner, organization=organization, slug=slug, name=name, model_groups=groups
        )
        for slug, name, groups in (
            ("search", "Search", None),
            ("support", "Customer support", ["fast", "long"]),
            ("research", "Research", None),
        )
    }
    for slug, name, role in (
        ("search", "bob", Role.ADMIN),
        ("search", "dan", Role.MEMBER),
        ("support", "cleo.longname-of-support", Role.MEMBER),
        ("support", "bob", Role.MEMBER),
        ("research", "dan", Role.ADMIN),
    ):
        set_team_member(acting_user=owner, team=made[slug], membership=people[name], role=role)
    return made


def _keys(teams: dict[str, Team], people: dict[str, Membership]) -> list[ApiKey]:
    now, owner = timezone.now(), people["ann"].user
    wanted: list[tuple[str, str, str | None, int | None, list[str] | None]] = [
        ("search", "search-backend", "bob", 400, None),
        ("search", "search-indexer", None, 9, ["fast"]),
        ("search", "bob-laptop", "bob", 60, None),
        ("support", "support-bot", None, None, ["fast"]),
        ("support", "ticket-summaries", "cleo.longname-of-support", 3, None),
        ("research", "notebooks", "dan", 120, None),
        ("research", "evaluation-runs-nightly", "dan", 365, ["quality", "long"]),
    ]
    made = []
    for team, name, person, days, groups in wanted:
        key, _ = create_key(
            acting_user=owner,
            team=teams[team],
            name=name,
            owner=people[person] if person else None,
            expires_at=now + timedelta(days=days) if days else None,
            model_groups=groups,
            allowed_ips=["203.0.113.0/24", "198.51.100.7/32"] if name == "search-backend" else None,
        )
        made.append(key)
    old, _ = create_key(acting_user=owner, team=teams["research"], name="prototype", owner=people["dan"])
    revoke_key(acting_user=owner, key=old)
    rotated, _ = create_key(acting_user=owner, team=teams["support"], name="mail-drafts")
    successor, _ = rotate_key(acting_user=owner, key=rotated, overlap=timedelta(days=1))
    return [*made, successor]


def _invited(organization: Organization, teams: dict[str, Team], by: User) -> str:
    """Three open invitations; returns the token of the first."""
    _, token = invitations.invite(
        acting_user=by,
        organization=organization,
        email="eve@acme.example",
        role=Role.MEMBER,
        teams=[teams["search"], teams["research"]],
        team_role=Role.ADMIN,
    )
    invitations.invite(
        acting_user=by, organization=organization, email="olga@platform.example", role=Role.OWNER
    )
    invitations.invite(
        acting_user=by,
        organization=organization,
        email="frank.longname-of-finance@acme.example",
        role=Role.FINANCE,
        life=timedelta(days=-1),
    )
    return token


def _limits(
    organization: Organization, teams: dict[str, Team], keys: list[ApiKey], people: dict[str, Membership]
) -> None:
    by = people["ann"].user
    whole: list[tuple[str, Any, str, str, str]] = [
        ("organization", organization, "requests_per_minute", "3000", ""),
        ("organization", organization, "tokens_per_minute", "2000000", ""),
        ("organization", organization, "concurrency", "200", ""),
        ("organization", organization, "budget", "20.00", "month"),
        ("end_user", organization, "budget", "1.00", "day"),
        ("end_user", organization, "requests_per_minute", "30", ""),
        ("team", teams["search"], "budget", "4.50", "month"),
        ("team", teams["search"], "requests_per_minute", "1200", ""),
        ("team", teams["support"], "budget", "10.00", "month"),
        ("team", teams["support"], "budget", "1.50", "day"),
        ("member", people["dan"], "budget", "40.00", "month"),
        ("member", people["bob"], "budget", "2.50", "month"),
        ("member", people["bob"], "budget", "0.50", "day"),
        ("key", keys[0], "budget", "100.00", "total"),
        ("key", keys[0], "requests_per_minute", "600", ""),
        ("key", keys[0], "concurrency", "50", ""),
        ("key", keys[3], "budget", "8.00", "month"),
        ("key", keys[6], "budget", "2.00", "month"),
    ]
    for bound, target, metric, limit, period in whole:
        set_quota(
            acting_user=by, scope=bound, target=target, metric=metric, limit=Decimal(limit), period=period
        )
    for metric, limit, period in (("budget", "5.00", "month"), ("budget", "0.50", "day")):
        set_quota(
            acting_user=by,
            scope="end_user",
            target=organization,
            end_user="anna.k",
            metric=metric,
            limit=Decimal(limit),
            period=period,
        )
    block_end_user(
        acting_user=by, organization=organization, end_user="user-2096", reason="Asks all night by a script"
    )
    team = teams["search"]
    set_quota(
        acting_user=by,
        scope="team",
        target=team,
        metric="concurrency",
        limit=5,
        model_group=ModelGroup.objects.order_by("name")[0].name,
    )
    raised = Quota.objects.get(scope="team", team=team, metric="budget")
    raise_quota(acting_user=by, quota=raised, to=raised.limit * 2, until=timezone.now() + timedelta(days=3))


def _raised(organization: Organization) -> int:
    with scope(organization=organization):
        return int(Quota.objects.get(raised_to__isnull=False).pk)


def _counters(organization: Organization, now: datetime) -> list[Budget]:
    """The counters that workers would have made at the first request of each period."""
    made = [wallet(organization)]
    for quota in Quota.objects.filter(metric="budget").exclude(scope="end_user"):
        start, end = period_bounds(quota.period, now, organization.time_zone)
        budget = Budget(
            organization=organization,
            quota=quota,
            period_start=start,
            period_end=end,
            limit=quota.limit,
            raised_to=quota.raised_to,
            raised_until=quota.raised_until,
        )
        budget.save(force_insert=True)
        made.append(budget)
    return made


def _binds(budget: Budget, key: ApiKey, at: datetime) -> bool:
    quota = budget.quota
    if at < budget.period_start:
        return False
    if quota is None or quota.scope == "organization":
        return True
    places = {
        "team": (quota.team_id, key.team_id),
        "key": (quota.key_id, key.pk),
        "member": (quota.member_id, key.owner_id),
    }
    wanted, found = places[quota.scope]
    return wanted == found


def _attempts(deployment: str, status: int, duration: int, first: int, number: int) -> list[dict[str, Any]]:
    """How a request was tried; now and then another provider failed first."""
    last = {
        "deployment": deployment,
        "provider": "simulator",
        "status": status,
        "reason": "ok",
        "started_ms": 0,
    }
    last |= {"first_token_ms": first, "duration_ms": duration}
    if status == 429:
        return []
    if status != 200:
        return [last | {"reason": "status_500", "first_token_ms": None}]
    if number % 9:
        return [last]
    lost = duration // 4
    failed = last | {"deployment": "sonnet", "status": 503, "reason": "overloaded", "first_token_ms": None}
    return [
        failed | {"duration_ms": lost},
        last | {"started_ms": lost, "first_token_ms": max(first, lost + 20), "duration_ms": duration - lost},
    ]


def _records(
    organization: Organization,
    keys: list[ApiKey],
    budgets: list[Budget],
    prices: dict[str, int],
    now: datetime,
) -> list[dict[str, Any]]:
    dice = random.Random(7)  # noqa: S311 - the same pictures every time
    weights = [9, 4, 2, 7, 3, 4, 6, 1]
    users = ["", "", "", "user-1841", "user-77", "user-2096", "anna.k", "tenant-42/ola"]
    made = []
    for number in range(REQUESTS):
        key = dice.choices(keys, weights)[0]
        allowed = [model for model in MODELS if key.model_groups is None or model[0] in key.model_groups]
        group, deployment, model, price_in, price_out = dice.choice(allowed)
        started = now - HISTORY * (dice.random() ** 1.3)
        tokens_in, tokens_out = int(dice.lognormvariate(7.2, 0.9)), int(dice.lognormvariate(6.0, 0.9))
        outcome = dice.random()
        status, end_reason, code = (
            (200, "completed", "")
            if outcome < 0.955
            else (429, "refused", "rate_limit_exceeded")
            if outcome < 0.985
            else (502, "provider_error", "provider_error")
        )
        if status != 200:
            tokens_in = tokens_out = 0
        cost = rounded((Decimal(price_in) * tokens_in + Decimal(price_out) * tokens_out) / 1_000_000)
        duration = int(dice.lognormvariate(7.3, 0.6))
        first = min(duration, int(dice.lognormvariate(5.9, 0.5)))
        made.append(
            {
                "t": "end",
                "request_id": f"req_{number:020d}",
                "started_at": started.isoformat(),
                "ended_at": (started + timedelta(milliseconds=duration)).isoformat(),
                "organization_id": organization.pk,
                "team_id": key.team_id,
                "key_id": key.pk,
                "member_id": key.owner_id,
                "end_user": dice.choice(users),
                "model_group": group,
                "deployment": deployment,
                "provider": "simulator",
                "provider_model": model,
                "endpoint": "chat/completions",
                "streamed": dice.random() < 0.6,
                "status": status,
                "end_reason": end_reason,
                "error_code": code,
                "attempts": _attempts(deployment, status, duration, first, number),
                "input_tokens": tokens_in,
                "cached_input_tokens": 0,
                "cache_write_tokens": 0,
                "output_tokens": tokens_out,
                "reasoning_tokens": tokens_out // 4,
                "usage_source": "reported" if status == 200 else "none",
                "cost": str(cost),
                "charge": str(rounded(cost * Decimal("1.2"))),
                "cost_price_id": prices[deployment],
                "charge_price_id": None,
                "markup": "0.2",
                "budget_ids": [budget.pk for budget in budgets if _binds(budget, key, started)],
                "first_token_ms": first,
                "duration_ms": duration,
                # Some of what is asked for, which leaves the dice as they are.
                "tags": {"feature": FEATURES[number % 5]} if number % 5 < len(FEATURES) else {},
            }
        )
    return made


def _use(organization: Organization, keys: list[ApiKey], prices: dict[str, int]) -> str:
    """Requests of the last weeks; returns the id of one that a second provider answered."""
    now = datetime.now(UTC)
    with transaction.atomic(), connection.cursor() as cursor:
        for days in range(0, HISTORY.days + 28, 27):
            partitions.ensure(cursor, now - timedelta(days=days))
    budgets = _counters(organization, now)
    records = _records(organization, keys, budgets, prices, now)
    connection.ensure_connection()
    settle(connection.connection, [Ended(WORKER, record, orjson.dumps(record)) for record in records])
    for budget in budgets[:3]:
        Lease.objects.create(budget=budget, worker=WORKER, remaining=Decimal("0.75"))
        Budget.objects.filter(pk=budget.pk).update(held=Decimal("0.75"))
    return next(str(record["request_id"]) for record in reversed(records) if len(record["attempts"]) > 1)


def _forget(organization: Organization) -> str:
    """Keep details for ``KEPT_DAYS``; returns the id of the last request without them."""
    update_organization(acting_user=None, organization=organization, keep_details_days=KEPT_DAYS)
    retention.remove_details(organization)
    return UsageEvent.objects.filter(details_removed_at__isnull=False).latest("started_at").request_id


def _store(organization: Organization, request: str) -> None:
    """What was asked and answered in one request."""
    asked = {
        "model": "quality",
        "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "Which of our orders to Ostrava are late, and why?"},
        ],
        "stream": True,
    }
    words = "Two of them, 4711 and 4718: the first waits for customs, the second was never picked up."
    chunks = [{"choices": [{"index": 0, "delta": {"content": f"{word} "}}]} for word in words.split()]
    sent = orjson.dumps(asked)
    got = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    RequestContent.objects.create(
        organization=organization,
        request_id=request,
        started_at=UsageEvent.objects.get(request_id=request).started_at,
        content=Content(Text.of(sent, len(sent)), Text.of(got, len(got))).sealed(),
    )


def _exports(organization: Organization, by: User) -> None:
    """Two files, and one that is being made."""
    today = timezone.localdate()
    before = today.replace(day=1) - timedelta(days=1)
    asked = partial(request_export, acting_user=by, organization=organization)
    asked(what="usage", format="xlsx", first=before.replace(day=1), last=before)
    asked(what="focus", format="csv", first=before.replace(day=1), last=before)
    exports.make_due()
    going = asked(
        what="usage",
        format="jsonl",
        first=today.replace(day=1),
        last=today,
        filters={"end_user": "anna.k"},
    )
    with scope(organization=organization):
        Export.objects.filter(pk=going.pk).update(
            state="running", expected=12_400, requests=4_870, rows=4_870
        )
    _monthly(organization, by)


def _monthly(organization: Organization, by: User) -> None:
    """A statement that was mailed, and a report whose mail server is away."""
    with scope(organization=organization):
        people = Membership.objects.filter(role__in=("owner", "finance")).select_related("user")
        schedule = partial(set_schedule, acting_user=by, organization=organization, recipients=list(people))
        month = (timezone.localdate().replace(day=1) - timedelta(days=1)).replace(day=1)
        ScheduleRun.objects.create(
            schedule=schedule(what="statement", format="pdf"),
            month=month,
            state="sent",
            sent_at=timezone.now(),
        )
        ScheduleRun.objects.create(
            schedule=schedule(what="report", by="team", format="xlsx"),
            month=month,
            state="mailing",
            problem="The mail server did not take it (ConnectionRefusedError).",
            next_at=timezone.now() + timedelta(minutes=8),
        )
        schedule(what="focus", format="csv", recipients=list(people)[:1])


def _sign_in(acme: Organization, owner: User, operator: User) -> None:
    """A provider of acme's own, a domain that is confirmed and one that waits."""
    save_provider(
        acting_user=owner,
        organization=acme,
        issuer="https://login.acme.example/realms/people",
        client_id="weir-console",
        secret="not-a-secret",  # noqa: S106 - of a provider that does not exist
    )
    claim = claim_domain(acting_user=owner, organization=acme, domain="acme.example")
    confirm_domain(acting_user=operator, claim=claim)
    claim_domain(acting_user=owner, organization=acme, domain="research.acme.example")


def _told(organization: Organization, by: User) -> None:
    """Two channels, one of which is switched off, and more messages than a page has."""
    with scope(organization=organization):
        add = partial(add_channel, acting_user=by, organization=organization, kind="email")
        admins, _ = add(name="Admins", topics=["budget", "outage", "key_expiry"], roles=["owner", "admin"])
        desk, _ = add(name="Help desk", topics=["outage"], recipients=["help@acme.example"])
        switch_channel(acting_user=by, channel=desk, on=False)
        Delivery.objects.bulk_create(
            Delivery(
                channel=admins if number % 3 else desk,
                topic="budget" if number % 3 else "outage",
                about=f"sample-{number}",
                subject=f"Research has spent {50 + number} % of its budget"
                if number % 3
                else "The provider simulator does not answer",
                text="",
                state="failed" if number % 7 == 5 else "sent",
                problem="The mail server did not take it (ConnectionRefusedError)."
                if number % 7 == 5
                else "",
                created_at=timezone.now() - timedelta(hours=7 * (30 - number)),
            )
            for number in range(30)
        )


def make_sample() -> Sample:
    """Fill an empty database through the services that the product itself uses."""
    prices = _routes()
    year = datetime.now(UTC).year
    set_exchange_rate(
        acting_user=None,
        currency="EUR",
        rate=Decimal("0.92"),
        effective_from=datetime(year - 1, 1, 1, tzinfo=UTC),
    )
    plan = create_plan(acting_user=None, name="business")
    set_quota(acting_user=None, scope="plan", target=plan, metric="requests_per_minute", limit=6000)
    acme = create_organization(
        acting_user=None,
        slug="acme",
        name="Acme Ltd",
        time_zone="Europe/Berlin",
        billing="prepaid",
        markup=Decimal("0.2"),
        plan=plan,
        currency="EUR",
    )
    make_price_story(acme, timezone.now())
    empty = create_organization(acting_user=None, slug="newco", name="Newco", log_content=True)
    people = _people(acme)
    top_up(acting_user=people["ann"].user, organization=acme, amount=Decimal(80), reference="invoice-2201")
    newcomer = add_member(
        acting_user=None, organization=empty, email="nina@newco.example", role=Role.OWNER, password=PASSWORD
    )
    add_member(acting_user=None, organization=empty, email="ann@acme.example", role=Role.VIEWER)
    operator = User.objects.create_superuser("olga@platform.example", PASSWORD)
    _sign_in(acme, people["ann"].user, operator)
    _told(acme, people["ann"].user)
    with scope(organization=acme):
        teams = _teams(acme, people)
        keys = _keys(teams, people)
        invitation = _invited(acme, teams, people["ann"].user)
        _limits(acme, teams, keys, people)
        request = _use(acme, keys, prices)
    while rollups.refresh():
        pass
    with scope(organization=acme):
        old_request = _forget(acme)
        _store(acme, request)
    while ledger.post_usage():
        pass
    adjust(
        acting_user=operator,
        organization=acme,
        amount=Decimal("2.50"),
        reason="Goodwill for the outage of 3 November",
        reference="case-118",
    )
    second = top_up(
        acting_user=operator,
        organization=acme,
        amount=Decimal(40),
        reference="invoice-2214",
        memo="Wire transfer, paid twice",
    )
    refund(
        acting_user=operator,
        organization=acme,
        top_up=second,
        amount=Decimal(20),
        reason="Half of the second payment returned",
        reference="bank-77",
    )
    give_grant(
        acting_user=operator,
        organization=acme,
        amount=Decimal(15),
        expires_at=datetime.now(UTC) + timedelta(days=30),
        reason="Welcome to the new models",
        reference="promo-2026-11",
    )
    statements = making.make_due()
    _exports(acme, people["ann"].user)
    begun = checkouts.start(
        acting_user=people["ann"].user,
        organization=acme,
        provider=DummyProvider("sample"),
        amount=Decimal(25),
        return_url="http://127.0.0.1/{reference}",
    )
    reconcile.record(reconcile.compare())
    report = ReconcileReport.objects.create(
        balanced=False,
        differences=[
            {
                "organization": acme.slug,
                "what": "charge of rollups and ledger",
                "where": "2026-11-03 09:00",
                "expected": "1.250000000000",
                "found": "1.200000000000",
            }
        ],
    )
    letter = DeadLetter.objects.create(
        record=orjson.dumps(
            {
                "t": "end",
                "request_id": "req_lost",
                "organization_id": acme.pk,
                "status": 200,
                "charge": "0.0125",
            }
        ).decode(),
        reason="started_at: this is no time.",
    )
    for name, counts, worst in (
        ("gpt-large", (412, 381_204, 380_990, 92_118, 92_034), "1.0412"),
        ("claude", (97, 120_411, 98_350, 31_877, 27_002), "1.3120"),
        ("relay-of-a-relay", (31, 88_412, 41_077, 9_120, 8_995), "4.2100"),
    ):
        UsageCheck.objects.create(
            deployment=name,
            day=timezone.now().date(),
            requests=counts[0],
            reported_input=counts[1],
            counted_input=counts[2],
            reported_output=counts[3],
            counted_output=counts[4],
            worst_ratio=Decimal(worst),
        )
    TaskRun.objects.create(
        name="post_usage", started_at=timezone.now(), ended_at=timezone.now(), seconds=0.02, runs=812
    )
    return Sample(
        acme=acme,
        empty=empty,
        owner=people["ann"].user.email,
        member=people["bob"].user.email,
        viewer=people["vera"].user.email,
        newcomer=newcomer.user.email,
        operator=operator.email,
        key=keys[0],
        invitation=invitation,
        request=request,
        old_request=old_request,
        raised=_raised(acme),
        model=MIXED,
        report=report.pk,
        letter=letter.pk,
        statement=statements[-1].number,
        checkout=begun.reference,
    )
