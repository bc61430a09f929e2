"""The shapes of the JSON API."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from billing.money import plain
from billing.reports import Report
from billing.sums import Sums
from billing.usage_export import CURRENCY
from gateway.console.keyring import standing
from tenants.models import ApiKey


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """An API key. Its secret is known to nobody, its digest is shown to nobody."""

    team = serializers.CharField(source="team.slug")
    owner = serializers.SerializerMethodField()
    status = serializers.SerializerMethodField()

    class Meta:
        model = ApiKey
        fields = (
            "id",
            "name",
            "team",
            "owner",
            "prefix",
            "last_four",
            "status",
            "model_groups",
            "allowed_ips",
            "created_at",
            "expires_at",
            "revoked_at",
            "paused_at",
            "last_used_at",
        )
        read_only_fields = fields

    def get_owner(self, key: ApiKey) -> str | None:
        """The owner's e-mail address."""
        return key.owner.user.email if key.owner is not None else None

    def get_status(self, key: ApiKey) -> str:
        """active, rotated, paused, expired or revoked."""
        return standing(key, timezone.now())


def sums_shape(sums: Sums, *, provider_cost: bool) -> dict[str, Any]:
    """Sums as JSON; amounts are exact decimal strings in US dollars."""
    shape: dict[str, Any] = {
        "requests": sums.requests,
        "errors": sums.errors,
        "input_tokens": sums.input_tokens,
        "cached_input_tokens": sums.cached_input_tokens,
        "cache_write_tokens": sums.cache_write_tokens,
        "output_tokens": sums.output_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "charge": plain(sums.charge),
    }
    if provider_cost:
        shape |= {"cost": plain(sums.cost), "margin": plain(sums.margin)}
    return shape


def report_shape(report: Report, *, provider_cost: bool) -> dict[str, Any]:
    """A whole report as JSON; ``start`` and ``end`` are moments in UTC, the end excluded."""
    return {
        "by": report.by,
        "start": report.start.isoformat(),
        "end": report.end.isoformat(),
        "time_zone": report.time_zone,
        "currency": CURRENCY,
        "pending_hours": report.pending_hours,
        "rows": [
            {
                "id": row.key,
                "label": row.label,
                "detail": row.detail,
                **sums_shape(row.sums, provider_cost=provider_cost),
            }
            for row in report.rows
        ],
        "totals": sums_shape(report.totals, provider_cost=provider_cost),
    }
