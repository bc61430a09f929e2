"""An organization with counters, and the journal records and events it has in tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
import psycopg
from django.db import connection
from django_scopes import scopes_disabled

from billing import settlement
from billing.models import Budget, DirtyBucket, Lease, Quota, UsageEvent, UsageRollup
from tenants.models import ApiKey, Organization, Team

# In this month, which has a partition.
NOON = datetime.now(tz=UTC).replace(day=1, hour=12, minute=0, second=0, microsecond=0)


def stamp(moment: datetime) -> str:
    """A time as the gateway writes it."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def database() -> psycopg.Connection[tuple[Any, ...]]:
    """Django's own psycopg connection, inside the test's transaction."""
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return cast("psycopg.Connection[tuple[Any, ...]]", connection.connection)


@dataclass
class Books:
    """One organization with a team, a key and a wallet."""

    organization: Organization
    team: Team
    key: ApiKey
    wallet: Budget

    @classmethod
    def open(cls, slug: str, *, limit: str | None = None, held: str = "0") -> Books:
        with scopes_disabled():
            organization = Organization.objects.create(slug=slug, name=slug)
            team = Team.objects.create(organization=organization, slug="team", name="Team")
            key = ApiKey.objects.create(
                organization=organization,
                team=team,
                name="key",
                prefix="sk-weir-",
                last_four="aaaa",
                digest=slug,
            )
            wallet = Budget.objects.create(
                organization=organization,
                period_start=datetime(1970, 1, 1, tzinfo=UTC),
                limit=None if limit is None else Decimal(limit),
                held=Decimal(held),
            )
        return cls(organization, team, key, wallet)

    def close(self) -> None:
        """Remove the organization of a test that commits; its events stay, as they always do."""
        with scopes_disabled():
            self.organization.delete()

    def budget(self, *, held: str = "0") -> Budget:
        """A monthly budget of the key."""
        with scopes_disabled():
            quota = Quota.objects.create(
                organization=self.organization,
                scope="key",
                key=self.key,
                metric="budget",
                period="month",
                limit=Decimal(100),
            )
            return Budget.objects.create(
                organization=self.organization,
                quota=quota,
                period_start=NOON.replace(hour=0),
                limit=Decimal(100),
                held=Decimal(held),
            )

    def lease(self, budget: Budget, worker: UUID, remaining: str) -> None:
        with scopes_disabled():
            Lease.objects.create(budget=budget, worker=worker, remaining=Decimal(remaining))

    def begin(self, name: str, **changes: Any) -> dict[str, Any]:
        """A begin record; ``name`` is made a request id of this organization."""
        return {
            "t": "begin",
            "request_id": self.request_id(name),
            "started_at": stamp(NOON),
            "organization_id": self.organization.id,
            "team_id": self.team.id,
            "key_id": self.key.id,
            "member_id": None,
            "end_user": "",
            "model_group": "chat",
            "endpoint": "chat.completions",
            "streamed": False,
            "estimated_input_tokens": 40,
            "deployment": "openai/small",
            "provider": "openai",
            "provider_model": "small-1",
            "cost_price_id": 1,
            "charge_price_id": 2,
            "markup": "0",
            "estimated_cost": "0.05",
            "budget_ids": [self.wallet.id],
            "tags": {},
        } | changes

    def end(self, name: str, charge: str = "0.10", cost: str = "0.08", **changes: Any) -> dict[str, Any]:
        """An end record: 100 tokens in, of which none cached, 20 out."""
        return {
            "t": "end",
            "request_id": self.request_id(name),
            "started_at": stamp(NOON),
            "ended_at": stamp(NOON + timedelta(seconds=2)),
            "organization_id": self.organization.id,
            "team_id": self.team.id,
            "key_id": self.key.id,
            "member_id": None,
            "end_user": "",
            "model_group": "chat",
            "deployment": "openai/small",
            "provider": "openai",
            "provider_model": "small-1",
            "endpoint": "chat.completions",
            "streamed": False,
            "status": 200,
            "end_reason": "completed",
            "error_code": "",
            "attempts": [{"deployment": "openai/small", "status": 200}],
            "input_tokens": 100,
            "cached_input_tokens": 0,
            "cache_write_tokens": 0,
            "output_tokens": 20,
            "reasoning_tokens": 0,
            "usage_source": "reported",
            "cost": cost,
            "charge": charge,
            "cost_price_id": 1,
            "charge_price_id": 2,
            "markup": "0",
            "budget_ids": [self.wallet.id],
            "first_token_ms": None,
            "duration_ms": 2000,
            "tags": {"app": "search"},
        } | changes

    def request_id(self, name: str) -> str:
        return f"{self.organization.id}-{name}"

    def ship(self, *records: dict[str, Any], worker: UUID | None = None) -> tuple[int, int]:
        """Settle end records straight away, in the test's own transaction."""
        worker = worker or uuid4()
        ends = [settlement.Ended(worker, record, orjson.dumps(record)) for record in records]
        return settlement.settle(database(), ends)

    def events(self) -> list[UsageEvent]:
        with scopes_disabled():
            return list(UsageEvent.objects.filter(organization=self.organization).order_by("request_id"))

    def marks(self) -> set[datetime]:
        with scopes_disabled():
            return set(
                DirtyBucket.objects.filter(organization=self.organization).values_list("hour", flat=True)
            )

    def rollups(self) -> list[UsageRollup]:
        with scopes_disabled():
            found = UsageRollup.objects.filter(organization=self.organization)
            return list(found.order_by("hour", "key_id", "model_group"))

    def counters(self, budget: Budget | None = None) -> tuple[Decimal, Decimal]:
        """``spent`` and ``held`` of a budget, or of the wallet."""
        with scopes_disabled():
            found = Budget.objects.get(id=(budget or self.wallet).id)
        return found.spent, found.held

    def leased(self, budget: Budget | None = None) -> dict[UUID, Decimal]:
        with scopes_disabled():
            leases = Lease.objects.filter(budget=budget or self.wallet)
            return dict(leases.values_list("worker", "remaining"))
