"""What is used right now of the limits on requests, tokens and concurrency: a look into Redis.

Only reads what ``billing.rate_limits`` keeps there (its script.lua says in which form). Without Redis
there is no answer, and the page shows the limits alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any, cast

from django.conf import settings
from redis import Redis, RedisError

from billing.models import Quota
from billing.rate_limits import CONCURRENCY
from billing.rate_limits.rules import LETTERS

PATIENCE_SECONDS = 0.25
MINUTE_MS = 60_000
LEVEL = struct.Struct("=dd")


def used_now(quotas: Sequence[Quota], organization_id: int, end_user: str = "") -> dict[int, int]:
    """Requests or tokens of the last minute that have not leaked away, or requests under way, by quota id.

    ``quotas`` are limits other than budgets; those of end users count for each user apart and have an
    answer only for ``end_user``. Empty where Redis is away.
    """
    asked = [quota for quota in quotas if quota.metric in LETTERS and (end_user or quota.scope != "end_user")]
    if not asked:
        return {}
    try:
        with Redis.from_url(
            settings.REDIS_URL, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        ) as redis:
            # An asynchronous client has the same methods, and the annotations are of both.
            seconds, microseconds = cast(tuple[int, int], redis.time())
            now = seconds * 1000 + microseconds / 1000
            answers = _ask(redis, asked, organization_id, end_user, now)
    except RedisError:
        return {}
    return {quota.pk: _level(quota, answer, now) for quota, answer in zip(asked, answers, strict=True)}


def _ask(redis: Redis, quotas: Sequence[Quota], organization_id: int, end_user: str, now: float) -> list[Any]:
    with redis.pipeline(transaction=False) as pipeline:
        for quota in quotas:
            subject = end_user if quota.scope == "end_user" else organization_id
            key = f"weir:limit:{LETTERS[quota.metric]}:{quota.pk}:{subject}"
            if quota.metric == CONCURRENCY:
                pipeline.zcount(key, f"({now}", "+inf")
            else:
                pipeline.get(key)
        return pipeline.execute()


def _level(quota: Quota, answer: Any, now: float) -> int:
    """How full the limit is, rounded up."""
    if quota.metric == CONCURRENCY:
        return int(answer)
    if not answer:
        return 0
    level, at = cast(tuple[float, float], LEVEL.unpack(answer))
    # A thousandth is the clock's, not a request's.
    return max(
        0, ceil(level - max(0.0, now - at) * float(quota.limit_at(datetime.now(UTC))) / MINUTE_MS - 0.001)
    )
