"""What the platform charges beyond what providers ask, by tenant, provider or deployment, a month at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.db.models import Sum
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse

from billing.models import UsageRollup
from gateway.console.health import place_in
from gateway.console.lists import words
from gateway.operators.access import OperatorRequest, operators_only
from gateway.operators.tenants import month_start
from routing.models import Deployment
from tenants.models import Organization

PAGE = 50
MONTHS = 12
KINDS = {"tenant": "Tenant", "provider": "Provider", "deployment": "Deployment"}
NOBODY = "nobody was asked"


@dataclass(slots=True)
class MarginRow:
    """The sums of one tenant, provider or deployment. Amounts are US dollars."""

    name: str
    slug: str = ""
    requests: int = 0
    cost: Decimal = field(default=Decimal(0))
    charge: Decimal = field(default=Decimal(0))

    @property
    def margin(self) -> Decimal:
        """What is left of the charge."""
        return self.charge - self.cost

    def add(self, sums: dict[str, Any]) -> None:
        """Count ``sums`` in."""
        self.requests += sums["requests"]
        self.cost += sums["cost"]
        self.charge += sums["charge"]


def months(at: datetime) -> list[datetime]:
    """The beginnings of the last ``MONTHS`` months in UTC, the present one first."""
    found = [month_start(at)]
    while len(found) < MONTHS:
        last = found[-1]
        found.append(
            last.replace(year=last.year - 1, month=12)
            if last.month == 1
            else last.replace(month=last.month - 1)
        )
    return found


def margins(kind: str, start: datetime) -> list[MarginRow]:
    """The sums of the month that begins at ``start``, the greatest charge first: two queries."""
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    column = "organization" if kind == "tenant" else "deployment"
    sums = (
        UsageRollup.objects.filter(hour__gte=start, hour__lt=end)
        .order_by()
        .values(column)
        .annotate(requests=Sum("requests"), cost=Sum("cost"), charge=Sum("charge"))
    )
    rows: dict[Any, MarginRow] = {}
    if kind == "tenant":
        names = {row.pk: row for row in Organization.objects.filter(pk__in=[row[column] for row in sums])}
        for row in sums:
            known = names[row[column]]
            rows.setdefault(known.pk, MarginRow(known.name, known.slug)).add(row)
    else:
        at = dict(Deployment.objects.values_list("name", "provider__name")) if kind == "provider" else {}
        for row in sums:
            name = row[column]
            if kind == "provider" and name:
                name = at.get(name, f"removed ({name})")
            rows.setdefault(name, MarginRow(name or NOBODY)).add(row)
    return sorted(rows.values(), key=lambda row: (-row.charge, row.name))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for: by what, in the month that begins at ``start``, and which names."""

    kind: str
    start: datetime
    search: str

    @classmethod
    def of(cls, request: OperatorRequest) -> Asked:
        """What is not known in the address counts as not said."""
        kind = request.GET.get("by", "tenant")
        known = months(datetime.now(UTC))
        start = next((each for each in known if f"{each:%Y-%m}" == request.GET.get("month")), known[0])
        return cls(kind if kind in KINDS else "tenant", start, words(request))

    @property
    def parameters(self) -> str:
        """The same as part of an address."""
        searched = {"q": self.search} if self.search else {}
        return urlencode({"by": self.kind, "month": f"{self.start:%Y-%m}", **searched})

    def found(self, every: list[MarginRow]) -> list[MarginRow]:
        """Those of ``every`` whose name has what is searched for."""
        search = self.search.lower()
        return [row for row in every if search in row.name.lower() or search in row.slug]


@operators_only
def margin(request: OperatorRequest) -> HttpResponse:
    """``/operator/margin/?by=tenant&month=2026-11``."""
    asked = Asked.of(request)
    every = margins(asked.kind, asked.start)
    total = MarginRow("All")
    for row in every:
        total.add({"requests": row.requests, "cost": row.cost, "charge": row.charge})
    found = asked.found(every)
    after = place_in(request.GET.get("after", ""))
    return render(
        request,
        "operators/margin.html",
        {
            "rows": found[after : after + PAGE],
            "total": total,
            "kind": asked.kind,
            "kinds": KINDS.items(),
            "label": KINDS[asked.kind],
            "start": asked.start,
            "months": months(datetime.now(UTC)),
            "search": asked.search,
            "csv": f"{reverse('operator:margin_csv')}?{asked.parameters}" if found else "",
            "after": after,
            "older": after + PAGE if len(found) > after + PAGE else None,
        },
    )
