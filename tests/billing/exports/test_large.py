"""A large export takes no more memory than a small one, and its sum is the report's and the ledger's.

``manage.py bench_exports`` does the same with a million requests.
"""

from __future__ import annotations

import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django_scopes import scopes_disabled

from billing import ledger, partitions, rollups
from billing.access import local_range
from billing.reports import totals_for
from gateway.bench.exports import MOST_ADDED_MB, measured
from tests.billing.made_usage import make_tenant, utc
from tests.stack import environment_for

MARCH = (date(2025, 3, 1), date(2025, 3, 31))
REQUESTS = 50_000

# Request i is charged i of the smallest unit there is.
_FILL = """
INSERT INTO billing_usageevent (
    request_id, started_at, ended_at, organization_id, team_id, key_id, end_user, model_group, deployment,
    provider, provider_model, endpoint, streamed, status, end_reason, error_code, attempts, input_tokens,
    cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, usage_source, cost, charge,
    markup, budget_ids, duration_ms, tags
)
SELECT %(slug)s || i, at, at, %(organization)s, %(team)s, %(key)s, '=1+' || i %% 100, 'fast', 'gpt',
    'openai', 'gpt', 'chat.completions', false, 200, 'completed', '', '[]', i %% 1000, 0, 0, 7, 0, 'reported',
    0, 0.000000000001 * i, 0, ARRAY[]::bigint[], 10, '{}'
FROM generate_series(1, %(count)s) AS i, LATERAL (SELECT %(start)s + i * interval '10 seconds') AS moment(at)
"""
_MARK = """
INSERT INTO billing_dirtybucket (organization_id, hour)
SELECT DISTINCT organization_id, date_trunc('hour', started_at, 'UTC') FROM billing_usageevent
WHERE organization_id = %(organization)s
"""


@pytest.mark.slow
def test_a_large_export_adds_little_memory_and_its_sum_is_the_ledgers(
    committed: None, slug: str, tmp_path: Path
) -> None:
    tenant = make_tenant(slug)
    organization = tenant.organization
    values: dict[str, Any] = {
        "slug": f"{slug[-6:]}-",
        "organization": organization.pk,
        "team": tenant.search.pk,
        "key": tenant.batch.pk,
        "start": utc("2025-03-01T00:00"),
        "count": REQUESTS,
    }
    with connection.cursor() as cursor, scopes_disabled():
        partitions.ensure(cursor, utc("2025-03-01T00:00"))
        cursor.execute(_FILL, values)
        cursor.execute(_MARK, values)
        while rollups.refresh():
            pass
        while ledger.post_usage():
            pass
    # 1 + 2 + ... + 50,000 = 50,000 x 50,001 / 2 of the smallest unit.
    expected = Decimal("0.001250025000")
    assert totals_for(organization, *local_range(organization, *MARCH)).charge == expected
    environment = {**environment_for(tmp_path), "EXPORT_DIR": str(tmp_path / "exports")}
    assert os.environ["DATABASE_URL"] != environment["DATABASE_URL"]
    for way in ("streamed", "usage.csv"):
        found = measured(slug, str(MARCH[0]), str(MARCH[1]), way, environment)
        assert (found["rows"], Decimal(found["sum"])) == (REQUESTS, expected), way
        assert found["added_mb"] < MOST_ADDED_MB, way
        assert Decimal(found.get("control", expected)) == expected, way
