"""Numbers of statements stay without gaps when many are made at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from django.db import connection
from django_scopes import scopes_disabled

from billing.models import Statement
from billing.services.wallet import top_up
from billing.statements import making
from tenants.models import Organization
from tests.billing.made_usage import make_tenant, utc

# A month of which no other test makes statements.
AFTERWARDS = utc("2041-02-10T12:00")


def make_all(organization: Organization) -> list[str]:
    with scopes_disabled():
        try:
            return [each.number for each in making.make_through(organization, AFTERWARDS)]
        finally:
            connection.close()


def test_numbers_given_out_at_once_have_no_gap(committed: None, slug: str) -> None:
    organizations = []
    for number in range(12):
        tenant = make_tenant(f"{slug}-{number}")
        top_up(
            acting_user=None,
            organization=tenant.organization,
            amount=Decimal(1),
            reference=f"{slug}-{number}",
        )
        organizations.append(tenant.organization)
    with ThreadPoolExecutor(6) as pool:
        # Each by two at once: one of them finds it made.
        made = [number for found in pool.map(make_all, organizations * 2) for number in found]
    numbers = sorted(int(number.rsplit("-", 1)[1]) for number in made)
    assert numbers == list(range(numbers[0], numbers[0] + 12))
    with scopes_disabled():
        assert Statement.objects.filter(organization__in=organizations).count() == 12
