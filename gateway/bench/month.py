"""A month of made-up usage in a scratch database: one organization with many keys, and some small ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection

from billing import partitions
from billing.models import Budget
from tenants.models import ApiKey, Membership, Organization, Team, User

# A month that is over, so that nothing else writes into its partition.
MONTH = partitions.first_of(datetime.now(tz=UTC).date().replace(day=1) - timedelta(days=1))
TEAMS = 20
SMALL_ORGANIZATIONS = 20
# The models; each key mostly uses one of them.
MODELS = 5
END_USERS = 20_000

# Generated inside PostgreSQL. Few keys and end users make most of the requests, as anywhere; ids are
# ordered by time, as the gateway's are. Of a hundred requests five are of the small organizations.
_FILL = """
INSERT INTO {table} (
    request_id, started_at, ended_at, organization_id, team_id, key_id, member_id, end_user, model_group,
    deployment, provider, provider_model, endpoint, streamed, status, end_reason, error_code, attempts,
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, usage_source,
    cost, charge, cost_price_id, charge_price_id, markup, budget_ids, first_token_ms, duration_ms, tags
)
SELECT
    'req_' || lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || substr(md5(i::text), 1, 20),
    at, at + interval '1.5 seconds', k.organization_id, k.team_id, k.id, k.owner_id,
    CASE WHEN i %% 10 < 4 THEN '' ELSE 'customer-' || floor(%(end_users)s * dice.b * dice.b)::int END,
    'model-' || model, 'model-' || model || CASE WHEN i %% 7 = 0 THEN '/backup' ELSE '/first' END,
    CASE WHEN i %% 7 = 0 THEN 'second' ELSE 'first' END, 'provider-model-' || model, 'chat.completions',
    i %% 2 = 0, CASE WHEN i %% 50 = 0 THEN 502 ELSE 200 END,
    CASE WHEN i %% 50 = 0 THEN 'provider_error' ELSE 'completed' END, '',
    jsonb_build_array(jsonb_build_object('deployment', 'model-' || model || '/first', 'provider', 'first',
        'status', 200, 'reason', '', 'started_ms', 1, 'first_token_ms', 200, 'duration_ms', 1500)),
    200 + i %% 1000, i %% 100, 0, 50 + i %% 300, i %% 40, 'reported',
    0.000100000000 + (i %% 1000) * 0.000000250000, 0.000200000000 + (i %% 1000) * 0.000000500000,
    1, 2, 0, ARRAY[]::bigint[], 200, 1500, '{{}}'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
CROSS JOIN LATERAL (SELECT random() AS a, random() AS b, random() AS c, i AS again OFFSET 0) AS dice
CROSS JOIN LATERAL (
    SELECT %(start)s::timestamptz + (i - 1) * %(step)s::interval AS at,
        CASE WHEN i %% 20 = 0 THEN %(keys)s + (i / 20) %% %(small)s ELSE floor(%(keys)s * dice.a * dice.a)::int END AS place
) AS chosen
JOIN bench_key k ON k.place = chosen.place
CROSS JOIN LATERAL (SELECT (k.place + CASE WHEN dice.c < 0.1 THEN 1 ELSE 0 END) %% %(models)s AS model) AS asked
"""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who uses the month: the large organization, its keys, and the counters its requests name."""

    organization: Organization
    keys: list[ApiKey]
    wallet: Budget


def make_crowd(keys: int, members: int, teams_of_large: int = TEAMS) -> Crowd:
    """The organizations; keys belong to teams and, nine in ten, to members."""
    organization = Organization.objects.create(slug="large", name="Large", time_zone="Europe/Berlin")
    teams = Team.objects.bulk_create(
        Team(organization=organization, slug=f"team-{n}", name=f"Team {n}") for n in range(teams_of_large)
    )
    users = User.objects.bulk_create(User(email=f"person-{n}@large.example") for n in range(members))
    owners = Membership.objects.bulk_create(
        Membership(organization=organization, user=user, role="member") for user in users
    )
    made = ApiKey.objects.bulk_create(
        _key(teams[n % len(teams)], n, owners[n % members] if members and n % 10 else None)
        for n in range(keys)
    )
    for number in range(SMALL_ORGANIZATIONS):
        small = Organization.objects.create(slug=f"small-{number}", name=f"Small {number}")
        team = Team.objects.create(organization=small, slug="team", name="Team")
        made += ApiKey.objects.bulk_create([_key(team, keys + number, None)])
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bench_key AS SELECT id, organization_id, team_id, owner_id, split_part(name, '-', 2)::int AS place"
            " FROM tenants_apikey"
        )
        cursor.execute("CREATE UNIQUE INDEX ON bench_key (place)")
        cursor.execute("ANALYZE bench_key")
    wallet = Budget.objects.create(
        organization=organization, period_start=datetime(1970, 1, 1, tzinfo=UTC), limit=Decimal(10**9)
    )
    return Crowd(organization, made[:keys], wallet)


def _key(team: Team, number: int, owner: Membership | None) -> ApiKey:
    return ApiKey(
        organization=team.organization,
        team=team,
        owner=owner,
        name=f"key-{number}",
        prefix="sk-weir-abcd",
        last_four=f"{number % 10_000:04}",
        digest=f"bench-{number}",
    )


def fill(
    events: int,
    keys: int,
    say: Callable[[int], None],
    month: date = MONTH,
    until: datetime | None = None,
) -> None:
    """Put ``events`` events, evenly over ``month`` (or as far as ``until``), into its partition, which takes
    the place of one that has none yet, and mark their hours.

    The partition is filled before it is attached, so its indexes are built once and not row by row.
    """
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    after = partitions.after(month)
    end = datetime(after.year, after.month, 1, tzinfo=UTC)
    length = (until or end) - start
    name = partitions.name_of(month)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [name])
        if cursor.fetchone()[0]:
            # The running month's is made with the database.
            cursor.execute(f"SELECT count(*) FROM {name}")  # noqa: S608  # a name of ours
            if cursor.fetchone()[0]:
                raise ValueError(f"There are events in {month:%Y-%m}.")
            cursor.execute(f"DROP TABLE {name}")
        cursor.execute(
            f"CREATE TABLE {name} (LIKE billing_usageevent INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        )
        for first in range(1, events + 1, 500_000):
            last = min(first + 499_999, events)
            _spread(cursor, name, range(first, last), keys, start, length / max(events, 1))
            say(last)
        cursor.execute("SET maintenance_work_mem = '512MB'")
        cursor.execute(
            f"ALTER TABLE billing_usageevent ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)",
            [start, end],
        )
        cursor.execute(f"VACUUM ANALYZE {name}")
        cursor.execute(
            "INSERT INTO billing_dirtybucket (organization_id, hour)"  # noqa: S608  # as above
            f" SELECT DISTINCT organization_id, date_trunc('hour', started_at, 'UTC') FROM {name}"
        )


def fill_hour(events: int, keys: int, hour: datetime) -> None:
    """Put ``events`` more events, evenly over one hour, into the table, and mark the hour."""
    with connection.cursor() as cursor:
        partitions.ensure(cursor, hour)
        _spread(cursor, "billing_usageevent", range(1, events), keys, hour, timedelta(hours=1) / events)
        cursor.execute(f"ANALYZE {partitions.name_of(hour)}")
        cursor.execute(
            "INSERT INTO billing_dirtybucket (organization_id, hour)"
            " SELECT DISTINCT organization_id, %s::timestamptz FROM bench_key",
            [hour],
        )


def _spread(cursor: Any, table: str, numbers: range, keys: int, start: datetime, step: timedelta) -> None:
    """Events of the given numbers, the last one included; number 1 begins at ``start``."""
    parameters = {
        "first": numbers.start,
        "last": numbers.stop,
        "start": start,
        "step": step,
        "keys": keys,
        "small": SMALL_ORGANIZATIONS,
        "models": MODELS,
        "end_users": END_USERS,
    }
    cursor.execute(_FILL.format(table=table), parameters)
