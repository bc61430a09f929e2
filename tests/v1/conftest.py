from __future__ import annotations

from collections.abc import Iterator

import pytest
from django_scopes import scope

from billing.models import Budget, Lease, UsageEvent
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant


@pytest.fixture
def tenant(stack: Stack, slug: str) -> Iterator[Tenant]:
    """An organization of this test alone; after the test nothing of it may stay reserved."""
    made = stack.tenant(slug)
    yield made
    stack.settled()
    books_balance(made)


def events(tenant: Tenant) -> list[UsageEvent]:
    """The usage events of a tenant, oldest first, once everything is shipped."""
    tenant.stack.settled()
    with scope(organization=tenant.organization):
        return list(UsageEvent.objects.order_by("started_at", "request_id"))


def books_balance(tenant: Tenant) -> None:
    """Each counter of the tenant equals its events, and nothing is reserved once leases are returned."""
    with scope(organization=tenant.organization):

        def balanced() -> bool:
            # An answer can be here before its end is in the journal, so an event may still come.
            spent = {budget.pk: budget.opening for budget in Budget.objects.all()}
            for event in UsageEvent.objects.all():
                for budget_id in event.budget_ids:
                    spent[budget_id] += event.charge
            return {budget.pk: budget.spent for budget in Budget.objects.all()} == spent

        wait_until(balanced, 10)

        def returned() -> bool:
            return not any(budget.held for budget in Budget.objects.all())

        wait_until(returned)
        assert not any(lease.remaining for lease in Lease.objects.all())
