"""The examples in docs/configuration.md are files that apply takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gateway.configuration.schema import (
    Configuration,
    KeyBlock,
    OrganizationBlock,
    ProviderBlock,
    QuotasBlock,
)
from routing.kinds import KINDS
from tests.configuration.filed import apply, shown

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
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
