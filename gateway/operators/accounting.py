"""The accounting check: what providers reported, and what the gateway counted, of the same sample of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Sum
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse

from gateway.console.health import place_in
from gateway.console.lists import words
from gateway.models import UsageCheck
from gateway.operators.access import OperatorRequest, operators_only

DAYS = 30
PAGE = 50
# From here on a deployment is marked: its provider reports half as much again as was counted, or as little.
FAR = Decimal("1.5")
COUNTS = ("requests", "reported_input", "reported_output", "counted_input", "counted_output")


@dataclass(frozen=True, slots=True)
class CheckRow:
    """The sums of a deployment, or of one of its days. Ratios are reported by counted tokens; None: nothing
    was counted."""

    name: str
    requests: int
    reported_input: int
    reported_output: int
    counted_input: int
    counted_output: int
    worst: Decimal

    @property
    def input_ratio(self) -> Decimal | None:
        """Of what went in."""
        return _ratio(self.reported_input, self.counted_input)

    @property
    def output_ratio(self) -> Decimal | None:
        """Of what came out."""
        return _ratio(self.reported_output, self.counted_output)

    @property
    def ratio(self) -> Decimal | None:
        """Of both."""
        return _ratio(self.reported_input + self.reported_output, self.counted_input + self.counted_output)

    @property
    def far(self) -> bool:
        """Whether the provider reports much more than was counted, or much less."""
        return self.ratio is not None and apart(self.ratio) >= FAR


def _ratio(reported: int, counted: int) -> Decimal | None:
    return Decimal(reported) / counted if counted else None


def apart(ratio: Decimal) -> Decimal:
    """How many times one is the other, whichever is greater."""
    return max(ratio, 1 / ratio) if ratio else FAR


def checks(since: datetime, deployment: str = "") -> list[CheckRow]:
    """The sums since a day by deployment, the farthest apart first; or of one deployment by day, the latest
    first. Two queries."""
    found = UsageCheck.objects.filter(day__gte=since.date())
    if deployment:
        days = found.filter(deployment=deployment).order_by("-day").values("day", "worst_ratio", *COUNTS)
        return [_row(f"{sums['day']}", sums, sums["worst_ratio"]) for sums in days]
    worst: dict[str, Decimal] = {}
    for name, ratio in found.values_list("deployment", "worst_ratio"):
        worst[name] = max(worst.get(name, ratio), ratio, key=apart)
    every: Any = found.order_by().values("deployment").annotate(**{name: Sum(name) for name in COUNTS})
    rows = [_row(sums["deployment"], sums, worst[sums["deployment"]]) for sums in every]
    return sorted(rows, key=lambda row: (-apart(row.ratio) if row.ratio is not None else 0, row.name))


def _row(name: str, sums: Mapping[str, Any], worst: Decimal) -> CheckRow:
    return CheckRow(name, worst=worst, **{each: sums[each] for each in COUNTS})


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for: all deployments, or one day by day, and which names."""

    deployment: str
    search: str

    @classmethod
    def of(cls, request: OperatorRequest) -> Asked:
        """Of the words in the address."""
        return cls(words(request, "deployment"), words(request))

    @property
    def parameters(self) -> str:
        """The same as part of an address."""
        return urlencode([pair for pair in (("deployment", self.deployment), ("q", self.search)) if pair[1]])

    @property
    def found(self) -> list[CheckRow]:
        """The rows, in their order: two queries."""
        every = checks(datetime.now(UTC) - timedelta(days=DAYS), self.deployment)
        return [row for row in every if self.search.lower() in row.name.lower()]


@operators_only
def accounting(request: OperatorRequest) -> HttpResponse:
    """``/operator/accounting/``, with ``?deployment=`` day by day."""
    asked = Asked.of(request)
    found = asked.found
    after = place_in(request.GET.get("after", ""))
    context: dict[str, Any] = {
        "rows": found[after : after + PAGE],
        "deployment": asked.deployment,
        "days": DAYS,
        "share": settings.ACCOUNTING_SAMPLE,
        "search": asked.search,
        "csv": f"{reverse('operator:accounting_csv')}?{asked.parameters}" if found else "",
        "after": after,
        "older": after + PAGE if len(found) > after + PAGE else None,
    }
    return render(request, "operators/accounting.html", context)
