"""Tenants as operators see them: plan, balance, this month, what needs attention; suspend and resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Count, Q, QuerySet, Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from billing.models import AccountBalance, Budget, LedgerEntry
from billing.models.ledger import CUSTOMER_ACCOUNTS
from gateway.console.access import confirmed
from gateway.console.lists import words
from gateway.operators import visits
from gateway.operators.access import OperatorRequest, operators_only
from gateway.operators.sign_in import claims_of
from tenants.access import tenant_access
from tenants.models import ApiKey, AuditEntry, Membership, Organization, Plan, Team, User
from tenants.services.organizations import resume_organization, suspend_organization

PAGE = 50
NEARLY = Decimal("0.8")
STATES = {
    "active": Q(suspended_at__isnull=True),
    "suspended": Q(suspended_at__isnull=False),
}


@dataclass(frozen=True, slots=True)
class TenantRow:
    """One tenant. Amounts are US dollars; ``charge`` and ``cost`` are those posted this month (UTC)."""

    organization: Organization
    balance: Decimal
    charge: Decimal
    cost: Decimal
    # None: no wallet yet, or one without a limit.
    spendable: Decimal | None
    limit: Decimal | None

    @property
    def margin(self) -> Decimal:
        """What was charged beyond what providers ask."""
        return self.charge - self.cost

    @property
    def attention(self) -> str:
        """What an operator should know first; empty if all is well."""
        if self.organization.suspended_at is not None:
            return "suspended"
        if self.spendable is not None and self.spendable <= 0:
            return "nothing left to spend"
        if (
            self.spendable is not None
            and self.limit is not None
            and self.spendable <= self.limit * (1 - NEARLY)
        ):
            return "nearly nothing left to spend"
        return "costs more than it is charged" if self.margin < 0 else ""


def month_start(at: datetime) -> datetime:
    """The beginning of the month of ``at``, in UTC."""
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def tenant_rows(found: Sequence[Organization], at: datetime) -> list[TenantRow]:
    """``found`` with their money: three queries, however many there are."""
    balances: dict[int, Decimal] = {
        row["organization"]: -row["sum"]
        for row in AccountBalance.objects.filter(organization__in=found, account__in=CUSTOMER_ACCOUNTS)
        .values("organization")
        .annotate(sum=Sum("balance"))
    }
    posted: dict[tuple[int, str], Decimal] = {
        (row["organization"], row["account"]): row["sum"]
        for row in LedgerEntry.objects.filter(
            organization__in=found,
            account__in=("revenue", "provider_cost"),
            transaction__kind="usage",
            transaction__usage_hour__gte=month_start(at),
        )
        .values("organization", "account")
        .annotate(sum=Sum("amount"))
    }
    wallets = {
        wallet.organization_id: wallet
        for wallet in Budget.objects.filter(organization__in=found, quota__isnull=True, subject="")
    }
    return [_row(each, balances, posted, wallets.get(each.pk)) for each in found]


def _row(
    organization: Organization,
    balances: dict[int, Decimal],
    posted: dict[tuple[int, str], Decimal],
    wallet: Budget | None,
) -> TenantRow:
    limit = wallet.limit if wallet is not None else None
    left = limit - wallet.spent - wallet.held if wallet is not None and limit is not None else None
    return TenantRow(
        organization,
        balances.get(organization.pk, Decimal(0)),
        -posted.get((organization.pk, "revenue"), Decimal(0)),
        posted.get((organization.pk, "provider_cost"), Decimal(0)),
        left,
        limit,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """Which tenants the address asks for."""

    search: str
    state: str
    plan: str

    @classmethod
    def of(cls, request: OperatorRequest) -> Asked:
        """What ``q``, ``state`` and ``plan`` say."""
        return cls(words(request), words(request, "state"), words(request, "plan"))

    @property
    def found(self) -> QuerySet[Organization]:
        """They, by slug."""
        found = Organization.objects.select_related("plan").order_by("slug")
        if self.search:
            found = found.filter(Q(slug__icontains=self.search) | Q(name__icontains=self.search))
        if self.state in STATES:
            found = found.filter(STATES[self.state])
        return found.filter(plan__name=self.plan) if self.plan else found

    @property
    def parameters(self) -> str:
        """The same as a query string."""
        values = {"q": self.search, "state": self.state, "plan": self.plan}
        return urlencode({name: value for name, value in values.items() if value})


@operators_only
def tenants(request: OperatorRequest) -> HttpResponse:
    """``/operator/``: every tenant by slug. ``?after=`` the last slug of the page before."""
    asked, after = Asked.of(request), words(request, "after")
    found = asked.found
    if after:
        found = found.filter(slug__gt=after)
    page = list(found[: PAGE + 1])
    now = datetime.now(UTC)
    return render(
        request,
        "operators/tenants/list.html",
        {
            "rows": tenant_rows(page[:PAGE], now),
            "month": month_start(now),
            "search": asked.search,
            "state": asked.state,
            "plan": asked.plan,
            "csv": f"{reverse('operator:tenants_csv')}?{asked.parameters}",
            "plans": Plan.objects.order_by("name").values_list("name", flat=True),
            "after": after,
            "older": page[PAGE - 1].slug if len(page) > PAGE else "",
        },
    )


def _counts(organization: Organization) -> dict[str, Any]:
    keys = ApiKey.objects.filter(organization=organization, successor__isnull=True)
    return {
        "members": Membership.objects.filter(organization=organization).count(),
        "teams": Team.objects.filter(organization=organization).count(),
        **keys.aggregate(keys=Count("pk", filter=Q(revoked_at__isnull=True))),
    }


def _way_in(user: User, organization: Organization) -> dict[str, Any]:
    """The open visit of ``user``, whether they get into the tenant's pages, and whether a visit would help."""
    access = tenant_access(user, organization.slug)
    return {
        "open_visit": access.visit if access is not None else None,
        "may_enter": access is not None,
        "may_visit": access is None and organization.suspended_at is None,
    }


@operators_only
def tenant(request: OperatorRequest, slug: str) -> HttpResponse:
    """``/operator/tenants/<slug>/``: one tenant, and what suspending it would do."""
    organization = get_object_or_404(Organization.objects.select_related("plan"), slug=slug)
    now = datetime.now(UTC)
    (row,) = tenant_rows([organization], now)
    return render(
        request,
        "operators/tenants/detail.html",
        {
            "tenant": organization,
            "row": row,
            "month": month_start(now),
            "counts": _counts(organization),
            **_way_in(request.user, organization),
            "lengths": visits.MINUTES,
            "claims": claims_of(organization),
            "owners": Membership.objects.filter(organization=organization, role="owner").select_related(
                "user"
            )[:20],
            "changes": AuditEntry.objects.filter(organization=organization)
            .select_related("actor")
            .order_by("-pk")[:10],
        },
    )


def _suspends(request: OperatorRequest, slug: str) -> str:
    return "" if request.POST.get("do") == "resume" else f"suspend {slug}"


@operators_only
@confirmed(_suspends)
@require_POST
def standing(request: OperatorRequest, slug: str) -> HttpResponse:
    """POST ``do=suspend``, with the tenant's slug typed once more as ``sure``, or ``do=resume``."""
    organization = get_object_or_404(Organization, slug=slug)
    if request.POST.get("do") == "resume":
        resume_organization(acting_user=request.user, organization=organization)
        messages.success(request, f"{organization.name} works again.")
    elif request.POST.get("sure", "").strip() != organization.slug:
        messages.error(request, f"sure: type {organization.slug} to suspend it. Nothing was changed.")
    else:
        suspend_organization(acting_user=request.user, organization=organization)
        messages.success(request, f"{organization.name} is suspended. Its keys are refused from now on.")
    return redirect("operator:tenant", slug=organization.slug)
