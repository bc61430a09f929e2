"""Cost prices from the packaged catalogue."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django_scopes import scopes_disabled
from hypothesis import given
from hypothesis import strategies as st

from billing.catalogue import PROVIDERS, entry_of
from billing.models import Price
from billing.price_terms import rates_of
from billing.services.prices import price_in_force, set_price
from routing.models import Deployment, Provider
from tenants.models import AuditEntry

pytestmark = pytest.mark.django_db

MODEL = "gpt-5.4-mini"


def deployment(model: str = MODEL, kind: str = "openai", name: str = "small") -> Deployment:
    provider = Provider.objects.create(name=f"at-{name}", kind=kind, base_url="https://example.invalid")
    return Deployment.objects.create(name=name, provider=provider, model=model)


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("sync_prices", *arguments, stdout=out)
    return out.getvalue()


def catalogue(model: str = MODEL, kind: str = "openai") -> dict[str, Any]:
    entry = entry_of(kind, model)
    assert entry is not None
    return entry.terms


def test_a_proposal_changes_nothing() -> None:
    small = deployment()
    assert "Set them with --apply." in run("--deployment", "small")
    assert price_in_force(deployment=small) is None


def test_applying_sets_what_the_catalogue_says_once_and_is_audited() -> None:
    small = deployment()
    assert "1 prices set." in run("--deployment", "small", "--apply")
    price = price_in_force(deployment=small)
    assert price is not None
    assert price.input == catalogue()["input"]
    assert price.output == catalogue()["output"]
    with scopes_disabled():
        assert AuditEntry.objects.filter(verb="set price", target_id=price.pk).exists()
    assert run("--deployment", "small", "--apply") == "Nothing to change.\n"
    assert Price.objects.filter(deployment=small).count() == 1


def test_a_model_that_the_catalogue_does_not_know_is_left_alone() -> None:
    own = deployment("my-own-model", "vllm", "own")
    odd = deployment("no-such-model-xyz", "openai", "odd")
    set_price(acting_user=None, deployment=own, input=Decimal(3), output=Decimal(4))
    said = run("--deployment", "own", "--deployment", "odd", "--apply")
    assert "left alone: odd, own." in said
    assert "Nothing to change." in said
    assert price_in_force(deployment=odd) is None
    assert Price.objects.filter(deployment=own).count() == 1


def test_a_great_rise_is_refused_unless_confirmed() -> None:
    small = deployment()
    before = set_price(
        acting_user=None, deployment=small, input=catalogue()["input"] / 2, output=catalogue()["output"]
    )
    with pytest.raises(CommandError, match="more than 25%: small"):
        run("--deployment", "small", "--apply")
    assert price_in_force(deployment=small) == before
    # It doubles: a bound of 100 % lets it through.
    run("--deployment", "small", "--apply", "--max-rise", "100")
    after = price_in_force(deployment=small)
    assert after is not None
    assert after.input == catalogue()["input"]


def test_a_price_for_what_was_free_is_a_great_rise() -> None:
    small = deployment()
    set_price(acting_user=None, deployment=small, input=Decimal(0), output=Decimal(0))
    with pytest.raises(CommandError, match="more than"):
        run("--deployment", "small", "--apply", "--max-rise", "100000")
    assert "1 prices set." in run("--deployment", "small", "--apply", "--confirm-rise")


def test_a_fee_that_the_catalogue_does_not_name_stays() -> None:
    small = deployment()
    set_price(
        acting_user=None, deployment=small, input=Decimal(100), output=Decimal(100), request=Decimal("0.5")
    )
    run("--deployment", "small", "--apply")
    price = price_in_force(deployment=small)
    assert price is not None
    assert (price.input, price.request) == (catalogue()["input"], Decimal("0.5"))


def test_tiers_and_peak_hours_come_along() -> None:
    long = rates_of(1, catalogue("gpt-5.4"))
    (above, dear), *_ = long.tiers
    assert above >= 200_000
    assert (dear.rate("input") or 0) > (long.rate("input") or 0)
    busy = rates_of(1, catalogue("deepseek-v4-pro", "deepseek"))
    assert {(f"{peak.start:%H:%M}", f"{peak.end:%H:%M}", peak.multiplier) for peak in busy.peaks} == {
        ("01:00", "04:00", Decimal(2)),
        ("06:00", "10:00", Decimal(2)),
    }


@given(st.data())
def test_every_price_of_the_catalogue_is_a_price_of_ours(data: st.DataObject) -> None:
    from genai_prices.data_snapshot import get_snapshot

    kind = data.draw(st.sampled_from(sorted(PROVIDERS)))
    provider = next(each for each in get_snapshot().providers if each.id == PROVIDERS[kind])
    model = data.draw(st.sampled_from(provider.models))
    entry = entry_of(kind, model.id)
    if entry is not None:
        assert rates_of(1, entry.terms).priced
