"""What the attempts of the last hour say about deployments: errors, time to the first token, the latest ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db import connection

from routing.circuit import Outcome, outcome_of
from tenants.models import Organization

WINDOW = timedelta(hours=1)
# Requests that are looked at, newest first: a busy platform is judged by its last minutes.
MOST_REQUESTS = 20_000
LATEST = 30

# An attempt's times count from the beginning of its request.
_ATTEMPTS = """
WITH requests AS MATERIALIZED (
    SELECT started_at, attempts FROM billing_usageevent
    WHERE started_at >= %(since)s AND (%(organization)s::bigint IS NULL OR organization_id = %(organization)s)
    ORDER BY started_at DESC LIMIT %(most)s
), attempts AS (
    SELECT started_at, attempt ->> 'deployment' AS deployment, attempt ->> 'reason' AS reason,
           (attempt ->> 'first_token_ms')::int - (attempt ->> 'started_ms')::int AS first_token_ms
    FROM requests, jsonb_array_elements(attempts) AS attempt
)
SELECT deployment, reason, count(*),
       percentile_disc(0.5) WITHIN GROUP (ORDER BY first_token_ms),
       percentile_disc(0.95) WITHIN GROUP (ORDER BY first_token_ms),
       CASE WHEN grouping(reason) = 1
            THEN (array_agg(coalesce(reason, '') ORDER BY started_at DESC))[1:%(latest)s] END
FROM attempts GROUP BY GROUPING SETS ((deployment), (deployment, reason))
ORDER BY deployment, grouping(reason) DESC
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """The attempts at one deployment. Times are in milliseconds; None: there was no first token."""

    count: int = 0
    first_token_median: int | None = None
    first_token_p95: int | None = None
    # Reasons of the latest, newest first.
    latest: tuple[str, ...] = ()
    # How many ended with each reason.
    reasons: Mapping[str, int] = field(default_factory=dict)

    def counted(self, *outcomes: Outcome) -> int:
        """How many attempts had one of ``outcomes``."""
        return sum(count for reason, count in self.reasons.items() if outcome_of(reason) in outcomes)

    @property
    def judged(self) -> int:
        """Attempts that say something about the provider."""
        return self.count - self.counted(Outcome.NEUTRAL)

    @property
    def faults(self) -> int:
        """Attempts in which the provider failed."""
        return self.counted(Outcome.FAULT)

    @property
    def refused(self) -> int:
        """Attempts that the provider refused for its rate limit or the credential."""
        return self.counted(Outcome.LIMIT, Outcome.CREDENTIAL)


def measured(
    organization: Organization | None = None, *, at: datetime | None = None, most: int = MOST_REQUESTS
) -> dict[str, Measured]:
    """What became of the attempts of the hour before ``at``, by the name of the deployment: one query.

    Of one organization's requests, or of everybody's; of the newest ``most`` of them.
    """
    since = (at or datetime.now(UTC)) - WINDOW
    given = {
        "since": since,
        "organization": organization.pk if organization is not None else None,
        "most": most,
        "latest": LATEST,
    }
    found: dict[str, Measured] = {}
    with connection.cursor() as cursor:
        cursor.execute(_ATTEMPTS, given)
        for name, reason, count, median, p95, latest in cursor.fetchall():
            if latest is not None:
                found[name] = Measured(count, median, p95, tuple(latest), {})
            else:
                found[name].reasons[reason or ""] = count  # type: ignore[index]  # filled here, read only elsewhere
    return found
