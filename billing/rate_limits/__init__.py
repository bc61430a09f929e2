"""Requests and tokens per minute, and requests at a time, counted in Redis for all workers together."""

from billing.rate_limits.limiter import RateLimiter
from billing.rate_limits.rules import (
    CONCURRENCY,
    REQUESTS,
    TOKENS,
    RateLimited,
    RateRule,
    Standing,
    Ticket,
)

__all__ = (
    "CONCURRENCY",
    "REQUESTS",
    "TOKENS",
    "RateLimited",
    "RateLimiter",
    "RateRule",
    "Standing",
    "Ticket",
)
