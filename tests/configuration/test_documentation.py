"""The examples in docs/ are files that apply takes, and route as they say."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
import yaml
from django.db import connection

from gateway.configuration.schema import (
    Configuration,
    KeyBlock,
    OrganizationBlock,
    ProviderBlock,
    QuotasBlock,
)
from routing import policy
from routing.kinds import KINDS
from routing.policy import Need, Signals
from routing.table import read_table
from tests.configuration.filed import apply, shown

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "configuration.md").read_text()
EXAMPLES = [part.split("```")[0] for part in PAGE.split("```yaml\n")[1:]]


@pytest.mark.django_db
def test_the_small_file_can_be_applied() -> None:
    assert shown(apply(EXAMPLES[0]))[-1] == "+ key acme/search/search-backend"


def test_the_example_of_quotas_is_one() -> None:
    quotas = QuotasBlock.model_validate(yaml.safe_load(EXAMPLES[1])["quotas"])
    assert (quotas.requests_per_minute, quotas.budget[0].period) == (600, "month")


def test_the_page_names_every_kind_and_field() -> None:
    for kind in KINDS:
        assert kind in PAGE
    for block in (Configuration, ProviderBlock, OrganizationBlock, KeyBlock, QuotasBlock):
        for name in block.model_fields:
            assert name in PAGE, name
    without_address = [kind.name for kind in KINDS.values() if not kind.base_url]
    assert f"Needed for `{' '.join(without_address)}`" in PAGE


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("need", "order"),
    [
        (Need(input_tokens=200, team="support"), ["mini", "spare"]),
        (Need(input_tokens=200, team="legal"), ["long", "spare"]),
        (Need(input_tokens=31_000, team="support", plan="enterprise"), ["long", "spare"]),
        (Need(input_tokens=200, team="research"), ["strong", "spare"]),
        (Need(input_tokens=200, team="support", plan="enterprise"), ["strong", "spare"]),
    ],
)
def test_the_page_of_routing_routes_as_it_says(need: Need, order: list[str]) -> None:
    (example,) = [part.split("```")[0] for part in (DOCS / "routing.md").read_text().split("```yaml\n")[1:]]
    apply(example)
    table = read_table(connection.connection)
    signals = Signals(lambda _: Decimal(1), lambda _: 0, lambda _: 0.0)
    found = policy.order(table, table.groups["assistant"], need, signals, Random(1), lambda _: True)
    assert [candidate.deployment.name for candidate in found] == order
